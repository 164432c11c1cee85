"""Two sets of answers to the same questions, one against the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ragtune.scoring.metrics import METRICS
from ragtune.scoring.score import CHOICES, Scored, refusal_figures, whole_set
from ragtune.scoring.statistics import Figure, figures, mcnemar


def compare(before: Scored, after: Scored) -> dict[str, Any]:
    """What changed from one set of answers to the other: comparison.json.

    Every interval is paired where two sets meet: the same questions are drawn for both.

    Args:
        before: by the answers of the base model, or of one run.
        after: the same questions, asked of the tuned model, or of another run.
    """
    recipe = after.recipe
    metric = recipe.evaluate.metric
    n = len(after.chosen)
    gain = gain_columns(before.values, after.values)
    every = figures(
        {
            **_named("before", before.values),
            **_named("after", after.values),
            **_named("difference", _less(after.values, before.values)),
            **_named("gain", gain),
            **_named("length", {"before": before.lengths, "after": after.lengths}),
            **{
                name: values
                for choice in CHOICES
                for name, values in _named(choice, _choice(before, after, choice)).items()
            },
        },
        recipe.seed,
    )
    changes = [a - b for a, b in zip(after.values[metric], before.values[metric], strict=True)]
    fixed, broken = sum(c > 0 for c in changes), sum(c < 0 for c in changes)
    return {
        "n": n,
        "metric": metric,
        "answers": recipe.evaluate.answers,
        "before": {m: f["value"] for m, f in _part("before", every).items()},
        "after": {m: f["value"] for m, f in _part("after", every).items()},
        "difference": _part("difference", every),
        "intervals": {part: _part(part, every) for part in ("before", "after", "gain")},
        "fixed": fixed,
        "broken": broken,
        "changed": sum(a != b for a, b in zip(after.texts, before.texts, strict=True)),
        "cut": {"before": before.cut, "after": after.cut},
        "mcnemar_p": mcnemar(fixed, broken),
        "gain": {part: f["value"] for part, f in _part("gain", every).items()},
        "denominators": {"answerable": n, "all": after.total},
        "all": _whole(before, after),
        "by_answers": {choice: _part(choice, every) for choice in CHOICES},
        "length": _part("length", every),
        "refusals": _refusals(before, after),
    }


def _choice(before: Scored, after: Scored, choice: str) -> dict[str, list[float]]:
    """The headline under one way to accept answers."""
    old, new = before.by_choice[choice], after.by_choice[choice]
    difference = [a - b for a, b in zip(new, old, strict=True)]
    return {"before": old, "after": new, "difference": difference}


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


def _whole(before: Scored, after: Scored) -> dict[str, Any]:
    """Over all questions, those that were not asked counted as wrong."""
    every = figures(
        {
            **_named("before", before.everywhere),
            **_named("after", after.everywhere),
            **_named("difference", _less(after.everywhere, before.everywhere)),
        },
        after.recipe.seed,
    )
    parts = {part: _part(part, every) for part in ("before", "after", "difference")}
    return {**whole_set(after, parts["after"]), "intervals": parts}


def _refusals(before: Scored, after: Scored) -> dict[str, Any] | None:
    if not after.refusals:
        return None
    differences = {
        kind: [a - b for a, b in zip(after.refusals[kind], before.refusals[kind], strict=True)]
        for kind in after.refusals
    }
    return {
        "refusal": after.recipe.data.refusal,
        "before": refusal_figures(before),
        "after": refusal_figures(after),
        "difference": {
            kind: figures({kind: values}, after.recipe.seed)[kind]
            for kind, values in differences.items()
            if values
        },
    }


def _less(
    after: Mapping[str, Sequence[float]], before: Mapping[str, Sequence[float]]
) -> dict[str, list[float]]:
    return {m: [a - b for a, b in zip(after[m], before[m], strict=True)] for m in METRICS}


def _named(part: str, columns: Mapping[str, Sequence[float]]) -> dict[str, Sequence[float]]:
    return {f"{part}/{name}": values for name, values in columns.items()}


def _part(part: str, every: Mapping[str, Figure]) -> dict[str, Figure]:
    return {n.partition("/")[2]: f for n, f in every.items() if n.partition("/")[0] == part}
