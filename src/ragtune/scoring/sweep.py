"""results.json of a sweep: its points by what they reached, and the verdict."""

from __future__ import annotations

from typing import TypedDict

from ragtune.scoring.seeds import Spread


class PointRow(TypedDict):
    """A point of the table."""

    name: str
    changes: list[str]
    share: float
    """Of its steps: that at which it was stopped early, or 1."""
    spread: Spread | None
    """Over the held questions, at that share; None where every run failed."""
    missing: list[int]
    """Seeds without a figure there, as when a run failed: such a point comes after those that have all."""
    behind: Spread | None
    """The best point less this one, seed by seed; None of the best, and of one that was stopped early."""
    apart: bool
    """Whether that shows that the best is better."""
    problems: list[str]


class Dev(TypedDict):
    """The one look at the evaluation set."""

    point: str
    before: Spread | None
    after: Spread | None
    difference: Spread | None


class Results(TypedDict):
    """What a sweep found."""

    name: str
    metric: str
    answers: str
    seeds: list[int]
    data: dict[str, int]
    questions: int
    """Held questions that all points were asked: figures are over these."""
    points: list[PointRow]
    best: str | None
    """The point with the highest mean of those with all seeds, if any was trained to the end."""
    winner: str | None
    """The same, if it is better than the runner-up."""
    verdict: str
    looks: list[Dev]
    """At the evaluation set; none with --no-look, more than one only where a wider grid had another best
    point."""
