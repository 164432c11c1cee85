"""Retrievers against each other, on the same questions: how often a right passage is among the first."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from ragtune.base.errors import UsageError
from ragtune.building.retrieval.retriever import Hit
from ragtune.scoring.statistics import DIFFERENCE, Figures, grouped, less

DEPTHS = (1, 3, 10)
"""Of the first passages: what is asked of a reader, and what a longer prompt could hold."""

_LESS = " - "


@dataclass(frozen=True)
class Comparison:
    """Recall of several retrievers, and how they differ question by question."""

    questions: int
    """Those that a passage answers, and that were counted."""
    unanswered: int
    """Those that no passage answers: no retriever could find one."""
    recall: dict[str, Figures]
    """By retriever: recall_at_1, recall_at_3, recall_at_10, with 95 % intervals."""
    differences: dict[str, Figures]
    """By pair, `dense - lexical`: the differences, paired, with 95 % intervals."""

    def to_dict(self) -> dict[str, object]:
        return {
            "questions": self.questions,
            "unanswered": self.unanswered,
            "retrieval": self.recall,
            "differences": self.differences,
        }


def hits_within(
    found: Sequence[Sequence[Hit]], positives: Sequence[AbstractSet[str]]
) -> dict[str, list[float]]:
    """For each question 1.0 if a positive is among the first, else 0.0; a column for each depth."""
    columns: dict[str, list[float]] = {f"recall_at_{depth}": [] for depth in DEPTHS}
    for hits, right in zip(found, positives, strict=True):
        ranks = (rank for rank, hit in enumerate(hits, 1) if hit.passage_id in right)
        first = next(ranks, None)
        for depth in DEPTHS:
            columns[f"recall_at_{depth}"].append(float(first is not None and first <= depth))
    return columns


def compare(
    found: Mapping[str, Sequence[Sequence[Hit]]], positives: Sequence[AbstractSet[str]], seed: int
) -> Comparison:
    """Compare what retrievers found for the same questions.

    Intervals are those of `scoring.statistics.figures`, with the same draws for all; a difference is that
    of the pairs. Each retriever is compared with every one before it.

    Args:
        found: by retriever, for each question at least ten passages, best first.
        positives: for each question the ids of the passages that are right: the gold ones, or those that
            hold an answer. Questions without any are left out, and counted.
        seed: of the draws.

    Raises:
        UsageError: no question has a positive.
    """
    counted = [i for i, right in enumerate(positives) if right]
    if not counted:
        raise UsageError(
            "There is nothing to compare retrievers by: no passage answers any of the questions.",
            "Check that the questions belong to these documents.",
        )
    right = [positives[i] for i in counted]
    columns = {
        name: hits_within([lists[i] for i in counted], right) for name, lists in found.items()
    }
    pairs = {
        f"{b}{_LESS}{a}": less(columns[b], columns[a])
        for a, b in itertools.combinations(columns, 2)
    }
    return Comparison(
        len(counted),
        len(positives) - len(counted),
        grouped(columns, seed, {}),
        grouped(pairs, seed, dict.fromkeys(pairs, DIFFERENCE)) if pairs else {},
    )


def verdicts(comparison: Comparison) -> list[str]:
    """For each pair in words, among which first passages one finds more than chance explains."""
    said = []
    for pair, figures in comparison.differences.items():
        second, _, first = pair.partition(_LESS)
        better = [m for m, f in figures.items() if f["low"] > 0]
        worse = [m for m, f in figures.items() if f["high"] < 0]
        for found, winner, loser in ((better, second, first), (worse, first, second)):
            if found:
                depths = ", ".join(metric.rpartition("_")[2] for metric in found)
                said.append(f"{winner} finds more than {loser} in the first {depths}.")
        if not better and not worse:
            said.append(f"{second} and {first}: no detectable difference.")
    return said
