"""The same questions with other passages: does the model read, or remember, and where does it look?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ragtune.base.console import warn
from ragtune.base.errors import UsageError
from ragtune.data.encode import Encoder
from ragtune.data.example import Example, Passage
from ragtune.data.select import accepted
from ragtune.data.unanswerable import holds
from ragtune.recipe.schema import Recipe
from ragtune.scoring.metrics import METRICS, refused, score
from ragtune.scoring.statistics import Figure, figures

Shown = tuple[Passage, ...]

AS_ASKED = "as_asked"
DEPTHS = (1, 3, 5, 10)


def conditions(recipe: Recipe) -> dict[str, tuple[str, Callable[[Example], Shown | None]]]:
    """Each control's title, and what it shows of an example: None where the example can't give it."""
    max_passages = recipe.data.max_passages
    middle = max_passages // 2

    def distractors(example: Example) -> list[Passage]:
        """The passages, best first, that are no positives and hold no answer that could be accepted."""
        positive = set(example.positive_passage_indices)
        every = accepted(example, recipe, "all+alternatives")
        return [
            p for i, p in enumerate(example.passages) if i not in positive and not holds(p, every)
        ]

    def placed(example: Example, place: int) -> Shown | None:
        others = distractors(example)[: max_passages - 1]
        if len(others) < max_passages - 1:
            return None
        return (*others[:place], _positive(example), *others[place:])

    found: dict[str, tuple[str, Callable[[Example], Shown | None]]] = {
        "no_passages": ("no passages", lambda _: ()),
        "positive_alone": ("the positive alone", lambda e: (_positive(e),)),
        "distractors_alone": (
            "distractors alone",
            lambda e: tuple(distractors(e)[:max_passages]) or None,
        ),
    }
    if max_passages > 1:
        found["positive_first"] = ("the positive first", lambda e: placed(e, 0))
        if max_passages > 2:  # noqa: PLR2004 - of two passages none is in the middle
            found["positive_middle"] = (
                "the positive in the middle",
                lambda e: placed(e, middle),
            )
        found["positive_last"] = (
            "the positive last",
            lambda e: placed(e, max_passages - 1),
        )
    for depth in DEPTHS:
        if depth != max_passages:
            title = f"the first {depth} passages" if depth > 1 else "the first passage"
            found[f"k{depth}"] = (title, lambda e, depth=depth: _first(e, depth))  # type: ignore[misc]
    return found


def _positive(example: Example) -> Passage:
    return example.passages[min(example.positive_passage_indices)]


def _first(example: Example, depth: int) -> Shown | None:
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
            warn(f"{title}: {left_out[name]:,} questions left out, whose prompts are too long.")
    return found, left_out


def control_figures(
    recipe: Recipe,
    examples: Sequence[Example],
    answers: Mapping[str, Mapping[str, str]],
    left_out: Mapping[str, int],
) -> dict[str, Any]:
    """controls.json: every condition's figures before and after, and what they say.

    Args:
        recipe: which answers are accepted, the headline, the seed.
        examples: the questions, all of them selected.
        answers: of `before` and, if there is an adapter, `after`: predictions by `key`, those of the
            questions as they were asked included.
        left_out: questions of each condition whose prompts were too long.
    """
    titles = {AS_ASKED: f"as asked ({recipe.data.max_passages} passages)"}
    titles |= {name: title for name, (title, _) in conditions(recipe).items()}
    table = [_condition(recipe, name, title, examples, answers) for name, title in titles.items()]
    return {
        "metric": recipe.evaluate.metric,
        "answers": recipe.evaluate.answers,
        "conditions": [
            {**one, "left_out": left_out.get(one["name"], 0)} for one in table if one["n"]
        ],
        "effects": [
            one
            for name, title, more, less in EFFECTS
            if (one := _effect(recipe, name, title, examples, answers, more, less))
        ],
    }


EFFECTS = (
    ("passages", "what the passages add: as asked, less without passages", AS_ASKED, "no_passages"),
    ("distractors", "what distractors cost: the positive alone, less as asked", "positive_alone", AS_ASKED),
    ("position", "what the place costs: the positive first, less last", "positive_first", "positive_last"),
)  # fmt: skip
"""Differences between two conditions over the questions that both have."""


def _condition(
    recipe: Recipe,
    name: str,
    title: str,
    examples: Sequence[Example],
    answers: Mapping[str, Mapping[str, str]],
) -> dict[str, Any]:
    asked = [e for e in examples if all(key(name, e.qid) in a for a in answers.values())]
    texts = {w: [a[key(name, e.qid)] for e in asked] for w, a in answers.items()}
    golds = [accepted(e, recipe) for e in asked]
    values = {w: score(t, golds) for w, t in texts.items()}
    result: dict[str, Any] = {"name": name, "title": title, "n": len(asked)}
    for which in ("before", "after"):
        result[which] = figures(values[which], recipe.seed) if which in values else None
    result["difference"] = None
    if "after" in values and "before" in values:
        differences = {
            m: [b - a for a, b in zip(values["before"][m], values["after"][m], strict=True)]
            for m in METRICS
        }
        result["difference"] = figures(differences, recipe.seed)
    refusal = recipe.data.refusal
    result["refused"] = None
    if refusal is not None and asked:
        columns = {w: [float(refused(x, refusal)) for x in t] for w, t in texts.items()}
        found = figures(columns, recipe.seed)
        result["refused"] = {w: found.get(w) for w in ("before", "after")}
    return result


def _effect(
    recipe: Recipe,
    name: str,
    title: str,
    examples: Sequence[Example],
    answers: Mapping[str, Mapping[str, str]],
    more: str,
    less: str,
) -> dict[str, Any] | None:
    metric = recipe.evaluate.metric
    asked = [
        e
        for e in examples
        if all(key(c, e.qid) in a for a in answers.values() for c in (more, less))
    ]
    if not asked:
        return None
    golds = [accepted(e, recipe) for e in asked]

    def effect(one: Mapping[str, str]) -> Figure:
        high, low = (
            score([one[key(c, e.qid)] for e in asked], golds, (metric,))[metric]
            for c in (more, less)
        )
        difference = [a - b for a, b in zip(high, low, strict=True)]
        return figures({"effect": difference}, recipe.seed)["effect"]

    found = {w: effect(answers[w]) if w in answers else None for w in ("before", "after")}
    return {"name": name, "title": title, "n": len(asked), **found}
