"""Answers while an adapter was trained: what the log has of them, and a plot of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ragtune.reporting import plots
from ragtune.scoring.statistics import Figure


@dataclass(frozen=True)
class Look:
    """What the questions of `train.eval_answers` scored at a step."""

    step: int
    n: int
    figure: Figure
    loss: float | None
    """The evaluation loss of the same step."""


def looks_of(log: Sequence[Mapping[str, Any]], key: str) -> list[Look]:
    """The looks in the rows of train_log.jsonl, in their order; `key` is the metric's there."""
    losses = {row["step"]: row["eval_loss"] for row in log if row.get("eval_loss") is not None}
    return [
        Look(
            row["step"], row["eval_questions"],
            {"value": row[key], "low": row[f"{key}_low"], "high": row[f"{key}_high"]},
            losses.get(row["step"]),
        )
        for row in log
        if row.get(key) is not None
    ]  # fmt: skip


def looks_chart(looks: Sequence[Look], *, width: float) -> str | None:
    """The figure over the steps with its intervals as an `<svg>` element; None where there is none."""
    if not looks:
        return None
    with plots.drawing("looks", (width, 2.2), (0.55, 0.5, 0.2, 0.15)) as (axes, file):
        draw = partial(axes.plot, color=plots.SECOND, clip_on=False)
        for look in looks:
            ends = [100 * look.figure["low"], 100 * look.figure["high"]]
            draw([look.step] * 2, ends, linewidth=2, alpha=0.6, solid_capstyle="round")
        values = [100 * look.figure["value"] for look in looks]
        draw([look.step for look in looks], values, linewidth=1.6, marker="o", markersize=5)
        axes.set_xlim(0, None)
        axes.set_ylim(0, 100)
        axes.xaxis.set_major_locator(
            plots.ticks_of(max(4, round(width)), integer=True, steps=[1, 2, 5, 10])
        )
        axes.set_yticks([0, 50, 100], ["0", "50", "100 %"])
        axes.set_xlabel("step", color=plots.MUTED)
        plots.plain(axes, "y")
    return plots.inline(file)
