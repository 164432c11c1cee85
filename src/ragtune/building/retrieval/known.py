"""Which passages a corpus has: what retrievers that are not ours must find, by id or by text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from ragtune.building.retrieval.retriever import Entry


class Known(Protocol):
    """The passages of a corpus, as far as somebody else may name them."""

    def has(self, passage_id: str) -> bool:
        """Whether there is a passage of this id."""
        ...

    def with_text(self, text: str) -> str | None:
        """The id of the passage with this text, however its white space was changed; None if there is none."""
        ...


@dataclass(frozen=True)
class KnownPassages:
    """Passages that were counted up once: their ids, and digests of their texts."""

    ids: set[str] = field(default_factory=set)
    by_text: dict[bytes, str] = field(default_factory=dict)

    @classmethod
    def of(cls, passages: Iterable[Entry]) -> KnownPassages:
        """Of two passages with the same text the first stands for both."""
        known = cls()
        for entry in passages:
            known.ids.add(entry.passage_id)
            known.by_text.setdefault(text_digest(entry.text), entry.passage_id)
        return known

    def has(self, passage_id: str) -> bool:
        return passage_id in self.ids

    def with_text(self, text: str) -> str | None:
        return self.by_text.get(text_digest(text))


def text_digest(text: str) -> bytes:
    """The same for texts that differ in their white space alone: splitters trim and join lines."""
    return hashlib.sha256(" ".join(text.split()).encode("utf-8", "surrogatepass")).digest()[:16]
