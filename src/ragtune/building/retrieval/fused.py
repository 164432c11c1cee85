"""Several retrievers as one: reciprocal rank fusion."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ragtune.building.retrieval.retriever import Hit, Retriever

K = 60
"""Cormack, Clarke and Büttcher, Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning
Methods (SIGIR 2009): the constant that they found by a pilot, and others since left as it is."""
_DEPTH = 100
"""How far each retriever is followed, at least: what two of them know a little may beat what one knows well."""


@dataclass(frozen=True)
class Fused:
    """What several retrievers find, each with the same weight: a passage's score is Σ 1 / (60 + rank)."""

    retrievers: Sequence[Retriever]

    def search(self, questions: Sequence[str], k: int) -> list[list[Hit]]:
        """At most k passages for each question, best first; equal scores in the order of their ids."""
        depth = max(k, _DEPTH)
        every = [retriever.search(questions, depth) for retriever in self.retrievers]
        return [fuse(lists)[:k] for lists in zip(*every, strict=True)]


def fuse(lists: Sequence[Sequence[Hit]]) -> list[Hit]:
    """The passages of several lists by their reciprocal ranks."""
    scores: defaultdict[str, float] = defaultdict(float)
    for hits in lists:
        for rank, hit in enumerate(hits, 1):
            scores[hit.passage_id] += 1 / (K + rank)
    # In another order of the lists a sum may differ in its last digit: it is no difference.
    found = [Hit(one, round(score, 12)) for one, score in scores.items()]
    return sorted(found, key=lambda hit: (-hit.score, hit.passage_id))
