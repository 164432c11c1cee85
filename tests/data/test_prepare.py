"""The data stage: what it writes and counts, and that it leaves nothing half done."""

from __future__ import annotations

import gzip
import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ragtune.base.disk import cache_dir
from ragtune.base.errors import UsageError
from ragtune.base.files import read_json, read_jsonl
from ragtune.data import aio, prepare
from ragtune.data.encode import Encoder
from ragtune.data.example import Example
from ragtune.data.prepare import asked, load_examples, source_of
from ragtune.data.read import read_examples
from ragtune.recipe.data import Data
from ragtune.recipe.load import load_recipe
from ragtune.recipe.schema import Recipe
from tests.conftest import make_records, write_records
from tests.data.prepared import FILES, prepare_both


@pytest.fixture
def records() -> list[dict[str, Any]]:
    """One of each kind: selected, without an answer, without a positive, with a late one, too long."""
    first, unanswered, alone, late, long, computed = make_records(6)
    unanswered |= {"answers": [], "positive_passage_indices": []}
    alone |= {"positive_passage_indices": [], "section": "a\u2028b"}
    late |= {"positive_passage_indices": [2]}
    long |= {"question": "long " * 500}
    del computed["positive_passage_indices"], computed["negative_passage_indices"]
    return [first, unanswered, alone, late, long, computed]


@pytest.fixture
def recipe(tmp_path: Path, records: list[dict[str, Any]]) -> Recipe:
    return load_recipe(
        {
            "name": "x",
            "model": {"id": "some/model"},
            "data": {
                "train": str(write_records(tmp_path / "train.jsonl", records)),
                "eval": str(write_records(tmp_path / "eval.jsonl", records)),
                "max_passages": 2,
            },
            "prompt": {"preset": "english"},
            "train": {"steps": 1},
        }
    )


@pytest.fixture
def encoder(recipe: Recipe, chatml_tokenizer: Any) -> Encoder:
    return Encoder(chatml_tokenizer, recipe, 1000)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def rows(path: Path) -> list[dict[str, Any]]:
    return list(read_jsonl(path))


def test_train_holds_the_selected_with_their_first_passages(
    recipe: Recipe, encoder: Encoder, tmp_path: Path, records: list[dict[str, Any]]
) -> None:
    prepare_both(recipe, encoder, tmp_path / "data")
    assert names(tmp_path / "data") == ["questions", "training"]
    assert names(tmp_path / "data" / "training") == ["report.json", "train.jsonl"]
    assert names(tmp_path / "data" / "questions") == ["eval.jsonl", "report.json"]
    train = rows(tmp_path / "data" / "training" / "train.jsonl")
    assert [r["qid"] for r in train] == ["q0", "q5"]
    assert train[0] == {
        **records[0],
        "passages": records[0]["passages"][:2],
        "negative_passage_indices": [1],
    }
    assert train[1]["positive_passage_indices"] == [0]


def test_eval_holds_every_question_and_why_it_is_not_selected(
    recipe: Recipe, encoder: Encoder, tmp_path: Path, records: list[dict[str, Any]]
) -> None:
    prepare_both(recipe, encoder, tmp_path / "data")
    found = rows(tmp_path / "data" / "questions" / "eval.jsonl")
    assert [(r["qid"], r["selected"], r.get("reason")) for r in found] == [
        ("q0", True, None),
        ("q1", False, "no_answer"),
        ("q2", False, "no_positive"),
        ("q3", False, "positive_too_low"),
        ("q4", False, "question_too_long"),
        ("q5", True, None),
    ]
    assert all(len(r["passages"]) == 3 for r in found)
    assert found[2] == {**records[2], "selected": False, "reason": "no_positive"}


def test_the_report_counts_what_was_dropped_and_why(
    recipe: Recipe, encoder: Encoder, tmp_path: Path
) -> None:
    report = prepare_both(recipe, encoder, tmp_path / "data")
    training = read_json(tmp_path / "data" / "training" / "report.json")
    questions = read_json(tmp_path / "data" / "questions" / "report.json")
    assert {*training, *questions} == {"format", *report}
    assert (training["train"], questions["eval"]) == (report["train"], report["eval"])
    assert report["stop_token"] == "<|im_end|>"
    assert (report["max_passages"], report["max_prompt_tokens"]) == (2, 968)
    for split in ("train", "eval"):
        counts = report[split]
        assert counts["source"] == str(tmp_path / f"{split}.jsonl")
        assert (counts["read"], counts["selected"], counts["positives_computed"]) == (6, 2, 1)
        assert counts["dropped"] == {
            "no_answer": 1, "no_positive": 1, "positive_too_low": 1, "question_too_long": 1,
        }  # fmt: skip
        assert counts["read"] == counts["selected"] + sum(counts["dropped"].values())
        assert counts["truncated"] == {
            "examples": 0, "passages_dropped": 0, "characters_cut": 0, "qids": [],
        }  # fmt: skip


def test_the_report_s_lengths_are_those_of_the_samples(
    recipe: Recipe, encoder: Encoder, tmp_path: Path
) -> None:
    report = prepare_both(recipe, encoder, tmp_path / "data")["train"]
    samples = [
        encoder.sample(e) for e in load_examples(tmp_path / "data" / "training" / "train.jsonl")
    ]
    prompts = [len(s.prompt_ids) for s in samples if s]
    completions = [len(s.completion_ids) for s in samples if s]
    for name, lengths in (("prompt_tokens", prompts), ("completion_tokens", completions)):
        assert report[name]["total"] == sum(lengths)
        assert (report[name]["min"], report[name]["max"]) == (min(lengths), max(lengths))


def test_what_was_cut_is_counted(
    recipe: Recipe, chatml_tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fits = Encoder(chatml_tokenizer, recipe, 1000)
    shortest = min(
        len(p.ids)
        for e in read_examples(str(recipe.data.train), "train")
        if not e.extra and (p := fits.prompt(e))
    )
    encoder = Encoder(chatml_tokenizer, recipe, shortest - 1 + recipe.evaluate.max_new_tokens)
    cut = prepare_both(recipe, encoder, tmp_path / "data")["train"]["truncated"]
    assert cut == {
        "examples": 2, "passages_dropped": 2, "characters_cut": 0, "qids": ["q0", "q5"],
    }  # fmt: skip
    assert "2 prompts were too long and lost 2 passages and 0 characters" in capsys.readouterr().out


def test_the_counts_are_told(
    recipe: Recipe, encoder: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare_both(recipe, encoder, tmp_path / "data")
    told = capsys.readouterr().out
    assert (
        "train: 2 of 6 selected; dropped: 1 no accepted answer, 1 no passage contains an answer, "
        "1 no positive among the first max_passages, 1 the question alone leaves no room for a passage"
    ) in told
    assert "1 record had no positive_passage_indices: found by the answer's text" in told


def test_the_same_data_give_the_same_files(
    recipe: Recipe, encoder: Encoder, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        prepare_both(recipe, encoder, tmp_path / name)
    for name in (*FILES.values(), "training/report.json", "questions/report.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_prepared_data_can_be_prepared_again(
    recipe: Recipe, encoder: Encoder, tmp_path: Path
) -> None:
    prepare_both(recipe, encoder, tmp_path / "one")
    sources = [f"data.{split}={tmp_path}/one/{file}" for split, file in FILES.items()]
    prepare_both(load_recipe(recipe, sources), encoder, tmp_path / "two")
    for name in FILES.values():
        assert rows(tmp_path / "one" / name) == rows(tmp_path / "two" / name)
    more = load_recipe(recipe, [*sources, "data.max_passages=3"])
    prepare_both(more, encoder, tmp_path / "three")
    late = rows(tmp_path / "three" / "questions" / "eval.jsonl")[3]
    assert (late["qid"], late["selected"], late.get("reason")) == ("q3", True, None)


def test_loaded_examples_are_the_source_s(recipe: Recipe, encoder: Encoder, tmp_path: Path) -> None:
    prepare_both(recipe, encoder, tmp_path / "data")
    source = {e.qid: e for e in read_examples(str(recipe.data.eval), "validation")}
    for loaded in load_examples(tmp_path / "data" / "questions" / "eval.jsonl"):
        for name in ("question", "answers", "passages", "positive_passage_indices"):
            assert getattr(loaded, name) == getattr(source[loaded.qid], name)


def test_selected_questions_are_asked_or_all_that_fit(
    recipe: Recipe, encoder: Encoder, tmp_path: Path
) -> None:
    prepare_both(recipe, encoder, tmp_path / "data")
    examples = load_examples(tmp_path / "data" / "questions" / "eval.jsonl")
    assert [e.qid for e in asked(recipe, examples)] == ["q0", "q5"]
    everything = load_recipe(recipe, ["evaluate.questions=all"])
    assert [e.qid for e in asked(everything, examples)] == ["q0", "q1", "q2", "q3", "q5"]
    two = load_recipe(everything, ["evaluate.limit=2"])
    assert [e.qid for e in asked(two, examples)] == ["q0", "q1"]


def test_an_unselected_question_that_does_not_fit_is_never_asked(
    recipe: Recipe, encoder: Encoder, tmp_path: Path, records: list[dict[str, Any]]
) -> None:
    write_records(
        tmp_path / "eval.jsonl", [records[0], records[4] | {"positive_passage_indices": []}]
    )
    prepare_both(recipe, encoder, tmp_path / "data")
    examples = load_examples(tmp_path / "data" / "questions" / "eval.jsonl")
    everything = load_recipe(recipe, ["evaluate.questions=all"])
    assert all(encoder.prompt(e) for e in asked(everything, examples))


# The two folders apart.


def test_questions_are_prepared_beside_training_data_that_are_there(
    recipe: Recipe, encoder: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = prepare_both(recipe, encoder, tmp_path / "data")
    assert {a["name"] for a in report["audits"] if a["split"] == "both" and a["count"]} == {
        "same_question", "same_passage", "same_positive",
    }  # fmt: skip
    capsys.readouterr()
    other = tmp_path / "other"
    other.mkdir()
    training = tmp_path / "data" / "training"
    before = {path.name: path.read_bytes() for path in training.iterdir()}
    Path(str(recipe.data.train)).unlink()
    prepare.prepare_questions(
        recipe, encoder, 1000, other, prepare.known_training(encoder, training)
    )
    assert {path.name: path.read_bytes() for path in training.iterdir()} == before
    for name in ("eval.jsonl", "report.json"):
        first = tmp_path / "data" / "questions" / name
        assert (other / name).read_bytes() == first.read_bytes()
    assert prepare.load_report(training, other) == report
    told = capsys.readouterr().out
    assert "eval: 2 of 6" in told
    assert "train" not in told.replace("trained, too", "").replace("training shows", "")


def test_training_data_are_prepared_alone(recipe: Recipe, encoder: Encoder, tmp_path: Path) -> None:
    prepare_both(recipe, encoder, tmp_path / "data")
    Path(str(recipe.data.eval)).unlink()
    alone = tmp_path / "alone"
    alone.mkdir()
    prepare.prepare_training(recipe, encoder, 1000, alone)
    for name in ("train.jsonl", "report.json"):
        assert (alone / name).read_bytes() == (tmp_path / "data/training" / name).read_bytes()


# Reading ahead.


def test_many_records_keep_their_order(recipe: Recipe, encoder: Encoder, tmp_path: Path) -> None:
    many = make_records(3 * prepare.BATCH + 1)
    for split in ("train", "eval"):
        write_records(tmp_path / f"{split}.jsonl", many)
    report = prepare_both(recipe, encoder, tmp_path / "data")
    for split in ("train", "eval"):
        found = [r["qid"] for r in rows(tmp_path / "data" / FILES[split])]
        assert found == [r["qid"] for r in many]
        assert report[split]["read"] == len(many)


def test_no_more_than_a_batch_is_read_ahead(recipe: Recipe) -> None:
    produced = []

    def endless() -> Iterator[Example]:
        for example in itertools.cycle(read_examples(str(recipe.data.train), "train")):
            produced.append(example.qid)
            yield example

    before = threading.active_count()
    batches = prepare._ahead(endless(), 4)
    for number in range(1, 5):
        assert len(next(batches)) == 4
        assert len(produced) <= 4 * (number + 1)
    batches.close()
    assert len(produced) <= 20
    assert threading.active_count() <= before  # another's may have ended


def test_what_reading_raises_comes_after_the_batches_before_it(recipe: Recipe) -> None:
    def breaks() -> Iterator[Example]:
        yield from read_examples(str(recipe.data.train), "train")
        raise UsageError("a.jsonl:7: bad.")

    before = {*threading.enumerate()}  # some of other tests may end meanwhile
    batches = prepare._ahead(breaks(), 3)
    assert [len(next(batches)), len(next(batches))] == [3, 3]
    with pytest.raises(UsageError, match=r"a\.jsonl:7: bad"):
        next(batches)
    assert {*threading.enumerate()} <= before


def test_a_bad_line_far_on_is_named(recipe: Recipe, encoder: Encoder, tmp_path: Path) -> None:
    number = 2 * prepare.BATCH + 3
    many = make_records(number)
    many[-1]["passages"][2] = {"title": "no text"}
    write_records(tmp_path / "train.jsonl", many)
    message = rf"train\.jsonl:{number}: passages\[2\]\.text is missing"
    with pytest.raises(UsageError, match=message):
        prepare_both(recipe, encoder, tmp_path / "data")
    assert names(tmp_path) == ["eval.jsonl", "train.jsonl"]


# What goes wrong.


def test_nothing_selected_is_an_error_that_says_why(
    recipe: Recipe, encoder: Encoder, tmp_path: Path, records: list[dict[str, Any]]
) -> None:
    write_records(tmp_path / "eval.jsonl", [*records[1:3], records[3]])
    with pytest.raises(UsageError) as raised:
        prepare_both(recipe, encoder, tmp_path / "data")
    assert str(raised.value) == (
        f"Nothing of {tmp_path}/eval.jsonl is selected: 1 no accepted answer, 1 no passage contains "
        "an answer, 1 no positive among the first max_passages.\n"
        "Raise data.max_passages, or look at answers and positive_passage_indices."
    )
    assert "data" not in names(tmp_path)


def test_a_bad_line_leaves_nothing(recipe: Recipe, encoder: Encoder, tmp_path: Path) -> None:
    with (tmp_path / "eval.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(UsageError, match=r"eval\.jsonl:7: field question is missing"):
        prepare_both(recipe, encoder, tmp_path / "data")
    assert names(tmp_path) == ["eval.jsonl", "train.jsonl"]


def test_an_interruption_leaves_nothing_and_the_next_run_is_whole(
    recipe: Recipe, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        targets = encoder.targets

        def interrupted(examples: Any, prompts: Any) -> list[list[int]]:
            if any(e.qid == "q5" for e in examples):
                raise KeyboardInterrupt
            return targets(examples, prompts)

        patch.setattr(encoder, "targets", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare_both(recipe, encoder, tmp_path / "data")
    assert names(tmp_path) == ["eval.jsonl", "train.jsonl"]
    prepare_both(recipe, encoder, tmp_path / "data")
    assert len(rows(tmp_path / "data" / "training" / "train.jsonl")) == 2


# Where the data come from.


def test_a_local_copy_is_read_in_place_of_the_download() -> None:
    data = Data(source="aio", train="copy.jsonl.gz")
    assert source_of(data, "train") == "copy.jsonl.gz"


def test_the_aio_data_are_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fetch(split: str, tick: Any) -> Path:
        calls.append(split)
        return Path("somewhere.jsonl.gz")

    monkeypatch.setattr(aio, "fetch", fetch)
    assert source_of(Data(source="aio"), "eval") == "somewhere.jsonl.gz"
    assert calls == ["eval"]


def test_the_cached_aio_data_are_prepared(
    recipe: Recipe,
    encoder: Encoder,
    tmp_path: Path,
    record: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAGTUNE_CACHE", str(tmp_path / "cache"))
    lines = gzip.compress(json.dumps(record).encode())
    for split in ("train", "eval"):
        path = cache_dir() / "aio" / aio.FILES[split]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lines)
    data = {"source": "aio", "train": None, "eval": None}
    genuine = load_recipe(recipe.model_dump(mode="json") | {"data": data})
    large = Encoder(encoder.tokenizer, genuine, 10_000)
    report = prepare_both(genuine, large, tmp_path / "data")
    assert report["eval"]["selected"] == 1
    assert rows(tmp_path / "data" / "questions" / "eval.jsonl") == [{**record, "selected": True}]
