"""How certain a figure is."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict  # pydantic wants this one, before Python 3.12

SAMPLES = 10_000
CONFIDENCE = 0.95
_AT_ONCE = 2_000_000
"""Numbers that are drawn at a time: they stay in the processor's cache."""
_MOST_KEPT = 2_000
"""Questions whose draws are kept: 20 MB. The parts that a report draws beside all are smaller."""


class Figure(TypedDict):
    """A mean, and its interval."""

    value: float
    low: float
    high: float


Figures = dict[str, Figure]
"""One a metric, or whatever else is counted."""

K = TypeVar("K", bound=Hashable)
Draws = NDArray[np.integer[Any]]
Columns = Mapping[str, Sequence[float]]
"""Values of each metric, one a question."""

Bounds = tuple[float, float]
"""The lowest and the highest value that a question can have."""
RATE: Bounds = (0.0, 1.0)
DIFFERENCE: Bounds = (-1.0, 1.0)
"""Of two rates."""
ALIKE = 1e-9
"""What lies less than this apart is the same, but for rounding."""


def figures(
    columns: Mapping[K, Sequence[float]], seed: int, bounds: Bounds | None = RATE
) -> dict[K, Figure]:
    """The mean of each column and its 95 % percentile interval, questions drawn with replacement.

    Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapter 13. All columns are of the
    same questions and see the same draws. For a difference, pass the differences of the pairs: that
    is the paired interval. Where all values are the same every draw is, too: the interval is then `unvaried`.

    Args:
        columns: values, one a question.
        seed: of the draws.
        bounds: of the values; None where they are not known, and values that are the same have no width.

    Returns:
        The figure of each column; nothing for columns without questions.
    """
    return _figures(columns, seed, [bounds] * len(columns))


def _figures(
    columns: Mapping[K, Sequence[float]], seed: int, bounds: Sequence[Bounds | None]
) -> dict[K, Figure]:
    """`figures`, with bounds for each column."""
    n = len(next(iter(columns.values()), ()))
    if n == 0:
        return {}
    values = np.asarray(list(columns.values()), dtype=np.float64).T  # [n, columns]
    low, high = _interval(values.tobytes(), n, seed)
    middle, alike = values.mean(axis=0).tolist(), np.ptp(values, axis=0) < ALIKE
    found: dict[K, Figure] = {}
    for i, (name, limits) in enumerate(zip(columns, bounds, strict=True)):
        ends = low[i], high[i]
        if alike[i] and limits is not None:
            ends = unvaried(middle[i], n, limits)
        found[name] = {"value": middle[i], "low": ends[0], "high": ends[1]}
    return found


def apart(bounds: Bounds) -> Bounds:
    """The bounds of a difference of two values that have these."""
    lowest, highest = bounds
    return lowest - highest, highest - lowest


def unvaried(value: float, n: int, bounds: Bounds) -> Bounds:
    """Both ends of the 95 % interval of a mean where all of `n` values (at least 1) are the same.

    Values that are otherwise have a share of at most 1 - 0.025^(1/n): Clopper & Pearson's exact limit of none
    in n (1934, https://doi.org/10.1093/biomet/26.4.404), two-sided. They could be anything within the bounds.
    """
    otherwise = 1 - ((1 - CONFIDENCE) / 2) ** (1 / n)
    lowest, highest = bounds
    return value - otherwise * (value - lowest), value + otherwise * (highest - value)


@lru_cache(16)  # the comparison, the report and the summary ask for the same ones
def _interval(content: bytes, n: int, seed: int) -> tuple[list[float], list[float]]:
    """Both ends of the interval of each column of an array [n, columns] of float64."""
    values = np.frombuffer(content).reshape(n, -1)
    draws = _kept_draws(n, seed) if n <= _MOST_KEPT else _draws(n, seed)
    means = np.concatenate([often.astype(np.float64) @ values / n for often in draws])
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return low.tolist(), high.tolist()


@lru_cache(8)  # a report has columns of the selected questions, of all, and of the surest parts
def _kept_draws(n: int, seed: int) -> list[Draws]:
    # In a byte: nothing is drawn 256 times of as many or more, whose chance is below 1e-500.
    return [often.astype(np.uint8) for often in _draws(n, seed)]


def _draws(n: int, seed: int) -> Iterator[Draws]:
    """How often each of n questions is drawn, [some, n] of `SAMPLES` samples at a time."""
    generator = np.random.default_rng(seed)
    rows = max(1, min(SAMPLES, _AT_ONCE // n))
    for start in range(0, SAMPLES, rows):
        count = min(rows, SAMPLES - start)
        drawn = generator.integers(0, n, (count, n), dtype=np.int32)
        drawn += np.arange(count, dtype=np.int32)[:, None] * n
        yield np.bincount(drawn.ravel(), minlength=count * n).reshape(count, n)


def rate_of(found: int, n: int) -> Figure:
    """The share of n (at least 1) that were found, and its 95 % percentile interval.

    It is the binomial distribution's, which the draws of `figures` come near to: at once, however large n is.
    Of none or all it is `unvaried`, as there.
    """
    if found in (0, n):
        low, high = unvaried(found / n, n, RATE)
        return {"value": found / n, "low": low, "high": high}
    tail = (1 - CONFIDENCE) / 2
    from scipy.stats import binom  # noqa: PLC0415 - half a second, which asking does without

    low, high = (float(binom.ppf(q, n, found / n)) / n for q in (tail, 1 - tail))
    return {"value": found / n, "low": low, "high": high}


def at_most(found: int, drawn: int, of: int) -> int:
    """Of how many in all something can be true, with a certainty of 95 %, where it is of `found` of the drawn.

    One-sided and exact (hypergeometric): of the `of`, `drawn` were drawn without putting any back.
    """
    from scipy.stats import hypergeom  # noqa: PLC0415 - as above

    whole = np.arange(found, of - drawn + found + 1)
    return int(whole[hypergeom.cdf(found, of, whole, drawn) > 1 - CONFIDENCE].max())


def enough(found: int, limit: int, of: int) -> int:
    """How many of `of` to draw, so that `found` of them leave no more than `limit` in all; all if need be."""
    from scipy.stats import hypergeom  # noqa: PLC0415 - as above

    drawn = np.arange(1, of + 1)
    likely = hypergeom.cdf(found, of, limit + 1, drawn) > 1 - CONFIDENCE
    return min(of, 1 + int(likely.sum()))


def grouped(
    groups: Mapping[str, Columns], seed: int, bounds: Mapping[str, Bounds | None]
) -> dict[str, Figures]:
    """The figures of several groups of columns, all of them of the same questions and draws.

    Args:
        groups: columns, by the group's name.
        seed: of the draws.
        bounds: as of `figures`, of the groups that are no rates.
    """
    columns = {(g, name): v for g, group in groups.items() for name, v in group.items()}
    every = _figures(columns, seed, [bounds.get(g, RATE) for g, _ in columns])
    return {g: {n: every[g, n] for n in columns if every} for g, columns in groups.items()}


def less(after: Columns, before: Columns) -> dict[str, list[float]]:
    """The differences of the pairs, column by column."""
    return {m: [a - b for a, b in zip(after[m], before[m], strict=True)] for m in after}


def mcnemar(fixed: int, broken: int) -> float:
    """McNemar's exact p of so many questions that changed one way and the other (two-sided)."""
    if fixed + broken == 0:
        return 1.0
    from scipy.stats import binomtest  # noqa: PLC0415 - as above

    return float(binomtest(fixed, fixed + broken, 0.5).pvalue)
