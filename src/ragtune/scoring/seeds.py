"""Points of a search against each other, each trained with several seeds: which is better, if one is.

A figure is uncertain for two reasons: other questions could have been asked, and another seed trains
another model. Its interval has both: the bootstrap's over the questions, of which each counts with its mean
over the seeds, and Student's t over the seeds' own figures; the two halves are added as squares are.
It ends where a figure can go no further. Few seeds make it wide, and one says nothing of the other
reason: then no point is called better.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TypedDict

from ragtune.scoring.statistics import CONFIDENCE, RATE, Bounds, Figure, apart, figures

Values = Mapping[str, float]
"""What each question has of the figure that points are compared by, by qid."""
BySeed = Mapping[int, Values]


class Spread(TypedDict):
    """A mean over questions and seeds, its interval, and how much of that the seeds make."""

    figure: Figure
    n: int
    seeds: dict[str, float]
    """Each seed's own mean."""
    deviation: float | None
    """Of these, the standard deviation; None of a single seed."""


def spread_of(one: BySeed, draw: int, bounds: Bounds = RATE) -> Spread | None:
    """A point's figure over the questions that all of its seeds were asked; None without any.

    Args:
        one: its values.
        draw: seeds the bootstrap.
        bounds: of a question's value.
    """
    seeds = sorted(one)
    shared = set.intersection(*(set(one[seed]) for seed in seeds)) if seeds else set()
    qids = sorted(shared)
    if not qids:
        return None
    means = {seed: statistics.fmean(one[seed][q] for q in qids) for seed in seeds}
    every = [statistics.fmean(one[seed][q] for seed in seeds) for q in qids]
    found = figures({"": every}, draw, bounds)[""]
    several = len(seeds) > 1
    half = _student(len(seeds)) * statistics.stdev(means.values()) if several else 0.0
    value, (lowest, highest) = found["value"], bounds
    # Student's t knows of no bounds: two seeds of 40 and 50 % would reach from -18 to 108 %.
    return {
        "figure": {
            "value": value,
            "low": max(lowest, value - math.hypot(value - found["low"], half)),
            "high": min(highest, value + math.hypot(found["high"] - value, half)),
        },
        "n": len(qids),
        "seeds": {str(seed): mean for seed, mean in means.items()},
        "deviation": statistics.stdev(means.values()) if several else None,
    }


def less(one: BySeed, other: BySeed, draw: int, bounds: Bounds = RATE) -> Spread | None:
    """One point less another, seed by seed and question by question: what both were asked.

    Args:
        one: its values.
        other: those that are taken from them.
        draw: seeds the bootstrap.
        bounds: of a question's value in either.
    """
    pairs: dict[int, Values] = {
        seed: {q: one[seed][q] - other[seed][q] for q in one[seed].keys() & other[seed].keys()}
        for seed in one.keys() & other.keys()
    }
    return spread_of(pairs, draw, apart(bounds))


def is_better(difference: Spread | None) -> bool:
    """Whether a difference shows that the first is better: over several seeds, its interval above zero."""
    return (
        difference is not None
        and difference["deviation"] is not None
        and difference["figure"]["low"] > 0
    )


def on_shared(points: Mapping[str, BySeed]) -> dict[str, BySeed]:
    """The points that have answers, over the questions that all of them were asked with every seed."""
    asked = [set(values) for one in points.values() for values in one.values()]
    shared = set.intersection(*asked) if asked else set()
    return {
        name: {seed: {q: values[q] for q in values if q in shared} for seed, values in one.items()}
        for name, one in points.items()
        if one
    }


def ranked(points: Mapping[str, BySeed], seeds: Sequence[int]) -> list[str]:
    """The names of points with figures, the best first; of equals in the order that they are given.

    By their means over the questions that all of them were asked. One that misses a seed comes after those
    that have all: what it lost may have been its worst.

    Args:
        points: their values.
        seeds: that each should have; the first seeds the bootstrap.
    """
    means = {name: found["figure"]["value"] for name, one in on_shared(points).items()
             if (found := spread_of(one, seeds[0]))}  # fmt: skip
    return sorted(means, key=lambda name: (bool(missing(points[name], seeds)), -means[name]))


def missing(one: BySeed, seeds: Sequence[int]) -> list[int]:
    """The seeds with which a point has no answers."""
    return [seed for seed in seeds if seed not in one]


def halved(points: Sequence[str]) -> list[str]:
    """The better half of ranked points, but not fewer than two."""
    return list(points[: max(2, -(-len(points) // 2))])


def _student(count: int) -> float:
    """What the standard deviation of so many figures is multiplied with: half of their mean's interval."""
    from scipy.stats import t  # noqa: PLC0415 - half a second, and few ask

    return float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) / math.sqrt(count)
