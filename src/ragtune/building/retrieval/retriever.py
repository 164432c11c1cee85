"""What finds passages: one small interface, whoever does it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that was found."""

    passage_id: str
    score: float
    """Higher is better; comparable only within one search."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A passage to be found."""

    passage_id: str
    title: str
    text: str


class Retriever(Protocol):
    """Finds passages by a question."""

    def search(self, questions: Sequence[str], k: int) -> list[list[Hit]]:
        """At most k passages for each question, best first; equal scores in the order of their ids."""
        ...


class Index(Retriever, Protocol):
    """A retriever of our own, whose passages lie in a folder and can change."""

    def index(self, passages: Iterable[Entry]) -> None:
        """Add passages; one whose id is there already is replaced.

        What was added is there after a crash, or isn't there at all.
        """
        ...

    def remove(self, passage_ids: Iterable[str]) -> None:
        """Remove passages; ids that aren't there are no error."""
        ...
