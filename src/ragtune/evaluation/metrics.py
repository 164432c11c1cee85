"""What a prediction scores, question by question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ragtune.evaluation.normalise import aio, squad

METRICS = ("strict_em", "squad_em", "aio_em", "contains")


def strict_em(prediction: str, answers: Sequence[str]) -> float:
    """1 if the prediction is the first answer, character for character (the notebook's)."""
    return float(prediction == answers[0])


def squad_em(prediction: str, answers: Sequence[str]) -> float:
    """1 if the prediction equals any answer by SQuAD's rule."""
    return _any_equal(squad, prediction, answers)


def aio_em(prediction: str, answers: Sequence[str]) -> float:
    """1 if the prediction equals any answer by AI王's rule."""
    return _any_equal(aio, prediction, answers)


def contains(prediction: str, answers: Sequence[str]) -> float:
    """1 if any answer stands in the prediction, both by AI王's rule.

    An answer of which nothing is left (・, say) matches only a prediction of which nothing is.
    """
    inside = aio(prediction)
    golds = [aio(a) for a in answers]
    return float(any(g in inside if g else not inside for g in golds))


def _any_equal(rule: Callable[[str], str], prediction: str, answers: Sequence[str]) -> float:
    normalised = rule(prediction)
    return float(any(rule(a) == normalised for a in answers))


_FUNCTIONS = {"strict_em": strict_em, "squad_em": squad_em, "aio_em": aio_em, "contains": contains}


def score(predictions: Sequence[str], golds: Sequence[Sequence[str]]) -> dict[str, list[float]]:
    """Each metric's value for each question (0 or 1).

    Args:
        predictions: one a question.
        golds: the accepted answers of each, at least one.
    """
    return {
        name: [function(p, g) for p, g in zip(predictions, golds, strict=True)]
        for name, function in _FUNCTIONS.items()
    }


def summary(scores: dict[str, list[float]]) -> dict[str, Any]:
    """The mean of each metric, with the number of questions."""
    n = len(next(iter(scores.values())))
    return {
        "n": n,
        "metrics": {name: sum(v) / n if n else 0.0 for name, v in scores.items()},
    }
