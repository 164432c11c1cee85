"""Training examples that are to be refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from ragtune.base.errors import UsageError
from ragtune.base.files import read_jsonl
from ragtune.data.encode import Encoder
from ragtune.data.example import Example, Passage
from ragtune.data.prepare import asked, load_examples
from ragtune.data.unanswerable import draw, refusing, wanted, without_oracle
from ragtune.recipe.data import Data
from ragtune.recipe.load import load_recipe
from tests.conftest import make_records, write_records
from tests.data.prepared import prepare_both

REFUSAL = "I don't know."


def example(texts: list[str], positive: tuple[int, ...]) -> Example:
    return Example("q", "?", ("gold",), tuple(map(Passage, texts)), positive, ())


def test_every_positive_goes_and_what_holds_the_answer_all_the_same() -> None:
    one = example(["a", "gold one", "b", "also gold", "c"], (1,))
    left = without_oracle(one, Data(source="aio", max_passages=2))
    assert left is not None
    assert [p.text for p in left.passages] == ["a", "b"]
    assert left.positive_passage_indices == ()
    assert left.answers == ("gold",)
    hidden = refusing(left)
    assert hidden.answers == ()
    assert hidden.extra["removed_answers"] == ["gold"]
    assert without_oracle(example(["gold"], (0,)), Data(source="aio", max_passages=2)) is None


def test_what_holds_an_alternative_goes_too() -> None:
    one = dataclasses.replace(example(["a", "Au, say", "b"], ()), extra={"also": "Au, aurum"})
    hidden = without_oracle(one, Data(source="aio", max_passages=2, alternatives="also"))
    assert hidden is not None
    assert [p.text for p in hidden.passages] == ["a", "b"]


def test_the_draw_is_uniform_and_of_the_seed() -> None:
    drawn = [draw("removed", 1, f"q{i}") for i in range(2000)]
    assert 0.27 < sum(d < 0.3 for d in drawn) / 2000 < 0.33
    assert draw("removed", 1, "q") == draw("removed", 1, "q") != draw("removed", 2, "q")


def test_the_share_is_of_all() -> None:
    assert wanted(70, 0.3) == 30
    assert wanted(10, 0.0) == 0


def prepared(
    tmp_path: Path, tokenizer: Any, records: list[dict[str, Any]], **data: Any
) -> tuple[Any, dict[str, Any], Any]:
    path = str(write_records(tmp_path / "records.jsonl", records))
    recipe = load_recipe(
        {
            "name": "x",
            "model": {"id": "some/model"},
            "data": {"train": path, "eval": path, "max_passages": 2, **data},
            "prompt": {"preset": "english"},
            "train": {"steps": 1},
        }
    )
    encoder = Encoder(tokenizer, recipe, 2000)
    return recipe, prepare_both(recipe, encoder, tmp_path / "out"), encoder


def mixed(answerable: int, unanswerable: int) -> list[dict[str, Any]]:
    records = make_records(answerable + unanswerable)
    for record in records[answerable:]:
        record |= {"answers": [], "positive_passage_indices": []}
    return records


def test_real_ones_fill_the_share(tmp_path: Path, chatml_tokenizer: Any) -> None:
    options = {"refusal": REFUSAL, "unanswerable": 0.25, "unanswerable_from": "real"}
    _, report, encoder = prepared(tmp_path, chatml_tokenizer, mixed(30, 40), **options)
    assert report["train"]["selected"] == 40
    assert report["train"]["unanswerable"] == 10
    assert report["train"]["dropped"] == {"no_answer": 30}
    trained = load_examples(tmp_path / "out" / "training" / "train.jsonl")
    refusals = [e for e in trained if not e.answers]
    assert len(refusals) == 10
    for one in encoder.samples(refusals):
        text = encoder.tokenizer.decode(one.completion_ids, skip_special_tokens=True)
        assert text == REFUSAL


def test_positives_are_removed_from_about_the_share(tmp_path: Path, chatml_tokenizer: Any) -> None:
    options = {"refusal": REFUSAL, "unanswerable": 0.4}
    _, report, _ = prepared(tmp_path, chatml_tokenizer, make_records(60), **options)
    assert report["train"]["selected"] == 60
    assert report["train"]["unanswerable"] == 24
    for row in read_jsonl(tmp_path / "out" / "training" / "train.jsonl"):
        if not row["answers"]:
            assert row["removed_answers"]
            assert not any(a in p["text"] for a in row["removed_answers"] for p in row["passages"])
    # The evaluation set keeps its answers.
    assert all(r["answers"] for r in read_jsonl(tmp_path / "out" / "questions" / "eval.jsonl"))


@pytest.mark.parametrize(
    ("more", "refused"),
    [
        ({}, 0),
        ({"refusal": REFUSAL, "unanswerable": 0.2}, 12),
        ({"refusal": REFUSAL, "unanswerable": 0.2, "unanswerable_from": "real"}, 15),
    ],
)
def test_a_share_loses_its_oracle_and_keeps_its_answer(
    tmp_path: Path,
    chatml_tokenizer: Any,
    more: dict[str, Any],
    refused: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """RAFT's other meaning, beside that of `unanswerable`: what is trained is the answer all the same."""
    records = mixed(60, 20) if "unanswerable_from" in more else make_records(60)
    options = {"without_oracle": 0.25, **more}
    _, report, encoder = prepared(tmp_path, chatml_tokenizer, records, **options)
    assert report["train"]["unanswerable"] == refused
    trained = load_examples(tmp_path / "out" / "training" / "train.jsonl")
    blind = [e for e in trained if e.answers and not e.positive_passage_indices]
    assert len(blind) == 15
    for example, sample in zip(blind, encoder.samples(blind), strict=True):
        assert not any(a in p.text for a in example.answers for p in example.passages)
        text = encoder.tokenizer.decode(sample.completion_ids, skip_special_tokens=True)
        assert text == example.answers[0]
    # The evaluation keeps all its passages.
    questions = load_examples(tmp_path / "out" / "questions" / "eval.jsonl")
    assert all(e.positive_passage_indices for e in questions if e.answers)
    said = " ".join(capsys.readouterr().out.split())
    assert "15 of 60 answerable examples keep their answer" in said


def test_too_few_real_ones_are_said(
    tmp_path: Path, chatml_tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"refusal": REFUSAL, "unanswerable": 0.5, "unanswerable_from": "real"}
    _, report, _ = prepared(tmp_path, chatml_tokenizer, mixed(20, 5), **options)
    assert report["train"]["unanswerable"] == 5
    out = " ".join(capsys.readouterr().out.split())
    assert "asks for 50.0%, and 20.0% were found" in out


def test_with_a_refusal_questions_without_an_answer_are_asked(
    tmp_path: Path, chatml_tokenizer: Any
) -> None:
    recipe, _, _ = prepared(tmp_path, chatml_tokenizer, mixed(4, 3), refusal=REFUSAL)
    questions = load_examples(tmp_path / "out" / "questions" / "eval.jsonl")
    assert len(asked(recipe, questions)) == 7
    plain = recipe.model_copy(update={"data": recipe.data.model_copy(update={"refusal": None})})
    assert len(asked(plain, questions)) == 4


def test_a_share_needs_a_refusal() -> None:
    with pytest.raises(UsageError, match="unanswerable needs refusal"):
        load_recipe(
            {
                "name": "x",
                "model": {"id": "some/model"},
                "data": {"train": "a", "eval": "b", "unanswerable": 0.1},
                "prompt": {"preset": "english"},
                "train": {"steps": 1},
            }
        )
