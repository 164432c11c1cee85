"""The same questions asked again, of the model as it is published or served, against the run's own answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NotRequired, TypedDict

from ragtune.data.example import Example
from ragtune.recipe.schema import Recipe
from ragtune.scoring.compare import compare_answers
from ragtune.scoring.score import Answers
from ragtune.scoring.statistics import Figures, at_most, enough

_LEAST = 32
"""Questions that are always asked: fewer are over in no time."""
_SPARED = 1
"""Answers that may be otherwise without all questions being asked: rounding changes one in fifty or so."""


class Reasked(TypedDict):
    """What asking again changed; every figure is over the same `n` questions for both sides."""

    asked: int
    changed: int
    """Of these, answers with another text."""
    of: int
    """The run's own answers; those that were asked again are drawn from them by the seed."""
    at_most: int
    """Of these, with a certainty of 95 %, answers with another text if all were asked again."""
    n: int
    metric: str
    """The headline."""
    answers: str
    own: Figures
    """The run's own figures."""
    again: Figures
    difference: Figures
    """Paired: `again` less `own`."""
    confined: NotRequired[bool]
    """Whether the run's own answers were confined (`evaluate.copy`, `evaluate.refuse_below`) or chosen among
    several (`evaluate.orders`), and these were written freely: what differs then says nothing of the model."""


def reasked(
    recipe: Recipe,
    examples: Sequence[Example],
    own: Answers,
    again: Answers,
    *,
    freely: bool = False,
) -> Reasked:
    """What changed where questions were asked again, all or some of them.

    Args:
        recipe: how answers are counted.
        examples: every question of the evaluation set.
        own: the run's answers, at least to the questions that were asked again.
        again: those to what was asked again.
        freely: whether who was asked again writes freely and once, whatever the recipe does with answers.
    """
    same = Answers({qid: own.texts[qid] for qid in again.texts}, name=own.name)
    found = compare_answers(recipe, examples, same, again)
    asked, changed = len(again.texts), changed_in(own, again)
    result: Reasked = {
        "asked": asked,
        "changed": changed,
        "of": len(own.texts),
        "at_most": at_most(changed, asked, len(own.texts)),
        "n": found["n"],
        "metric": found["metric"],
        "answers": found["answers"],
        "own": found["intervals"]["before"],
        "again": found["intervals"]["after"],
        "difference": found["difference"],
    }
    if freely and (recipe.evaluate.confined or recipe.evaluate.orders > 1):
        result["confined"] = True
    return result


def changed_in(own: Answers, again: Answers) -> int:
    """How many of the answers to what was asked again have another text."""
    return sum(text != own.texts[qid] for qid, text in again.texts.items())


def asked_first(n: int) -> int:
    """How many of `n` questions are asked again at first: as many as `settled` needs where one changes."""
    return min(n, max(_LEAST, enough(_SPARED, _tolerated(n), n)))


def settled(own: Answers, again: Answers) -> bool:
    """Whether some of the questions say enough of all.

    They do if in all, with a certainty of 95 %, no more answers changed than the interval of a score over
    them is wide to a side: no score can then have moved further. What an answer scores plays no part, so
    that what was asked holds under every metric.
    """
    n = len(own.texts)
    return at_most(changed_in(own, again), len(again.texts), n) <= _tolerated(n)


def _tolerated(n: int) -> int:
    """Questions to a side of the 95 % interval of a score over `n` of them, where it is widest: at one half."""
    return int(1.96 * math.sqrt(n) / 2)


def is_other(found: Reasked) -> bool:
    """Whether what was asked again is not what was measured, by the headline.

    It isn't if the paired interval of the difference doesn't hold zero. Where many answers became right and
    many wrong that interval is wide: so it isn't either if the score left the interval of the run's own. Where
    the run's own answers alone were confined nothing follows from a difference.
    """
    metric = found["metric"]
    if (
        found.get("confined") or metric not in found["difference"]
    ):  # or no question that counts was asked
        return False
    own, difference = found["own"][metric], found["difference"][metric]
    score = found["again"][metric]["value"]
    return not (difference["low"] <= 0 <= difference["high"] and own["low"] <= score <= own["high"])
