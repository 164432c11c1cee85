"""The same questions asked again of the same model in another engine, against the run's own answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from ragtune.data.example import Example
from ragtune.recipe.schema import Recipe
from ragtune.scoring.compare import compare_answers
from ragtune.scoring.score import Answers
from ragtune.scoring.statistics import Figure, Figures


class Reasked(TypedDict):
    """What another engine changed; every figure is over the same `n` questions for both."""

    asked: int
    changed: int
    """Of these, answers with another text."""
    n: int
    metrics: dict[str, float]
    own: dict[str, float]
    """The run's own figures."""
    intervals: Figures
    difference: Figures
    """Paired: the other engine's figure less the run's own."""
    answers: str


def reasked(recipe: Recipe, examples: Sequence[Example], own: Answers, again: Answers) -> Reasked:
    """What changed where questions were asked again, all or some of them.

    Args:
        recipe: how answers are counted.
        examples: every question of the evaluation set.
        own: the run's answers, at least to the questions that were asked again.
        again: the other engine's.
    """
    same = Answers({qid: own.texts[qid] for qid in again.texts}, name=own.name)
    found = compare_answers(recipe, examples, same, again)
    return {
        "asked": len(again.texts),
        "changed": sum(text != own.texts[qid] for qid, text in again.texts.items()),
        "n": found["n"],
        "metrics": found["after"],
        "own": found["before"],
        "intervals": found["intervals"]["after"],
        "difference": found["difference"],
        "answers": found["answers"],
    }


def in_words(found: Reasked, metric: str) -> str:
    """What changed, in a sentence."""
    words = f"{found['changed']} of {found['asked']} answers otherwise than the adapter"
    if metric not in found["metrics"]:
        return words
    figure: Figure = found["difference"][metric]
    return (
        f"{words}; {metric} {found['metrics'][metric]:.1%}, {100 * figure['value']:+.1f} points "
        f"(95 % interval {100 * figure['low']:+.1f} … {100 * figure['high']:+.1f}, the same "
        f"{found['n']} questions)"
    )
