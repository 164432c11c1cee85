"""Negatives that are drawn anew in each epoch."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ragtune.base.errors import UsageError
from ragtune.data.example import Example, Passage
from ragtune.data.prepare import load_examples
from ragtune.data.redraw import can_redraw, kept_for_training, redrawn, varied
from ragtune.data.unanswerable import refusing
from ragtune.recipe.data import Data
from ragtune.recipe.load import load_recipe
from ragtune.recipe.schema import Recipe
from tests.conftest import make_records, write_records
from tests.data.test_unanswerable import prepared

TEXTS = ("a", "gold here", "c", "gold too", "e", "f", "ＧＯＬＤ", "h", "i")
DATA = Data(source="aio", max_passages=3, redraw_negatives=8)


def example(**more: Any) -> Example:
    negatives = (0, 2, 4, 5, 6, 7, 8)
    one = Example("q", "?", ("gold",), tuple(map(Passage, TEXTS)), (1, 3), negatives)
    return dataclasses.replace(one, **more)


def recipe(**train: Any) -> Recipe:
    return Recipe.model_validate({
        "name": "x", "model": {"id": "some/model"}, "prompt": {"preset": "english"},
        "data": DATA.model_dump(), "train": {"steps": 1, **train},
    })  # fmt: skip


def test_what_holds_an_answer_in_another_form_is_no_negative() -> None:
    kept = kept_for_training(example(), DATA)
    assert [p.text for p in kept.passages] == [*TEXTS[:8]]
    assert kept.negative_passage_indices == (0, 2, 4, 5, 7)
    assert kept.positive_passage_indices == (1, 3)
    assert can_redraw(kept, 3)
    plain = kept_for_training(example(), Data(source="aio", max_passages=3))
    assert plain == example().first_passages(3)
    assert not can_redraw(plain, 3)


def test_the_positive_stays_and_hard_negatives_come_more_often() -> None:
    kept = kept_for_training(example(), DATA)
    seen: Counter[str] = Counter()
    for lot in map(str, range(2000)):
        shown = redrawn(kept, 3, lot)
        first, positive, last = (p.text for p in shown.passages)
        assert positive == "gold here"
        assert shown.positive_passage_indices == (1,)
        assert shown.negative_passage_indices == (0, 2)
        assert TEXTS.index(first) < TEXTS.index(last)  # the better one stands before the other
        seen.update((first, last))
    counts = [seen[text] for text in "acefh"]
    assert counts == sorted(counts, reverse=True)
    # Two of five, drawn by the weights 1, 1/2, 1/3, 1/4, 1/5 without replacement.
    assert counts[0] / 2000 == pytest.approx(0.747, abs=0.04)
    assert counts[4] / 2000 == pytest.approx(0.208, abs=0.04)
    assert redrawn(kept, 3, "1") == redrawn(kept, 3, "1")


def test_an_epoch_draws_others_and_is_the_same_each_time() -> None:
    kept, chosen = kept_for_training(example(), DATA), recipe()
    epochs = [varied(kept, chosen, epoch) for epoch in range(6)]
    assert len({one.passages for one in epochs}) > 2
    assert epochs == [varied(kept, chosen, epoch) for epoch in range(6)]
    both = varied(kept, recipe(reorder_passages=True), 2)
    assert {p.text for p in both.passages} == {p.text for p in epochs[2].passages}
    (place,) = both.positive_passage_indices
    assert both.passages[place].text == "gold here"


def test_what_is_refused_for_want_of_room_shows_no_other_passages() -> None:
    """Another passage, or order, might leave room for the answer that it is to be refused without."""
    kept = kept_for_training(refusing(example()), DATA)
    assert not can_redraw(kept, 3)
    assert varied(kept, recipe(reorder_passages=True), 1) == kept


def test_so_many_are_kept_and_counted(
    tmp_path: Path, chatml_tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    records = make_records(20)
    for record in records[:15]:
        record["passages"] += [{"title": "", "text": f"Spare {i}"} for i in range(5)]
        record["negative_passage_indices"] = [*range(1, 8)]
    options = {"redraw_negatives": 6, "max_passages": 3}
    _, report, encoder = prepared(tmp_path, chatml_tokenizer, records, **options)
    assert report["train"]["redrawn"] == 15
    assert report["eval"]["redrawn"] == 0
    trained = load_examples(tmp_path / "out" / "training" / "train.jsonl")
    assert {len(e.passages) for e in trained} == {3, 6}
    assert "Spare" not in encoder.tokenizer.decode(encoder.samples(trained)[0].prompt_ids)
    said = " ".join(capsys.readouterr().out.split())
    assert "each epoch draws the negatives of 15 of 20 examples anew" in said


def test_that_there_are_none_is_a_warning(
    tmp_path: Path, chatml_tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared(tmp_path, chatml_tokenizer, make_records(6), redraw_negatives=9, max_passages=3)
    assert "! train: each epoch draws the negatives of 0 of 6" in " ".join(
        capsys.readouterr().out.split()
    )


@pytest.mark.parametrize("count", [2, 3])
def test_it_needs_more_than_are_shown(tmp_path: Path, count: int) -> None:
    write_records(tmp_path / "train.jsonl", make_records(2))
    with pytest.raises(UsageError, match="needs more passages than max_passages shows"):
        load_recipe(recipe().model_dump(mode="json"), [f"data.redraw_negatives={count}"])
