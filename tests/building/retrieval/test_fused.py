"""Reciprocal rank fusion, by the formula of the paper."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragtune.building.retrieval.fused import Fused, fuse
from ragtune.building.retrieval.retriever import Hit

ids = st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8)


class Fixed:
    def __init__(self, found: str) -> None:
        self.found = found
        self.asked: list[int] = []

    def search(self, questions: Sequence[str], k: int) -> list[list[Hit]]:
        self.asked.append(k)
        return [[Hit(one, -rank) for rank, one in enumerate(self.found)][:k] for _ in questions]


def test_the_formula() -> None:
    first, second = Fixed("abc"), Fixed("bd")
    found = Fused([first, second]).search(["q"], 3)[0]
    assert [hit.passage_id for hit in found] == ["b", "a", "d"]
    assert [hit.score for hit in found] == pytest.approx([1 / 62 + 1 / 61, 1 / 61, 1 / 62])
    assert first.asked == [100]


def test_equal_ranks_come_in_the_order_of_their_ids() -> None:
    assert [h.passage_id for h in Fused([Fixed("ba"), Fixed("ab")]).search(["q"], 5)[0]] == [
        "a",
        "b",
    ]


@given(st.lists(ids, min_size=1, max_size=4))
def test_the_order_of_retrievers_does_not_matter(lists: list[list[str]]) -> None:
    hits = [[Hit(one, 0.0) for one in found] for found in lists]
    fused = fuse(hits)
    assert fuse(hits[::-1]) == fused
    assert {hit.passage_id for hit in fused} == {one for found in lists for one in found}


@given(ids)
def test_one_retriever_keeps_its_order(found: list[str]) -> None:
    assert [hit.passage_id for hit in fuse([[Hit(one, 0.0) for one in found]])] == found
