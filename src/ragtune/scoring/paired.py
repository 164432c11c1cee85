"""What other tools leave unpaired: two logs of the same questions, metric by metric, one against the other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypedDict

from ragtune.scoring.statistics import Figure, apart, grouped, mcnemar

_SEED = 42
"""Of the draws; a log brings none."""

Values = Mapping[str, Mapping[str, float]]
"""A value for each question, by its id, of each metric; NaN where a question has none."""


class PairedMetric(TypedDict):
    """A metric of both logs, over the `n` questions that have a value in both."""

    metric: str
    n: int
    first: Figure
    second: Figure
    difference: Figure
    """The second less the first; its interval is paired."""
    higher: int
    """Questions that have a higher value in the second; of a metric of 0 and 1 those that were fixed."""
    lower: int
    """The same, lower: of 0 and 1 those that were broken."""
    mcnemar_p: float | None
    """McNemar's exact p, two-sided; None of a metric that has other values than 0 and 1."""
    missing: int
    """Questions of both logs that have no value in one of them."""
    rate: bool
    """Whether all values lie from 0 to 1."""


class PairedTask(TypedDict):
    """A task of both logs."""

    task: str
    first: str
    """The files."""
    second: str
    left_out: int
    """Questions that only one of the two answers."""
    metrics: list[PairedMetric]


class PairedLogs(TypedDict):
    """A log, or a folder of them, against the first."""

    name: str
    against: str
    tasks: list[PairedTask]


class Logs(TypedDict):
    """Logs of other tools, each against the first."""

    comparisons: list[PairedLogs]


class GeneralTask(TypedDict):
    """A task that both sides were asked, or a group of `parts` tasks, whose documents are pooled."""

    task: str
    parts: int
    metrics: list[PairedMetric]
    """Of what a task counts document by document; the first side is before tuning."""


class General(TypedDict):
    """general.json: what was forgotten."""

    lm_eval: list[str]
    """The versions that asked, mostly one."""
    limit: int | None
    """Documents of each task, at most."""
    tasks: list[GeneralTask]


def paired(first: Values, second: Values) -> list[PairedMetric]:
    """The metrics that both logs have, in the order of the first.

    Args:
        first: values of the questions that both answer.
        second: the same questions.
    """
    found = (_paired(name, first[name], second[name]) for name in first if name in second)
    return [one for one in found if one is not None]


def _paired(
    metric: str, first: Mapping[str, float], second: Mapping[str, float]
) -> PairedMetric | None:
    """None where no question has a value on both sides."""
    asked = [
        q for q in first if not math.isnan(first[q]) and not math.isnan(second.get(q, math.nan))
    ]
    if not asked:
        return None
    old, new = [first[q] for q in asked], [second[q] for q in asked]
    difference = [b - a for a, b in zip(old, new, strict=True)]
    # What another tool's metric can be isn't known: at least a share, or what was seen.
    seen = min(0.0, *old, *new), max(1.0, *old, *new)
    bounds = {"first": seen, "second": seen, "difference": apart(seen)}
    sides = {"first": old, "second": new, "difference": difference}
    every = grouped({side: {metric: values} for side, values in sides.items()}, _SEED, bounds)
    higher, lower = sum(d > 0 for d in difference), sum(d < 0 for d in difference)
    return {
        "metric": metric,
        "n": len(asked),
        "first": every["first"][metric],
        "second": every["second"][metric],
        "difference": every["difference"][metric],
        "higher": higher,
        "lower": lower,
        "mcnemar_p": mcnemar(higher, lower) if {*old, *new} <= {0, 1} else None,
        "missing": len(first.keys() | second.keys()) - len(asked),
        "rate": all(0 <= value <= 1 for value in (*old, *new)),
    }
