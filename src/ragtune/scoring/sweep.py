"""results.json of a sweep: its points by what they reached, and the verdict."""

from __future__ import annotations

from typing import TypedDict

from ragtune.scoring.seeds import Spread

CRAG = "crag"
"""The figure that readers which may refuse are ranked by: CRAG's score, over all questions that were asked."""


class PointRow(TypedDict):
    """A point of the table."""

    name: str
    changes: list[str]
    share: float
    """Of its steps: that at which it was stopped early, or 1."""
    spread: Spread | None
    """What points are ranked by, over the held questions, at that share; None where every run failed."""
    answerable: Spread | None
    """Where that is CRAG's score, the headline metric, over the held questions that can be answered."""
    missing: list[int]
    """Seeds without a figure there, as when a run failed: such a point comes after those that have all."""
    behind: Spread | None
    """The best point less this one, seed by seed; None of the best, and of one that was stopped early."""
    apart: bool
    """Whether that shows that the best is better."""
    problems: list[str]


class Sides(TypedDict):
    """A figure of the evaluation set, before and after tuning."""

    before: Spread | None
    after: Spread | None
    difference: Spread | None


class Dev(Sides):
    """The one look at the evaluation set, by what points are ranked by."""

    point: str
    answerable: Sides | None
    """Where that is CRAG's score, the headline metric, over the questions that can be answered."""


class Results(TypedDict):
    """What a sweep found."""

    name: str
    by: str
    """What points are ranked by: the headline metric or, with `data.refusal`, CRAG's score."""
    metric: str
    """The headline metric."""
    answers: str
    seeds: list[int]
    data: dict[str, int]
    """How many training examples are trained (`train`), held apart (`held`) and left out (`left_out`)."""
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
