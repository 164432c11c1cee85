"""What a prompt's limit cuts away of positives, and answers that are longer than what may be written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ragtune.base.errors import UsageError
from ragtune.base.files import read_jsonl
from ragtune.data.encode import Encoder
from ragtune.data.example import Example, Passage
from ragtune.data.prepare import asked, load_examples
from ragtune.data.select import loses_positives, texts_shown
from ragtune.recipe.load import load_recipe
from ragtune.recipe.schema import Recipe
from ragtune.scoring.score import Answers, score_answers
from tests.conftest import write_records
from tests.data.prepared import FILES, prepare_both

REFUSAL = "no idea"
LONG = "A street has many houses and trees, and people walk along it every single day."


def low(i: int, prefix: str) -> dict[str, Any]:
    """The answer stands in the second passage, behind one that fills the prompt."""
    return {
        "qid": f"{prefix}{i}",
        "question": f"What colour is house {i}?",
        "answers": ["red"],
        "passages": [{"title": "s", "text": LONG}, {"title": "x", "text": f"House {i} is red."}],
    }


def high(i: int, prefix: str) -> dict[str, Any]:
    """The same with the answer at the head of the first passage."""
    record = low(i, prefix)
    return record | {
        "passages": [{"title": "s", "text": f"Red is red. {LONG}"}, record["passages"][1]]
    }


def stage(
    folder: Path, tokenizer: Any, max_tokens: int | None = 180, **sections: Any
) -> tuple[Recipe, dict[str, Any], Encoder]:
    """A recipe over one low and one high record a split, its data report, and the encoder."""
    written = {
        split: str(write_records(folder / f"{split}.jsonl", [low(0, split[0]), high(1, split[0])]))
        for split in ("train", "eval")
    }
    recipe = load_recipe(
        {
            "name": "x", "model": {"id": "some/model"}, "prompt": {"preset": "english", "max_tokens": max_tokens},
            "train": {"steps": 1}, "evaluate": sections.get("evaluate", {}),
            "data": {**written, "max_passages": 2, **sections.get("data", {})},
        }
    )  # fmt: skip
    encoder = Encoder(tokenizer, recipe, 1000)
    return recipe, prepare_both(recipe, encoder, folder / "data"), encoder


def rows(folder: Path, split: str) -> dict[str, dict[str, Any]]:
    return {row["qid"]: row for row in read_jsonl(folder / "data" / FILES[split])}


def test_they_are_left_out_and_counted(
    tmp_path: Path, chatml_tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, report, _ = stage(tmp_path, chatml_tokenizer)
    assert set(rows(tmp_path, "train")) == {"t1"}
    for split in ("train", "eval"):
        assert report[split]["dropped"] == {"positive_cut": 1}
        assert report[split]["positives_cut"] == {
            "examples": 1, "done": "left out", "qids": [f"{split[0]}0"],
        }  # fmt: skip
    told = " ".join(capsys.readouterr().out.split())
    assert "eval: 1 prompt lost every passage with an answer: left out (data.cut_positives)" in told
    questions = load_examples(tmp_path / "data" / "questions" / "eval.jsonl")
    assert [q.qid for q in asked(recipe, questions)] == ["e1"]
    scored = score_answers(recipe, questions, Answers({"e1": "red"}))
    assert scored.ceiling == [0.0, 1.0]
    recipe.evaluate.questions = "all"
    assert [q.qid for q in asked(recipe, questions)] == ["e0", "e1"]


def test_they_are_kept_where_the_recipe_says_so(tmp_path: Path, chatml_tokenizer: Any) -> None:
    _, report, _ = stage(tmp_path, chatml_tokenizer, data={"cut_positives": "keep"})
    assert rows(tmp_path, "train")["t0"]["answers"] == ["red"]
    assert rows(tmp_path, "eval")["e0"]["selected"] is True
    assert report["train"]["positives_cut"]["examples"] == 1
    assert report["train"]["dropped"] == {}


def test_they_are_refused_where_the_recipe_says_so(tmp_path: Path, chatml_tokenizer: Any) -> None:
    data = {"cut_positives": "refuse", "refusal": REFUSAL}
    _, report, encoder = stage(tmp_path, chatml_tokenizer, data=data)
    row = rows(tmp_path, "train")["t0"]
    assert (row["answers"], row["removed_answers"]) == ([], ["red"])
    assert report["train"]["unanswerable"] == 1
    trained = load_examples(tmp_path / "data" / "training" / "train.jsonl")[0]
    sample = encoder.sample(trained)
    assert sample is not None
    assert sample.completion_ids == encoder.completion(REFUSAL)
    assert "is red" not in chatml_tokenizer.decode(sample.prompt_ids)
    assert rows(tmp_path, "eval")["e0"]["reason"] == "positive_cut"


def test_refusing_them_needs_a_refusal(tmp_path: Path, chatml_tokenizer: Any) -> None:
    with pytest.raises(UsageError, match="cut_positives: refuse needs refusal"):
        stage(tmp_path, chatml_tokenizer, data={"cut_positives": "refuse"})


def test_those_that_are_refused_count_towards_the_share(
    tmp_path: Path, chatml_tokenizer: Any
) -> None:
    data = {"cut_positives": "refuse", "refusal": REFUSAL, "unanswerable": 0.5}
    data |= {"unanswerable_from": "real"}
    records = [low(0, "t"), high(1, "t"), high(2, "t") | {"answers": []}]
    path = str(write_records(tmp_path / "three.jsonl", records))
    _, report, _ = stage(tmp_path, chatml_tokenizer, data=data | {"train": path})
    assert (report["train"]["selected"], report["train"]["unanswerable"]) == (2, 1)


def test_where_all_are_cut_away_the_run_stops(tmp_path: Path, chatml_tokenizer: Any) -> None:
    path = str(write_records(tmp_path / "low.jsonl", [low(0, "t"), low(1, "t")]))
    with pytest.raises(UsageError, match=r"2 prompt.max_tokens .* cuts every passage") as raised:
        stage(tmp_path, chatml_tokenizer, data={"train": path})
    assert "Raise prompt.max_tokens" in raised.value.advice


def example(answers: tuple[str, ...], *texts: str, positive: tuple[int, ...] = (0,)) -> Example:
    return Example("q", "?", answers, tuple(map(Passage, texts)), positive, ())


@pytest.mark.parametrize(
    ("kept", "lost"),
    [
        ([(0, "gold one"), (1, "b")], False),
        ([(0, "gold")], False),  # what is left of it holds the answer
        ([(0, "gol")], True),
        ([(1, "b")], True),
    ],
)
def test_what_is_left_of_a_positive(kept: list[tuple[int, str]], lost: bool) -> None:
    assert loses_positives(example(("gold",), "gold one", "b"), kept) is lost


def test_a_named_positive_without_the_answer_must_be_whole() -> None:
    one = example(("gold",), "about it", "b")
    assert not loses_positives(one, [(0, "about it")])
    assert loses_positives(one, [(0, "about")])


def test_a_shuffled_prompt_keeps_what_it_shows(tmp_path: Path, chatml_tokenizer: Any) -> None:
    """Which passage comes first is drawn; the prompt says which of the two positives is lost."""
    records = [low(i, "t") for i in range(8)]
    path = str(write_records(tmp_path / "low.jsonl", records))
    data = {"train": path, "shuffle_passages": True}
    recipe, report, encoder = stage(tmp_path, chatml_tokenizer, data=data)
    kept = set(rows(tmp_path, "train"))
    assert 0 < len(kept) < 8
    for one in load_examples(Path(path)):
        prompt = encoder.prompt(one)
        assert prompt is not None
        assert ("is red" in chatml_tokenizer.decode(prompt.ids)) == (one.qid in kept)
    assert report["train"]["positives_cut"]["examples"] == 8 - len(kept)
    assert recipe.data.shuffle_passages


def test_an_alternative_that_is_cut_away_is_not_in_the_ceiling(
    tmp_path: Path, chatml_tokenizer: Any
) -> None:
    record = low(0, "e") | {"answers": ["scarlet"], "also": "red"}
    path = str(write_records(tmp_path / "also.jsonl", [record, high(1, "e")]))
    sections = {
        "data": {"eval": path, "alternatives": "also"},
        "evaluate": {"answers": "all+alternatives"},
    }
    for limit, reached in ((180, 0.0), (None, 1.0)):
        folder = tmp_path / str(limit)
        folder.mkdir()
        recipe, _, _ = stage(folder, chatml_tokenizer, limit, **sections)
        questions = load_examples(folder / "data" / "questions" / "eval.jsonl")
        assert score_answers(recipe, questions, Answers({"e1": "red"})).ceiling == [reached, 1.0]
    assert texts_shown(questions[0], 1) == [LONG]


# Answers.


def test_answers_longer_than_may_be_written_are_counted(
    tmp_path: Path, chatml_tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    long = high(0, "t") | {"answers": ["people walk along it"]}
    both = high(0, "e") | {"answers": ["people walk along it", "red"]}
    data = {
        "train": str(write_records(tmp_path / "l.jsonl", [long, high(1, "t")])),
        "eval": str(write_records(tmp_path / "b.jsonl", [both, long | {"qid": "e1"}])),
    }
    recipe, report, encoder = stage(
        tmp_path, chatml_tokenizer, None, data=data, evaluate={"max_new_tokens": 4}
    )
    (tokens,) = encoder.answer_lengths(["people walk along it"])
    assert tokens == len(encoder.completion("people walk along it")) - 1
    assert tokens > 4
    for split, qid in (("train", "t0"), ("eval", "e1")):
        assert report[split]["too_long"] == {
            "max_new_tokens": 4, "of": 2, "count": 1, "longest": tokens, "qids": [qid],
        }  # fmt: skip
    told = " ".join(capsys.readouterr().out.split())
    assert (
        f"train: 1 of 2 trained answers has more than 4 tokens (the longest has {tokens})" in told
    )
    assert "they can't be given whole. Raise evaluate.max_new_tokens." in told
    # The first alone is accepted: then that one has to fit.
    (tmp_path / "first").mkdir()
    _, report, _ = stage(
        tmp_path / "first", chatml_tokenizer, None, data=data, evaluate={"max_new_tokens": 4, "answers": "first"}
    )  # fmt: skip
    assert report["eval"]["too_long"]["count"] == 2
    # An answer of exactly so many tokens can be given.
    (tmp_path / "fits").mkdir()
    _, report, _ = stage(
        tmp_path / "fits", chatml_tokenizer, None, data=data, evaluate={"max_new_tokens": tokens}
    )
    assert report["train"]["too_long"]["count"] == 0
    assert recipe.evaluate.max_new_tokens == 4


def test_a_refusal_that_is_too_long_is_told(
    tmp_path: Path, chatml_tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"refusal": "there is no answer to that question"}
    stage(tmp_path, chatml_tokenizer, None, data=data, evaluate={"max_new_tokens": 4})
    assert "it can't be given whole. Raise evaluate.max_new_tokens." in " ".join(
        capsys.readouterr().out.split()
    )


def test_of_very_many_passages_few_tries_find_how_many_fit(
    tmp_path: Path, chatml_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    *_, encoder = stage(tmp_path, chatml_tokenizer, 400, data={"max_passages": 5000})
    example = Example("q", "?", ("a",), tuple(Passage(f"b c {i}") for i in range(3000)), (0,), ())
    tries: list[int] = []
    ids = Encoder._ids

    def counted(self: Encoder, asked: Any) -> Any:
        tries.extend(len(passages) for _, passages in asked)
        return ids(self, asked)

    monkeypatch.setattr(Encoder, "_ids", counted)
    prompt = encoder.prompt(example)
    assert prompt is not None
    assert len(tries) <= 14
    monkeypatch.undo()
    shown = prompt.passages_shown
    assert len(prompt.ids) <= 400 < len(ids(encoder, [("?", example.passages[: shown + 1])])[0])
    assert ids(encoder, [("?", example.passages[:shown])])[0] == prompt.ids
    tries.clear()
    monkeypatch.setattr(Encoder, "_ids", counted)
    assert encoder.prompt(Example("q", "long " * 1000, ("a",), example.passages, (0,), ())) is None
    assert len(tries) <= 15
