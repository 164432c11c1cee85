"""What a build counts, and what is written of it and read again."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragtune.base.errors import UsageError
from ragtune.building.counters import FirstOnes, LengthCount, RecallCount
from ragtune.building.figures import (
    NAME,
    SHOWN,
    Lengths,
    Nearest,
    Unfound,
    built_beside,
    corpora,
    read_built,
    where,
    write_built,
)
from ragtune.data.example import Passage, Place
from ragtune.scoring.statistics import figures, rate_of
from tests.reporting.made import a_build, a_comparison


def test_recall_is_counted_by_the_first_right_passage() -> None:
    count = RecallCount("answer", "real", 10)
    for first in (0, 2, 2, 9, None):
        count.add(i == first or i > 8 for i in range(10) if first is not None)
    found = count.recall()
    assert found
    assert (found.of, found.asked, found.n) == ("answer", "real", 5)
    assert {k: f["value"] for k, f in found.at.items()} == {1: 0.2, 3: 0.6, 10: 0.8}
    assert all(f["low"] <= f["value"] <= f["high"] for f in found.at.values())


def test_of_ranks_beyond_what_was_retrieved_nothing_is_said() -> None:
    for depth, ranks in ((1, [1]), (2, [1]), (5, [1, 3]), (100, [1, 3, 10])):
        count = RecallCount("gold", "synthetic", depth)
        assert count.recall() is None
        count.add([])
        assert list(count.recall().at) == ranks  # type: ignore[union-attr]


def test_the_interval_of_a_rate_is_that_of_its_bootstrap() -> None:
    for found, n in ((1, 2), (90, 100), (851, 1000), (0, 7), (7, 7)):
        drawn = figures({"x": [1.0] * found + [0.0] * (n - found)}, seed=1)["x"]
        for key, value in rate_of(found, n).items():
            assert value == pytest.approx(drawn[key], abs=1.5 / n), (found, n, key)  # type: ignore[literal-required]


@given(st.lists(st.integers(0, 500), min_size=1, max_size=200))
def test_lengths_are_those_of_the_whole_list(lengths: list[int]) -> None:
    count = LengthCount()
    for length in lengths:
        count.add(length)
    found = count.lengths()
    assert found
    assert (found.min, found.max, found.total) == (min(lengths), max(lengths), sum(lengths))
    assert found.median == pytest.approx(np.median(lengths))
    assert found.p95 == pytest.approx(np.quantile(lengths, 0.95))


def test_without_passages_there_are_no_lengths() -> None:
    assert LengthCount().lengths() is None
    one = LengthCount()
    one.add(7)
    assert one.lengths() == Lengths(7, 7, 7, 7, 7)


def test_the_first_questions_by_qid_are_kept_whatever_their_order() -> None:
    ones = [Unfound(f"q{i:04}", "?", ("x",), None) for i in range(300)]
    random.Random(1).shuffle(ones)
    first = FirstOnes()
    for one in ones:
        first.add(one)
    assert first.count == 300
    assert [one.qid for one in first.first] == [f"q{i:04}" for i in range(SHOWN)]


def test_whether_an_answer_stands_elsewhere_in_the_corpus() -> None:
    first = FirstOnes()
    for qid, answers in (("a", ("pump", "well")), ("b", ("eye",)), ("c", ("nothing",))):
        first.add(Unfound(qid, "?", answers, None))
    assert [one.elsewhere for one in first.first] == [None, None, None]
    for text in ("The eyes see.", "Dig a well.", "Nobody is here."):
        first.look_into(text)
    assert [one.elsewhere for one in first.first] == [True, False, False]
    assert first.count == 3


def test_where_a_passage_stands_in_words() -> None:
    place = Place("manual.pdf", 0, 4, page=12)
    assert where(Passage("text", "T", "manual.pdf#3", place)) == "manual.pdf, p. 12"
    assert where(Passage("text", "T", "manual.pdf#3")) == "manual.pdf#3"
    assert where(Passage("text")) == ""
    nearest = Nearest.of(Passage("x" * 1000, "T", 7, place))
    assert len(nearest.text) == 160
    assert nearest.place == "manual.pdf, p. 12"


def test_what_is_written_is_read(tmp_path: Path) -> None:
    for built in (
        a_build(),
        a_build("\u2028<b>\x1b[2J"),
        a_build(license=None, attribution=None),
        a_build(compared=a_comparison()),
    ):
        write_built(tmp_path, built)
        assert read_built(tmp_path / NAME) == built


def test_both_splits_of_a_corpus_are_one_corpus() -> None:
    one, other = a_build(), a_build(seal={"train.jsonl": "0" * 64})
    assert corpora({"train": one, "eval": one}) == [one]
    assert corpora({"train": one, "eval": other}) == [one, other]
    assert corpora({}) == []


def test_a_seal_names_the_very_file(tmp_path: Path) -> None:
    write_built(tmp_path, a_build())
    assert built_beside(tmp_path / "train.jsonl", "ab" * 32) == a_build()
    assert built_beside(tmp_path / "other.jsonl", "ab" * 32) is None
    with pytest.raises(
        UsageError, match=r"is not of this train\.jsonl, which was changed after"
    ) as caught:
        built_beside(tmp_path / "train.jsonl", "00" * 32)
    assert "Build them again" in caught.value.advice


def test_another_programs_build_json_is_none_of_ours(tmp_path: Path) -> None:
    path = tmp_path / NAME
    assert read_built(path) is None
    for text in ("{}", "[]", '{"name": "x", "version": "1.0"}', '{"format": 1, "seal": {}}'):
        path.write_text(text)
        assert read_built(path) is None, text


def damaged() -> dict[str, Any]:
    """Values of a build.json, each with what is wrong with it."""
    return {
        "seal": 3, "figures": [], "name": None, "license": {}, "format": "x",
    }  # fmt: skip


@pytest.mark.parametrize("key", damaged())
def test_a_damaged_one_is_named(tmp_path: Path, key: str) -> None:
    path = tmp_path / NAME
    write_built(tmp_path, a_build())
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: damaged()[key]}))
    with pytest.raises(UsageError, match=rf"build.json is damaged: {key}"):
        read_built(path)


def test_one_that_is_no_json_or_of_a_newer_ragtune(tmp_path: Path) -> None:
    path = tmp_path / NAME
    for content in (b"{", b"\xff", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"build.json can't be read: "):
            read_built(path)
    path.write_text('{"format": 2, "seal": {}, "figures": {}}')
    with pytest.raises(UsageError, match="made by a newer ragtune"):
        read_built(path)


def test_a_number_that_nobody_counted_is_refused(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_text(f'{{"format": 1, "seal": {{}}, "figures": {10**400}}}', "utf-8")
    with pytest.raises(UsageError, match=r"can't be read: a number of 401 digits"):
        read_built(path)
