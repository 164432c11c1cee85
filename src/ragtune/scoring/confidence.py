"""How far the model's own probability of an answer says whether it is right, and what to leave to a person.

Guo et al. 2017 (https://arxiv.org/abs/1706.04599) for the calibration, Geifman & El-Yaniv 2017
(https://arxiv.org/abs/1705.08500) for risk and coverage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from ragtune.scoring.statistics import ALIKE, CONFIDENCE, DIFFERENCE, Figure, figures, unvaried

BINS = 10
"""Of the calibration curve, each as wide as the others."""
COVERAGES = (1.0, 0.9, 0.75, 0.5, 0.25, 0.1)
_SAMPLES = 2_000


Numbers = NDArray[np.float64]


class Bin(TypedDict):
    """The answers whose probability lies in one tenth of the scale."""

    low: float
    high: float
    n: int
    probability: float
    """Their mean."""
    right: float
    """Their share that is right."""


class Coverage(TypedDict):
    """The answers that are given where only the surest are."""

    coverage: float
    n: int
    least: float
    """The lowest probability among them."""
    right: Figure


class Threshold(TypedDict):
    """A probability below which answers are refused."""

    value: float
    answered: float
    """The share that isn't refused."""
    crag: float
    """CRAG's score then: +1 for a right answer, 0 for a refusal, -1 for a wrong one."""


class Confidence(TypedDict):
    """What the probabilities of `n` answers say; right is the headline metric."""

    n: int
    ece: Figure
    """Expected calibration error: how far probability and share of right answers lie apart, over the bins."""
    left_out: NotRequired[int]
    """Answers that `evaluate.refuse_below` refused: in no figure."""
    bins: list[Bin]
    """Those that hold an answer."""
    coverages: list[Coverage]
    refuse_below: NotRequired[Threshold]
    """Where `evaluate.refuse_below` is 0, so that everything is answered: the best one of these answers."""


def confidence_of(
    probabilities: Sequence[float],
    right: Sequence[float],
    seed: int,
    crag: Sequence[float] = (),
    left_out: int = 0,
) -> Confidence | None:
    """What probabilities say of answers; None without any.

    Args:
        probabilities: of each answer.
        right: the headline's value of each.
        seed: of the draws.
        crag: each one's part of CRAG's score, where a threshold is to be suggested.
        left_out: how many more answers there were, which a threshold refused.
    """
    if not probabilities:
        return None
    sure, values = np.asarray(probabilities), np.asarray(right, dtype=np.float64)
    places = np.minimum((sure * BINS).astype(int), BINS - 1)
    order = np.argsort(-sure, kind="stable")
    coverages: list[Coverage] = []
    for coverage in COVERAGES:
        first = order[: round(coverage * len(sure))]
        if len(first):
            figure = figures({"right": values[first].tolist()}, seed)["right"]
            least = float(sure[first[-1]])
            coverages.append(
                {"coverage": coverage, "n": len(first), "least": least, "right": figure}
            )
    found: Confidence = {
        "n": len(sure),
        "ece": _ece_figure(sure, values, places, seed),
        "bins": [
            {
                "low": k / BINS,
                "high": (k + 1) / BINS,
                "n": int((places == k).sum()),
                "probability": float(sure[places == k].mean()),
                "right": float(values[places == k].mean()),
            }
            for k in range(BINS)
            if (places == k).any()
        ],
        "coverages": coverages,
    }
    if left_out:
        found["left_out"] = left_out
    if crag:
        asked = len(sure) + left_out
        found["refuse_below"] = _best_threshold(sure, np.asarray(crag, dtype=np.float64), asked)
    return found


def _best_threshold(sure: Numbers, crag: Numbers, asked: int) -> Threshold:
    """The threshold with the highest score; of equal ones the highest, which answers least.

    Both figures are over all `asked` questions.
    """
    best: Threshold = {"value": 1.0, "answered": 0.0, "crag": 0.0}
    for value in np.unique(sure)[::-1]:
        kept = sure >= value
        score = float(crag[kept].sum() / asked)
        if score > best["crag"]:
            best = {"value": float(value), "answered": float(kept.sum() / asked), "crag": score}
    return best


def _ece_figure(sure: Numbers, values: Numbers, places: NDArray[np.int_], seed: int) -> Figure:
    """The error with its 95 % percentile interval, answers drawn with replacement.

    It is biased upwards, the more so the fewer answers a bin has; so is its interval.
    """
    apart = values - sure
    generator, n = np.random.default_rng(seed), len(sure)
    drawn = np.empty(_SAMPLES)
    for i in range(_SAMPLES):
        chosen = generator.integers(0, n, n)
        drawn[i] = _ece(apart[chosen], places[chosen])
    tail = (1 - CONFIDENCE) / 2
    value, (low, high) = _ece(apart, places), np.quantile(drawn, [tail, 1 - tail]).tolist()
    if np.ptp(drawn) < ALIKE:
        # An answer that is otherwise may lie on the other side of what it is taken with, hence from -1.
        low, high = unvaried(value, n, DIFFERENCE)
    return {"value": value, "low": max(0.0, low), "high": high}


def _ece(apart: Numbers, places: NDArray[np.int_]) -> float:
    sums = np.bincount(places, weights=apart, minlength=BINS)
    return float(np.abs(sums).sum() / len(apart))
