"""Plots as inline SVG, in the colours of the page that they stand on."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from typing import Any

# Stand-ins that Matplotlib can parse; in the SVG they become the page's own variables, so that one
# drawing is right on a light and on a dark background.
_COLOURS = {
    "#010101": "var(--muted)",
    "#020202": "var(--line)",
    "#030303": "var(--before)",
    "#040404": "var(--accent)",
    "#050505": "var(--second)",
}
_MUTED, _LINE, _FAINT, _ACCENT, _SECOND = _COLOURS
_POINTS = 1000
"""More points than this can't be told apart in the width of a page."""


def loss_curve(log: Sequence[dict[str, Any]], *, window: int, width: float) -> str | None:
    """The loss over the steps as an `<svg>` element; None where there is nothing to draw.

    The same log gives the same bytes. The element refers to nothing outside of it but the variables
    --muted, --line, --before, --accent and --second of the page.

    Args:
        log: rows {step, loss?, eval_loss?}; values that are not finite are left out.
        window: steps over which the strong line is a mean.
        width: in inches; lettering keeps its size, so a phone gets a narrower drawing.
    """
    steps, losses = _series(log, "loss")
    eval_steps, eval_losses = _series(log, "eval_loss")
    if not steps and not eval_steps:
        return None
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    settings = {
        "svg.fonttype": "none",  # text stays text, in the page's font
        "svg.hashsalt": f"ragtune loss {width}",  # else ids are drawn anew each time
        "font.size": 10.5,
        "axes.linewidth": 0.8,
    }
    height = 2.7
    with mpl.rc_context(settings):
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((0.55 / width, 0.5 / height, 1 - 0.75 / width, 1 - 0.65 / height))
        every = -(-len(steps) // _POINTS) or 1
        axes.plot(
            steps[::every], losses[::every], color=_FAINT, linewidth=1, alpha=0.75, clip_on=False
        )
        means = _trailing_means(losses, window)
        alone = "o" if len(steps) == 1 else ""
        axes.plot(
            steps[::every],
            means[::every],
            color=_ACCENT,
            linewidth=2.2,
            marker=alone,
            clip_on=False,
        )
        axes.plot(
            eval_steps,
            eval_losses,
            color=_SECOND,
            linewidth=1.6,
            marker="o",
            markersize=5,
            clip_on=False,
        )
        axes.set_ylim(bottom=0 if min(losses + eval_losses) >= 0 else None)
        ticks = {"steps": [1, 2, 5, 10]}
        axes.xaxis.set_major_locator(MaxNLocator(max(4, round(width)), integer=True, **ticks))
        axes.yaxis.set_major_locator(MaxNLocator(5, **ticks))
        axes.set_xlabel("step", color=_MUTED)
        axes.tick_params(length=0, colors=_MUTED, pad=6)
        axes.grid(axis="y", color=_LINE, linewidth=0.8, clip_on=False)
        axes.set_axisbelow(True)
        for side in ("top", "left", "right"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color(_LINE)
        file = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    return _inline(file.getvalue())


def _series(log: Sequence[dict[str, Any]], key: str) -> tuple[list[int], list[float]]:
    rows = [(r["step"], float(r[key])) for r in log if r.get(key) is not None]
    finite = [(step, value) for step, value in rows if math.isfinite(value)]
    return [step for step, _ in finite], [value for _, value in finite]


def _trailing_means(values: Sequence[float], window: int) -> list[float]:
    parts = (values[max(0, end - window) : end] for end in range(1, len(values) + 1))
    return [sum(part) / len(part) for part in parts]


def _inline(svg: str) -> str:
    """Matplotlib's SVG file as an element of an HTML page."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # would hold for the whole page
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)  # HTML knows them
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # nothing refers to groups
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", svg, count=1)  # scales
    for stand_in, variable in _COLOURS.items():
        svg = svg.replace(stand_in, variable)
    return svg
