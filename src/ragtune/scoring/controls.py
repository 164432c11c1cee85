"""The same questions with other passages: does the model read, or remember, and where does it look?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypedDict

from ragtune.base.errors import UsageError
from ragtune.base.screen.console import warn
from ragtune.base.text import one_or_many
from ragtune.data.citations import said
from ragtune.data.encode import Encoder
from ragtune.data.example import Example, Passage
from ragtune.data.select import accepted
from ragtune.data.unanswerable import holds
from ragtune.data.words import refused
from ragtune.recipe.schema import Recipe
from ragtune.scoring.metrics import METRICS, Columns, score
from ragtune.scoring.statistics import DIFFERENCE, Figure, Figures, figures, less

Show = Callable[[Example], tuple[Passage, ...] | None]
"""The passages that a control shows of an example; None where the example can't give it."""

AS_ASKED = "as_asked"
DEPTHS = (1, 3, 5, 10)
EFFECTS = (
    ("passages", "what the passages add: as asked, less without passages", AS_ASKED, "no_passages"),
    ("distractors", "what distractors cost: the positive alone, less as asked", "positive_alone", AS_ASKED),
    ("position", "what the place costs: the positive first, less last", "positive_first", "positive_last"),
)  # fmt: skip
"""Differences between two conditions over the questions that both have: name, title, more, less."""


class Condition(TypedDict):
    """A control's figures, over the questions that were asked both before and after."""

    name: str
    title: str
    n: int
    before: Figures | None
    after: Figures | None
    difference: Figures | None
    """None, as the two above, where one side was not asked."""
    refused: dict[str, Figure | None] | None
    """The share of refusals `before` and `after`; None without data.refusal."""
    left_out: int
    """Questions whose prompts were too long."""


class Effect(TypedDict):
    """How much more of the headline metric one condition has than another."""

    name: str
    title: str
    n: int
    before: Figure | None
    after: Figure | None


class ControlFigures(TypedDict):
    """controls.json; `metric` and `answers` are the recipe's."""

    metric: str
    answers: str
    conditions: list[Condition]
    effects: list[Effect]


def conditions(recipe: Recipe) -> dict[str, tuple[str, Show]]:
    """Each control's title, and what it shows."""
    most = recipe.data.max_passages

    def distractors(example: Example) -> list[Passage]:
        """The passages, best first, that are no positives and hold no answer that could be accepted."""
        positive = set(example.positive_passage_indices)
        every = accepted(example, recipe, "all+alternatives")
        return [
            p for i, p in enumerate(example.passages) if i not in positive and not holds(p, every)
        ]

    def placed(example: Example, place: int) -> tuple[Passage, ...] | None:
        others = distractors(example)[: most - 1]
        if len(others) < most - 1:
            return None
        return (*others[:place], _positive(example), *others[place:])

    found: dict[str, tuple[str, Show]] = {}
    if not recipe.evaluate.copy:  # without a passage there is nothing to copy
        found["no_passages"] = ("no passages", lambda _: ())
    found |= {
        "positive_alone": ("the positive alone", lambda e: (_positive(e),)),
        "distractors_alone": ("distractors alone", lambda e: tuple(distractors(e)[:most]) or None),
    }
    if most > 1:
        found["positive_first"] = ("the positive first", partial(placed, place=0))
        if most > 2:  # noqa: PLR2004 - of two passages none is in the middle
            found["positive_middle"] = (
                "the positive in the middle",
                partial(placed, place=most // 2),
            )
        found["positive_last"] = ("the positive last", partial(placed, place=most - 1))
    for depth in DEPTHS:
        if depth != most:
            title = f"the first {depth} passages" if depth > 1 else "the first passage"
            found[f"k{depth}"] = (title, partial(_first, depth=depth))
    return found


def _positive(example: Example) -> Passage:
    return example.passages[min(example.positive_passage_indices)]


def _first(example: Example, depth: int) -> tuple[Passage, ...] | None:
    return example.passages[:depth] if len(example.passages) >= depth else None


def key(condition: str, qid: str) -> str:
    """Names a question under a condition, as a qid of its own."""
    return f"{condition}/{qid}"


def control_examples(
    encoder: Encoder, examples: Sequence[Example]
) -> tuple[list[Example], dict[str, int]]:
    """The examples under every condition, each with `key` for its qid and what is shown for passages.

    A prompt that would have to be cut is left out: it would not show what its condition says.

    Args:
        encoder: of the recipe.
        examples: the selected questions.

    Returns:
        The examples, and how many of each condition were left out.
    """
    found: list[Example] = []
    left_out = {}
    for name, (title, show) in conditions(encoder.recipe).items():
        variants = [
            dataclasses.replace(e, qid=key(name, e.qid), passages=passages)
            for e in examples
            if (passages := show(e)) is not None
        ]
        try:
            prompts = encoder.showing_all().prompts(variants)
        except UsageError as error:  # the user's template may need a passage
            warn(f"Control left out: {title}. {error.message}")
            continue
        fitting = [
            variant
            for variant, p in zip(variants, prompts, strict=True)
            if p is not None and not p.passages_dropped and not p.characters_cut
        ]
        found += fitting
        left_out[name] = len(variants) - len(fitting)
        if left_out[name]:
            lost = one_or_many(
                left_out[name],
                "question left out, whose prompt is",
                "questions left out, whose prompts are",
            )
            warn(f"{title}: {lost} too long.")
    return found, left_out


def control_figures(
    recipe: Recipe,
    examples: Sequence[Example],
    answers: Mapping[str, Mapping[str, str]],
    left_out: Mapping[str, int],
) -> ControlFigures:
    """Every condition's figures before and after, and what they say.

    Args:
        recipe: which answers are accepted, the headline, the seed.
        examples: the questions, all of them selected.
        answers: of `before` and, if there is an adapter, `after`: predictions by `key`, those of the
            questions as they were asked included.
        left_out: questions of each condition whose prompts were too long.
    """
    table = _Table(recipe, examples, answers)
    titles = {AS_ASKED: f"as asked ({one_or_many(recipe.data.max_passages, 'passage')})"}
    titles |= {name: title for name, (title, _) in conditions(recipe).items()}
    found = (table.condition(name, title, left_out.get(name, 0)) for name, title in titles.items())
    return {
        "metric": recipe.evaluate.metric,
        "answers": recipe.evaluate.answers,
        "conditions": [one for one in found if one["n"]],
        "effects": [one for effect in EFFECTS if (one := table.effect(*effect))["n"]],
    }


@dataclasses.dataclass(frozen=True)
class _Table:
    """The answers under every condition; the fields are arguments of `control_figures`."""

    recipe: Recipe
    examples: Sequence[Example]
    answers: Mapping[str, Mapping[str, str]]

    def condition(self, name: str, title: str, left_out: int) -> Condition:
        seed, refusal = self.recipe.seed, self.recipe.data.refusal
        asked = self._asked(name)
        values = {side: self._values(side, name, asked) for side in self.answers}
        found = {side: figures(columns, seed) for side, columns in values.items()}
        refusals = figures(
            {
                side: [
                    float(refused(said(self.recipe, given[key(name, e.qid)]), refusal))
                    for e in asked
                ]
                for side, given in self.answers.items()
            },
            seed,
        )
        return {
            "name": name,
            "title": title,
            "n": len(asked),
            "before": found.get("before"),
            "after": found.get("after"),
            "difference": figures(less(values["after"], values["before"]), seed, DIFFERENCE)
            if values.keys() == {"before", "after"}
            else None,
            "refused": {side: refusals.get(side) for side in ("before", "after")}
            if refusal is not None
            else None,
            "left_out": left_out,
        }

    def effect(self, name: str, title: str, *both: str) -> Effect:
        """One of EFFECTS."""
        asked = self._asked(*both)
        metric = self.recipe.evaluate.metric

        def of(side: str) -> Figure | None:
            if side not in self.answers:
                return None
            more, fewer = (self._values(side, condition, asked, (metric,)) for condition in both)
            return figures(less(more, fewer), self.recipe.seed, DIFFERENCE).get(metric)

        return {
            "name": name,
            "title": title,
            "n": len(asked),
            "before": of("before"),
            "after": of("after"),
        }

    def _asked(self, *conditions: str) -> list[Example]:
        """The questions that each side was asked under all of these conditions."""
        keys = [(e, [key(condition, e.qid) for condition in conditions]) for e in self.examples]
        sides = self.answers.values()
        return [e for e, needed in keys if all(k in given for given in sides for k in needed)]

    def _values(
        self,
        side: str,
        condition: str,
        asked: Sequence[Example],
        names: Sequence[str] = tuple(METRICS),
    ) -> Columns:
        given = self.answers[side]
        return score(self.recipe, asked, [given[key(condition, e.qid)] for e in asked], names)
