"""Recall at 1, 3 and 10 of several retrievers, with intervals and paired differences."""

from __future__ import annotations

import json

import pytest

from ragtune.base.errors import UsageError
from ragtune.building.retrieval.compare import compare, hits_within, verdicts
from ragtune.building.retrieval.retriever import Hit


def hits(ids: str) -> list[Hit]:
    return [Hit(one, -rank) for rank, one in enumerate(ids)]


def test_the_rank_of_the_first_right_passage_counts() -> None:
    columns = hits_within([hits("abcd"), hits("abcdefghijk"), hits("")], [{"c", "d"}, {"k"}, {"a"}])
    assert columns == {
        "recall_at_1": [0, 0, 0],
        "recall_at_3": [1, 0, 0],
        "recall_at_10": [1, 0, 0],
    }


def test_paired_differences_and_what_is_left_out() -> None:
    better, worse = [hits("ab")] * 40, [hits("ba")] * 40
    found = compare({"lexical": worse, "dense": better}, [*[{"a"}] * 30, *[set()] * 10], seed=1)
    assert (found.questions, found.unanswered) == (30, 10)
    assert found.recall["dense"]["recall_at_1"]["value"] == 1
    # All thirty: of others 1 - 0.025^(1/30) = 0.115703 could be otherwise, and then as far as -1.
    assert found.differences["dense - lexical"]["recall_at_1"] == pytest.approx(
        {"value": 1, "low": 0.768594, "high": 1}, abs=1e-6
    )
    assert found.recall["lexical"]["recall_at_1"]["high"] == pytest.approx(0.115703, abs=1e-6)
    assert found.differences["dense - lexical"]["recall_at_3"]["value"] == 0
    assert (
        json.loads(json.dumps(found.to_dict()))["retrieval"]["lexical"]["recall_at_1"]["value"] == 0
    )


def test_which_finds_more_is_said() -> None:
    mixed = [hits("ab"), hits("ba")] * 20
    found = compare(
        {"lexical": [hits("ba")] * 40, "dense": [hits("ab")] * 40, "mixed": mixed}, [{"a"}] * 40, 1
    )
    assert verdicts(found) == [
        "dense finds more than lexical in the first 1.",
        "mixed finds more than lexical in the first 1.",
        "dense finds more than mixed in the first 1.",
    ]


def test_no_detectable_difference_is_said() -> None:
    found = compare({"a": [hits("x")] * 9, "b": [hits("x")] * 9}, [{"x"}] * 8 + [set()], 1)
    assert verdicts(found) == ["b and a: no detectable difference."]
    alike = found.differences["b - a"]["recall_at_1"]  # of eight: 1 - 0.025^(1/8)
    assert (alike["low"], alike["high"]) == pytest.approx((-0.369417, 0.369417), abs=1e-6)
    few = compare({"a": [hits("yx")] * 3, "b": [hits("xy")] * 3}, [{"x"}] * 3, 1)
    assert verdicts(few) == ["b and a: no detectable difference."]


def test_nothing_to_compare_by() -> None:
    with pytest.raises(UsageError, match="no passage answers any of the questions"):
        compare({"a": [hits("x")]}, [set()], 1)
