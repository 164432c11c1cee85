"""Batches that are shared out while the first one is answered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ragtune.answering.shared import Answered, Batch, Shared
from ragtune.distributed.pulse import LostError, lost
from ragtune.model.fast.cache import Room

BATCHES: list[Batch] = [[("a", [1, 70_000])], [("b", [2])], [("c", [3])]]


class Alone:
    """A world whose other ranks take nothing."""

    def __init__(self, broken: str = "never") -> None:
        self.broken = broken
        self.left: dict[str, Any] = {}
        self.given = -1

    def put(self, key: str, value: Any) -> None:
        if self.broken in key:
            raise lost("rank 1", "its connection broke")
        self.left[key] = value

    def forget(self, key: str) -> None:
        del self.left[key]

    def next(self, _: str) -> int:
        self.given += 1
        return self.given

    def has(self, _: str) -> bool:
        return False

    def rest(self) -> None:
        """No model is spread."""


def answered(batch: Batch) -> Answered:
    yield batch, [(ids, 0.0) for _, ids in batch]


def lead(world: Any, batches: list[Batch] = BATCHES) -> Iterator[str]:
    return (
        qid
        for batch, _ in Shared(world, "q").lead(batches, Room(1, 8), answered)
        for qid, _ in batch
    )


def test_the_first_is_not_shared_and_nothing_stays_behind() -> None:
    world = Alone()
    assert [*lead(world)] == ["a", "b", "c"]
    assert [*world.left] == ["shared/q/count"]
    assert [*lead(Alone(), BATCHES[:1])] == ["a"]


def test_what_fails_meanwhile_is_raised_and_what_was_answered_is_kept() -> None:
    found: list[str] = []
    with pytest.raises(LostError, match="its connection broke"):
        found.extend(lead(Alone("batch/2")))
    assert found == ["a"]
