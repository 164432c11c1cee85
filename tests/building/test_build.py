"""From a folder of documents to examples: what is made, kept and told."""

import json
import os
import re
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

import ragtune
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.building import build as building
from ragtune.building.build import build
from ragtune.building.figures import Built
from ragtune.building.retrieval.lexical import LexicalIndex
from ragtune.data.read import read_examples
from ragtune.recipe.corpus import Corpus
from ragtune.recipe.load import load_corpus
from tests.building.retrieval.tiny import save_bert, save_encoder

TOWNS = {
    "Arlem": ("1254", "Dora Finch", "barley"),
    "Bexton": ("1307", "Emil Gard", "salt"),
    "Corvin": ("1411", "Flora Hale", "amber"),
    "Dunmore": ("1190", "Georg Ilk", "wool"),
    "Eastry": ("1622", "Hanna Jost", "copper"),
    "Fenwick": ("1733", "Igor Kahn", "honey"),
}


def page(name: str) -> str:
    year, founder, good = TOWNS[name]
    return (
        f"# {name}\n\n## History\n\n{name} was founded in {year} by {founder}. The walls of {name} are old.\n\n"
        f"## Trade\n\nThe people of {name} sold {good} on every market. They still do."
    )


def questions() -> list[tuple[str, str]]:
    return [
        row
        for name, (year, founder, good) in TOWNS.items()
        for row in (
            (f"When was {name} founded?", year),
            (f"Who founded {name}?", founder),
            (f"What did the people of {name} sell?", good),
        )
    ]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    for name in TOWNS:
        (tmp_path / "docs" / f"{name}.md").write_text(page(name), "utf-8")
    rows = ["frage,antwort", *(f"{q},{a}" for q, a in questions())]
    (tmp_path / "questions.csv").write_text("\n".join(rows), "utf-8")
    return tmp_path


def corpus(**changes: Any) -> Corpus:
    values: dict[str, Any] = {
        "name": "towns",
        "documents": {"files": ["docs"]},
        "passages": {"size": 80},
        "questions": {
            "files": ["questions.csv"],
            "fields": {"question": "frage", "answers": "antwort"},
            "eval_share": 0.4,
        },
        "retrieval": {"passages": 4},
    }
    return load_corpus(values, [f"{k}={v}" for k, v in changes.items()])


def examples(folder: Path, side: str) -> list[Any]:
    return list(read_examples(str(folder / f"{side}.jsonl"), side))


def test_documents_and_questions_become_examples(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    built = build(corpus(), place / "out")
    assert re.search(r"For evaluation: [1-5] of 6 documents", capsys.readouterr().out)
    train, held = examples(place / "out", "train"), examples(place / "out", "eval")
    assert len(train) + len(held) == 18
    assert train
    assert held
    shown = [{p.passage_id for each in side for p in each.passages} for side in (train, held)]
    assert not shown[0] & shown[1]  # no passage of the evaluation was trained
    for each in [*train, *held]:
        assert each.positive_passage_indices
        for passage in each.passages:
            text = (place / passage.place.file).read_text("utf-8")
            assert text[passage.place.start : passage.place.end] == passage.text
        positive = each.passages[each.positive_passage_indices[0]]
        assert each.answers[0] in positive.text
        assert each.extra["positives_by"] == "answer"
    recall = built.figures.recall[0]
    assert (recall.of, recall.n, recall.at[3]["value"]) == ("answer", 18, 1.0)
    assert built.figures.documents.kinds == {".md": 6}
    assert built == Built(
        **{**json.loads((place / "out/build.json").read_text()), "figures": built.figures}
    )


def test_what_did_not_change_is_not_read_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(corpus(), place / "out")
    read: list[str] = []
    indexed: list[str] = []
    from ragtune.building import reading

    real, index = reading.read_sources, LexicalIndex.index

    def read_sources(sources: Any, documents: Any) -> Any:
        read.extend(source.name for source in sources)
        return real(sources, documents)

    def add(self: LexicalIndex, entries: Any) -> None:
        indexed.extend(entry.passage_id for entry in entries)
        index(self, entries)

    monkeypatch.setattr(reading, "read_sources", read_sources)
    monkeypatch.setattr(LexicalIndex, "index", add)
    first = (place / "out/train.jsonl").read_bytes()
    build(corpus(), place / "out")
    assert (read, indexed) == ([], [])
    assert (place / "out/train.jsonl").read_bytes() == first
    (place / "docs/Arlem.md").write_text(page("Arlem").replace("barley", "cheese"), "utf-8")
    (place / "docs/Fenwick.md").unlink()
    build(corpus(), place / "out")
    assert [Path(name).name for name in read] == ["Arlem.md"]
    assert indexed
    assert all("Arlem" in name for name in indexed)
    every = [*examples(place / "out", "train"), *examples(place / "out", "eval")]
    assert not any("Fenwick.md" in p.place.file for each in every for p in each.passages)
    assert any("cheese" in p.text for each in every for p in each.passages)
    (asked,) = [each for each in every if each.question == "What did the people of Arlem sell?"]
    assert not asked.positive_passage_indices


def test_a_change_of_how_documents_are_cut_reads_all_again(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(corpus(), place / "out")
    build(corpus(**{"passages.size": 120}), place / "out")
    assert "all of them are read again" in capsys.readouterr().out
    texts = {p.text for each in examples(place / "out", "train") for p in each.passages}
    assert max(map(len, texts)) > 80


def test_named_documents_and_passages_decide(place: Path) -> None:
    rows = [
        "q,a,d",
        "Which town is old?,old,Corvin.md",
        "Where was it founded?,in,nowhere.md",
        *(f"{q},{a}," for q, a in questions()),
    ]
    (place / "questions.csv").write_text("\n".join(rows), "utf-8")
    fields = {"question": "q", "answers": "a", "document": "d"}
    whole = load_corpus(
        {**corpus().model_dump(), "questions": {"files": ["questions.csv"], "fields": fields}}
    )
    built = build(whole, place / "out")
    every = [*examples(place / "out", "train"), *examples(place / "out", "eval")]
    (named,) = [each for each in every if each.question == "Which town is old?"]
    assert named.extra["positives_by"] == "gold"
    assert all("Corvin" in named.passages[i].text for i in named.positive_passage_indices)
    assert {one.of: one.n for one in built.figures.recall}["gold"] == 1


def squad(place: Path, towns: dict[str, str]) -> Corpus:
    """A file of SQuAD's form whose questions bring the paragraphs; nothing else is given."""
    articles = [
        {
            "title": name,
            "paragraphs": [
                {
                    "context": text,
                    "qas": [
                        {"id": f"{name} {i}", "question": q, "answers": [{"text": a}]}
                        for i, (q, a) in enumerate(questions())
                        if name in q
                    ],
                }
            ],
        }
        for name, text in towns.items()
    ]
    (place / "squad.json").write_text(json.dumps({"data": articles}), "utf-8")
    return load_corpus(
        {"name": "s", "documents": {}, "questions": {"files": ["squad.json"], "eval_share": 0.4}}
    )


def test_paragraphs_that_questions_bring_are_documents_and_named_by_them(place: Path) -> None:
    built = build(squad(place, {name: page(name) for name in TOWNS}), place / "out")
    assert built.figures.documents.read == 6
    assert {one.of: one.n for one in built.figures.recall} == {"answer": 18, "gold": 18}
    every = [*examples(place / "out", "train"), *examples(place / "out", "eval")]
    assert len(every) == 18
    for each in every:
        (gold,) = each.positive_passage_indices
        assert each.passages[gold].title == each.qid.split()[0]
        assert each.extra["positives_by"] == "gold"


def test_what_questions_bring_and_documents_have_is_there_once(place: Path) -> None:
    build(corpus(), place / "first")
    (place / "again.jsonl").write_bytes((place / "first/train.jsonl").read_bytes())
    before = examples(place / "first", "train")
    again = {**corpus().model_dump(), "questions": {"files": ["again.jsonl"]}}
    built = build(load_corpus(again), place / "out")
    assert built.figures.documents.read == 6
    assert {one.of: one.n for one in built.figures.recall}["gold"] == len(before)


def test_a_record_is_named_by_its_own_id(place: Path) -> None:
    lines = [json.dumps({"id": f"town-{n}", "text": page(n)}) for n in TOWNS]
    (place / "towns.jsonl").write_text("\n".join(lines), "utf-8")
    rows = ["q,a,d", *(f"{q},{a},town-{n}" for n in TOWNS for q, a in questions() if n in q)]
    (place / "questions.csv").write_text("\n".join(rows), "utf-8")
    fields = {"question": "q", "answers": "a", "document": "d"}
    values = {
        **corpus().model_dump(),
        "documents": {"files": ["towns.jsonl"]},
        "questions": {"files": ["questions.csv"], "fields": fields},
    }
    built = build(load_corpus(values), place / "out")
    assert {one.of: one.n for one in built.figures.recall}["gold"] == 18


def test_only_the_passage_that_is_named_is_right(place: Path) -> None:
    text = "The mayor of Arlem is Anna. She is tall and old.\n\nAnna likes the barley and the wool of it."
    (place / "docs/Mayor.txt").write_text(text, "utf-8")
    rows = [
        "q,a,p",
        "What does the mayor Anna like?,Anna,docs/Mayor.txt#2",
        *(f"{q},{a}," for q, a in questions()),
    ]
    (place / "questions.csv").write_text("\n".join(rows), "utf-8")
    fields = {"question": "q", "answers": "a", "passage": "p"}
    values = {**corpus().model_dump(), "questions": {"files": ["questions.csv"], "fields": fields}}
    build(load_corpus(values, ["passages.size=60", "passages.overlap=0"]), place / "out")
    every = [*examples(place / "out", "train"), *examples(place / "out", "eval")]
    (named,) = [each for each in every if each.question.startswith("What does the mayor")]
    positive = [named.passages[i].passage_id for i in named.positive_passage_indices]
    assert positive == ["docs/Mayor.txt#2"]
    assert len(named.extra["answer_passage_indices"]) == 2


def test_questions_of_their_own_evaluation_files_are_parted_by_the_user(place: Path) -> None:
    rows = (place / "questions.csv").read_text("utf-8").splitlines()
    (place / "questions.csv").write_text("\n".join(rows[:10]), "utf-8")
    (place / "held.csv").write_text("\n".join([rows[0], *rows[10:]]), "utf-8")
    build(corpus(**{"questions.eval": "[held.csv]"}), place / "out")
    assert [len(examples(place / "out", side)) for side in ("train", "eval")] == [9, 9]


def test_a_retriever_of_one_s_own(place: Path) -> None:
    asked: list[str] = []

    def mine(question: str, k: int) -> list[str]:
        asked.append(question)
        return [f"docs/{name}.md#{n}" for name in TOWNS if name in question for n in (1, 2)][:k]

    whole = corpus()
    built = ragtune.build(whole.model_dump(), folder=place / "out", retriever=mine)
    assert built.retriever == "own (mine)"
    assert len(set(asked)) == 18
    assert all(each.passages for each in examples(place / "out", "train"))


def test_a_file_of_retrieved_ids(place: Path) -> None:
    build(corpus(), place / "out")
    every = [*examples(place / "out", "train"), *examples(place / "out", "eval")]
    lines = [
        json.dumps({"qid": e.qid, "passage_ids": [p.passage_id for p in e.passages][:2]})
        for e in every
    ]
    (place / "ids.jsonl").write_text("\n".join(lines), "utf-8")
    built = build(
        corpus(**{"retrieval.retriever": "file", "retrieval.retrieved": "ids.jsonl"}), place / "out"
    )
    assert built.retriever == "file"
    assert {len(each.passages) for each in examples(place / "out", "train")} == {2}


def test_a_file_of_retrieved_ids_that_changed_and_knows_qids_alone(place: Path) -> None:
    build(corpus(), place / "out")
    every = [*examples(place / "out", "train"), *examples(place / "out", "eval")]
    ids = sorted({p.passage_id for each in every for p in each.passages})
    by_file = corpus(**{"retrieval.retriever": "file", "retrieval.retrieved": "ids.jsonl"})
    shown = []
    for order in (ids, ids[::-1]):
        lines = [json.dumps({"qid": e.qid, "passage_ids": order}) for e in every]
        (place / "ids.jsonl").write_text("\n".join(lines), "utf-8")
        build(by_file, place / "out")
        train, held = examples(place / "out", "train"), examples(place / "out", "eval")
        # Of the first eight some side has less than four: it was searched deeper.
        assert {len(each.passages) for each in [*train, *held]} == {4}
        shown.append([p.passage_id for p in train[0].passages])
    assert shown[0] != shown[1]


def test_what_a_retriever_of_one_s_own_found_is_nobody_else_s(place: Path) -> None:
    calls = 0

    def fails(questions: list[str], k: int) -> list[list[str]]:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise ValueError("later")
        return [["docs/Corvin.md#1"] for _ in questions]

    (place / "more.csv").write_text(
        "frage,antwort\n" + "\n".join(f"Who is number {i}?,{i}" for i in range(130)), "utf-8"
    )
    more = corpus(**{"questions.files": "[questions.csv, more.csv]"})
    with pytest.raises(RagtuneError, match="raised ValueError: later"):
        build(more, place / "out", retriever=fails)
    built = build(more, place / "out")
    assert built.figures.recall[0].at[3]["value"] > 18 / 148 - 1e-9


def test_an_index_whose_shelf_was_deleted_is_made_again(place: Path) -> None:
    build(corpus(), place / "out")
    (place / "docs/Fenwick.md").unlink()
    for file in (place / "out").glob("corpus.sqlite*"):
        file.unlink()
    built = build(corpus(), place / "out")
    index = LexicalIndex.read(place / "out/index/lexical")
    assert len(index) == built.figures.passages.n


def test_no_question_left_for_one_side_is_said_before_anything_is_written(place: Path) -> None:
    # Both documents have a question of their own side; the first one's names the other, too.
    rows = [
        {
            "question": "What is sold?",
            "answers": ["barley"],
            "documents": ["Arlem.md", "Bexton.md"],
        },
        {"question": "Which is it?", "answers": ["salt"], "documents": ["Bexton.md"]},
    ]
    (place / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    values = {**corpus().model_dump(), "questions": {"files": ["questions.jsonl"]}}
    with pytest.raises(UsageError, match=r"No question is left for (training|evaluation)"):
        build(load_corpus(values), place / "out")
    assert not [*(place / "out").glob("*.json*")]


def test_a_file_of_retrieved_ids_that_changed_is_read_again(place: Path) -> None:
    build(corpus(), place / "out")
    changes = {"retrieval.retriever": "file", "retrieval.retrieved": "ids.jsonl"}
    for parts in ((1, 2), (1, 3)):
        ids = [f"docs/{name}.md#{parts[i % 2]}" for name in TOWNS for i in range(3)]
        lines = [
            json.dumps({"question": q, "passage_ids": [name]})
            for (q, _), name in zip(questions(), ids, strict=True)
        ]
        (place / "ids.jsonl").write_text("\n".join(lines), "utf-8")
        build(corpus(**changes), place / "out")
        every = [*examples(place / "out", "train"), *examples(place / "out", "eval")]
        shown = {p.passage_id for each in every for p in each.passages}
        assert shown
        assert shown <= {*ids}


def test_what_was_found_and_is_damaged_is_looked_for_again(place: Path) -> None:
    build(corpus(), place / "out")
    wanted = (place / "out/train.jsonl").read_bytes()
    (found,) = (place / "out/work").glob("found-*.jsonl")
    whole = found.read_text("utf-8")
    rows = whole.splitlines()
    hit = json.loads(rows[0])["hits"][0]
    for damaged in (
        "", "5\n", "{}\n", "\n" + whole, whole * 2, whole[:333], "[" * 100_000 + "\n",
        "\n".join(rows[::-1]) + "\n",
        *(json.dumps({"qid": json.loads(rows[0])["qid"], "hits": hits}) + "\n" for hits in (
            None, [5], [[hit[0]]], [[5, 1.0]], [[hit[0], "1"]])),
    ):  # fmt: skip
        found.write_text(damaged, "utf-8")
        build(corpus(), place / "out")
        assert (place / "out/train.jsonl").read_bytes() == wanted
        assert found.read_text("utf-8") == whole
    found.unlink()
    found.mkdir()
    build(corpus(), place / "out")
    assert found.read_text("utf-8") == whole


def test_what_build_wrote_is_no_document(place: Path) -> None:
    whole = corpus(**{"documents.files": "[.]", "documents.fields": "{text: frage}"})
    first = build(whole, place / "out")
    again = build(whole, place / "out")
    assert first.figures.documents == again.figures.documents
    assert not again.figures.documents.unread


@pytest.mark.parametrize(
    "name",
    ["corpus.sqlite", "corpus.sqlite-wal", "corpus.yaml", "train.jsonl", "build.json", "index", "work",
     "index/lexical", "index/lexical/segments/meta.json", "work/found-x.jsonl"],
)  # fmt: skip
def test_nothing_is_written_through_a_link_or_waited_for(place: Path, name: str) -> None:
    canary, path = place / "canary", place / "out" / name
    build(corpus(), place / "out")
    if path.exists():
        path.rename(canary)
    path.symlink_to(canary)
    before = {one: one.read_bytes() for one in (canary, *canary.rglob("*")) if one.is_file()}
    with pytest.raises(UsageError, match=r"is a link to .*canary: in a corpus directory none is"):
        build(corpus(), place / "out")
    assert {
        one: one.read_bytes() for one in (canary, *canary.rglob("*")) if one.is_file()
    } == before
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UsageError, match="is no plain file, but a pipe"):
        build(corpus(), place / "out")


def test_a_corpus_may_lie_behind_a_link(place: Path) -> None:
    (place / "disk").mkdir()
    (place / "out").symlink_to(place / "disk")
    build(corpus(), place / "out")
    assert (place / "disk/train.jsonl").is_file()


def test_without_its_shelf_an_index_is_made_again(place: Path) -> None:
    build(corpus(), place / "out")
    (place / "out/corpus.sqlite").unlink()
    (place / "docs/Fenwick.md").unlink()
    build(corpus(), place / "out")
    build(corpus(), place / "fresh")
    for name in ("train.jsonl", "eval.jsonl"):
        assert (place / "out" / name).read_bytes() == (place / "fresh" / name).read_bytes()


def test_a_corpus_that_a_person_wrote_is_not_written_over(place: Path) -> None:
    mine = "# mine\nname: towns\n" + yaml.safe_dump(
        {"documents": {"files": ["docs"]}, "questions": {"files": ["questions.csv"]}}
    )
    (place / "corpus.yaml").write_text(mine, "utf-8")
    with pytest.raises(UsageError, match="another folder with --folder"):
        build(corpus(), place)
    assert (place / "corpus.yaml").read_text("utf-8") == mine
    assert not (place / "corpus.sqlite").exists()


def test_one_bad_file_is_named_and_does_not_stop_the_others(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "docs/bad.pdf").write_bytes(b"%PDF-1.7 and nothing")
    built = build(corpus(), place / "out")
    assert "bad.pdf is left out" in capsys.readouterr().out.replace("\n", " ")
    assert built.figures.documents.unread == 1
    with pytest.raises(UsageError, match=r"1 files? can't be read"):
        build(corpus(), place / "out", strict=True)


def test_a_build_that_is_killed_goes_on(place: Path) -> None:
    reference = place / "whole"
    build(corpus(), reference)
    for wait in (0.05, 0.2, 0.4, 0.8):
        pid = os.fork()
        if not pid:
            try:
                build(corpus(), place / "out")
            finally:
                os._exit(0)
        time.sleep(wait)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    build(corpus(), place / "out")
    for name in ("train.jsonl", "eval.jsonl"):
        assert (place / "out" / name).read_bytes() == (reference / name).read_bytes()


def test_nothing_half_written_where_questions_can_t_be_read(place: Path) -> None:
    (place / "questions.csv").write_text("frage,antwort\n", "utf-8")
    with pytest.raises(UsageError):
        build(corpus(), place / "out")
    assert not (place / "out/train.jsonl").exists()
    assert not (place / "out/build.json").exists()


def test_no_text_at_all(place: Path) -> None:
    for file in (place / "docs").iterdir():
        file.write_text("", "utf-8")
    with pytest.raises(RagtuneError, match="no passage"):
        build(corpus(), place / "out")


def test_retrievers_are_compared_by_name(place: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no retriever 'lexica'\. Did you mean lexical"):
        build(corpus(), place / "out", compare=["lexica", "dense"])
    with pytest.raises(UsageError, match=r"dense needs retrieval\.model"):
        build(corpus(), place / "out", compare=["lexical", "dense"])
    with pytest.raises(UsageError, match="two retrievers or more"):
        build(corpus(), place / "out", compare=["lexical"])


def test_dense_hybrid_and_reranked_and_which_of_them_pays(place: Path) -> None:
    pytest.importorskip("sentence_transformers", reason="the extra dense is not installed")
    model, judge = save_encoder(place / "tiny"), save_bert(place / "judge", labels=1)
    named = {"retrieval.model": model, "retrieval.retriever": "hybrid"}
    built = build(corpus(**named), place / "out", compare=["lexical", "dense", "hybrid"])
    assert built.retriever == "hybrid"
    assert built.compared is not None
    assert [*built.compared.recall] == ["lexical", "dense", "hybrid"]
    assert [*built.compared.differences] == [
        "dense - lexical",
        "hybrid - lexical",
        "hybrid - dense",
    ]
    built = build(corpus(**named, **{"retrieval.reranker": judge}), place / "out")
    assert built.retriever == "hybrid, reranked"


def test_another_reranker_under_the_same_name_is_asked_anew(place: Path) -> None:
    pytest.importorskip("sentence_transformers", reason="the extra dense is not installed")
    shown = []
    for seed in (0, 1):
        judge = save_bert(place / "judge", labels=1, seed=seed)
        build(corpus(**{"retrieval.reranker": judge}), place / "out")
        shown.append((place / "out/train.jsonl").read_bytes())
    assert shown[0] != shown[1]


def test_a_single_document_that_is_named_and_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    shelf: Any = SimpleNamespace(named=lambda names: {})
    asked: Any = SimpleNamespace(question=SimpleNamespace(documents=("x.md",), qid="q"))
    building._name_gold(shelf, [asked], {})
    said = " ".join(capsys.readouterr().out.split())
    assert "Questions name documents or passages that aren't there, 1 in all (x.md):" in said
