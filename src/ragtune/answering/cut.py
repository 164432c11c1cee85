"""How questions are cut into batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ragtune.answering.shared import Batch
from ragtune.model.fast.cache import Room


@dataclass(frozen=True, slots=True)
class Cut:
    """How prompts are cut into batches."""

    most: int
    """prompts"""
    cache_tokens: int | None
    """tokens of prompts and answers"""
    new_tokens: int
    """of an answer"""
    ranks: int
    """that share them"""
    equal: bool
    """Whether the prompts of a batch must have one length."""

    def batches(self, order: Batch) -> list[Batch]:
        """Cut prompts, the longest first, into batches that fit; each is as long as its first prompt.

        Of several ranks each gets as many, with about as many tokens, which say how long a batch takes.
        """
        found = self._cut(order, 1)
        if self.ranks == 1 or self.equal:
            return found
        rounds = -(-len(found) // self.ranks)
        while len(found := self._cut(order, rounds * self.ranks)) > rounds * self.ranks:
            rounds += 1
        return found

    def _cut(self, order: Batch, parts: int) -> list[Batch]:
        """Batches that fit; so many of like size, if that is enough."""
        found: list[Batch] = []
        start, left = 0, sum(len(ids) for _, ids in order)
        while start < len(order):
            length = len(order[start][1])
            count = self.most
            if self.cache_tokens is not None:
                count = max(1, min(count, self.cache_tokens // (length + self.new_tokens)))
            share, tokens, end = left / max(1, parts - len(found)), 0, start
            for _, ids in order[start : start + count]:
                if end > start and (
                    tokens + len(ids) / 2 > share or (self.equal and len(ids) != length)
                ):
                    break
                tokens += len(ids)
                end += 1
            found.append(order[start:end])
            start, left = end, left - tokens
        return found

    def room(self, batches: Sequence[Batch]) -> Room:
        """What is enough for each of them."""
        slots = [len(batch) * (len(batch[0][1]) + self.new_tokens) for batch in batches]
        return Room(max(map(len, batches)), max(slots))
