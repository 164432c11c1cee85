"""Two sets of answers to the same questions, one against the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from pydantic import JsonValue

from ragtune.base.errors import RagtuneError
from ragtune.data.example import Example
from ragtune.recipe.schema import Recipe
from ragtune.scoring.citations import CitationFigures, citation_figures
from ragtune.scoring.confidence import Confidence
from ragtune.scoring.quotes import QuoteFigures, quote_figures
from ragtune.scoring.score import (
    CHOICES,
    REFUSALS,
    Answers,
    RefusalFigure,
    Scored,
    WholeSet,
    metrics_of,
    refusal_figures,
    score_answers,
    whole_set,
)
from ragtune.scoring.statistics import (
    DIFFERENCE,
    Figure,
    Figures,
    apart,
    figures,
    grouped,
    less,
    mcnemar,
)


class Refusals(TypedDict):
    """How each side refuses, by kind (`Scored.refusals`)."""

    refusal: str | None
    before: dict[str, RefusalFigure]
    after: dict[str, RefusalFigure]
    difference: Figures


class CitationSides(TypedDict):
    """What each side cites; None where it answered nothing."""

    before: CitationFigures | None
    after: CitationFigures | None


class QuoteSides(TypedDict):
    """What each side quotes; None where it answered nothing."""

    before: QuoteFigures | None
    after: QuoteFigures | None


class Comparison(TypedDict):
    """comparison.json. Every interval is paired where two sets meet: the same questions are drawn for both.

    `before`, `after` and `difference` are each metric's; `intervals` has those of the first two and of
    the parts of the `gain` (`gain_columns`). `fixed` and `broken` count the questions with a better and a
    worse headline (`metric`), `changed` those with another answer, `cut` the answers that did not end by
    themselves. All of it is over the `n` chosen questions, but what stands in `all` and `refusals`, and
    `unsure`: how many of all answers `evaluate.refuse_below` refused.
    """

    n: int
    metric: str
    answers: str
    before: dict[str, float]
    after: dict[str, float]
    difference: Figures
    intervals: dict[str, Figures]
    fixed: int
    broken: int
    changed: int
    cut: dict[str, int | None]
    unsure: dict[str, int]
    mcnemar_p: float
    gain: dict[str, float]
    denominators: dict[str, int]
    """How many questions are `answerable` (n), and `all`."""
    all: WholeSet
    by_answers: dict[str, Figures]
    """The headline `before`, `after` and the `difference`, under each way to accept answers."""
    length: Figures
    """Characters of an answer, `before` and `after`."""
    refusals: Refusals | None
    citations: CitationSides | None
    quotes: QuoteSides | None
    """None, as the citations, where the recipe asks for none."""
    confidence: dict[str, Confidence | None]
    """What the probabilities of the answers `before` and `after` say; None where they aren't known."""


class RunFigures(TypedDict):
    """A run's own figures over the questions that all were asked."""

    name: str
    cut: int | None
    metrics: dict[str, float]
    intervals: Figures
    length: Figure | None


class Against(Comparison):
    """A run against the first."""

    name: str
    against: str


class Runs(TypedDict):
    """Several runs over the same questions; in a comparison the first stands in the place of `before`."""

    metric: str
    answers: str
    n: int
    differs: dict[str, list[JsonValue]]
    """The keys of the recipes that differ, with each run's value."""
    runs: list[RunFigures]
    comparisons: list[Against]


def compare_answers(
    recipe: Recipe, examples: Sequence[Example], before: Answers, after: Answers
) -> Comparison:
    """One set of answers against another; `examples` is every question of the evaluation set.

    Raises:
        RagtuneError: the two were asked different questions.
    """
    if before.texts.keys() != after.texts.keys():
        raise RagtuneError(
            f"{before.name} and {after.name} answer different questions.",
            "Delete both folders and run the same command again.",
        )
    return compare(*(score_answers(recipe, examples, answers) for answers in (before, after)))


def against_first(runs: Sequence[tuple[str, Scored]], differs: dict[str, list[JsonValue]]) -> Runs:
    """Several runs, by their names, each against the first.

    Args:
        runs: all scored by one recipe, over the same questions.
        differs: as `Runs` says.
    """
    (first, scored), *others = runs
    evaluate = scored.recipe.evaluate
    return {
        "metric": evaluate.metric,
        "answers": evaluate.answers,
        "n": len(scored.chosen),
        "differs": differs,
        "runs": [_own_figures(*run) for run in runs],
        "comparisons": [
            {"name": name, "against": first, **compare(scored, other)} for name, other in others
        ],
    }


def _own_figures(name: str, scored: Scored) -> RunFigures:
    found = metrics_of(scored)
    return {
        "name": name,
        "cut": scored.cut,
        "metrics": found["metrics"],
        "intervals": found["intervals"],
        "length": found["length"],
    }


def compare(before: Scored, after: Scored) -> Comparison:
    """What changed from one set of answers to the other.

    Args:
        before: by the answers of the base model, or of one run.
        after: the same questions, asked of the tuned model, or of another run.
    """
    recipe = after.recipe
    metric = recipe.evaluate.metric
    difference = less(after.values, before.values)
    every = grouped(
        {
            "before": before.values,
            "after": after.values,
            "difference": difference,
            "gain": gain_columns(before.values, after.values),
            "length": {"before": before.lengths, "after": after.lengths},
            "choices before": before.by_choice,
            "choices after": after.by_choice,
            "choices difference": less(after.by_choice, before.by_choice),
        },
        recipe.seed,
        {"difference": DIFFERENCE, "choices difference": DIFFERENCE, "length": None},
    )
    fixed, broken = sum(d > 0 for d in difference[metric]), sum(d < 0 for d in difference[metric])
    return {
        "n": len(after.chosen),
        "metric": metric,
        "answers": recipe.evaluate.answers,
        "before": _values(every["before"]),
        "after": _values(every["after"]),
        "difference": every["difference"],
        "intervals": {part: every[part] for part in ("before", "after", "gain")},
        "fixed": fixed,
        "broken": broken,
        "changed": sum(a != b for a, b in zip(after.texts, before.texts, strict=True)),
        "cut": {"before": before.cut, "after": after.cut},
        "unsure": {"before": len(before.answers.unsure), "after": len(after.answers.unsure)},
        "mcnemar_p": mcnemar(fixed, broken),
        "gain": _values(every["gain"]),
        "denominators": {"answerable": len(after.chosen), "all": after.total},
        "all": _whole(before, after),
        "by_answers": _by_choice(every),
        "length": every["length"],
        "refusals": _refusals(before, after),
        "citations": _citations(before, after),
        "quotes": _quotes(before, after),
        "confidence": {"before": before.confidence, "after": after.confidence},
    }


def _by_choice(every: Mapping[str, Figures]) -> dict[str, Figures]:
    sides = ("before", "after", "difference")
    return {c: {s: found[c] for s in sides if (found := every[f"choices {s}"])} for c in CHOICES}


def _values(found: Figures) -> dict[str, float]:
    return {name: figure["value"] for name, figure in found.items()}


def gain_columns(
    before: Mapping[str, Sequence[float]], after: Mapping[str, Sequence[float]]
) -> dict[str, list[float]]:
    """What the gain in strict exact match is made of: format + reading - lost, one value a question.

    An answer that is exact now and was not is `format` if the one before already contained an accepted
    answer (contains), else `reading`; `lost` was exact and is no more.
    """
    parts: dict[str, list[float]] = {"format": [], "reading": [], "lost": []}
    for old, held, new in zip(
        before["strict_em"], before["contains"], after["strict_em"], strict=True
    ):
        won = new > old
        parts["format"].append(float(won and held == 1))
        parts["reading"].append(float(won and held != 1))
        parts["lost"].append(float(new < old))
    return parts


def _whole(before: Scored, after: Scored) -> WholeSet:
    """Over all questions, those that were not asked counted as wrong."""
    old, new = before.everywhere, after.everywhere
    parts = {"before": old, "after": new, "difference": less(new, old)}
    return whole_set(after, grouped(parts, after.recipe.seed, {"difference": DIFFERENCE}))


def _citations(before: Scored, after: Scored) -> CitationSides | None:
    if after.citations is None:
        return None
    old, new = (citation_figures(one.citations, after.recipe.seed) for one in (before, after))
    return {"before": old, "after": new}


def _quotes(before: Scored, after: Scored) -> QuoteSides | None:
    if after.quotes is None:
        return None
    old, new = (quote_figures(one.quotes, after.recipe.seed) for one in (before, after))
    return {"before": old, "after": new}


def _refusals(before: Scored, after: Scored) -> Refusals | None:
    if not after.refusals:
        return None
    differences = less(after.refusals, before.refusals)
    return {
        "refusal": after.recipe.data.refusal,
        "before": refusal_figures(before),
        "after": refusal_figures(after),
        "difference": {
            kind: figures({kind: values}, after.recipe.seed, apart(REFUSALS[kind]))[kind]
            for kind, values in differences.items()
            if values
        },
    }
