"""The same questions asked again, of the model as it is published or served, against the run's own answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from ragtune.data.example import Example
from ragtune.recipe.schema import Recipe
from ragtune.scoring.compare import compare_answers
from ragtune.scoring.score import Answers
from ragtune.scoring.statistics import Figures


class Reasked(TypedDict):
    """What asking again changed; every figure is over the same `n` questions for both sides."""

    asked: int
    changed: int
    """Of these, answers with another text."""
    n: int
    metric: str
    """The headline."""
    answers: str
    own: Figures
    """The run's own figures."""
    again: Figures
    difference: Figures
    """Paired: `again` less `own`."""


def reasked(recipe: Recipe, examples: Sequence[Example], own: Answers, again: Answers) -> Reasked:
    """What changed where questions were asked again, all or some of them.

    Args:
        recipe: how answers are counted.
        examples: every question of the evaluation set.
        own: the run's answers, at least to the questions that were asked again.
        again: those to what was asked again.
    """
    same = Answers({qid: own.texts[qid] for qid in again.texts}, name=own.name)
    found = compare_answers(recipe, examples, same, again)
    return {
        "asked": len(again.texts),
        "changed": sum(text != own.texts[qid] for qid, text in again.texts.items()),
        "n": found["n"],
        "metric": found["metric"],
        "answers": found["answers"],
        "own": found["intervals"]["before"],
        "again": found["intervals"]["after"],
        "difference": found["difference"],
    }


def is_other(found: Reasked) -> bool:
    """Whether what was asked again is not what was measured, by the headline.

    It isn't if the paired interval of the difference doesn't hold zero. Where many answers became right and
    as many wrong that interval is wide, and where every answer was right it has no width until several are
    wrong: so it isn't either if the score left the interval of the run's own.
    """
    metric = found["metric"]
    if metric not in found["difference"]:  # no question that counts was asked
        return False
    own, difference = found["own"][metric], found["difference"][metric]
    score = found["again"][metric]["value"]
    return not (difference["low"] <= 0 <= difference["high"] and own["low"] <= score <= own["high"])
