"""Plots as inline SVG, in the colours of the page that they stand on."""

from __future__ import annotations

import contextlib
import io
import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from ragtune.scoring.compare import Comparison
from ragtune.scoring.confidence import Confidence
from ragtune.scoring.controls import ControlFigures

if TYPE_CHECKING:  # 0.4 seconds of every start, which only drawing needs
    from matplotlib.axes import Axes
    from matplotlib.ticker import MaxNLocator

# Stand-ins that Matplotlib can parse; in the SVG they become the page's own variables, so that one
# drawing is right on a light and on a dark background.
_COLOURS = {
    "#010101": "var(--muted)",
    "#020202": "var(--line)",
    "#030303": "var(--before)",
    "#040404": "var(--accent)",
    "#050505": "var(--second)",
    "#060606": "var(--text)",
    "#070707": "var(--good)",
    "#080808": "var(--bad)",
}
MUTED, _LINE, _FAINT, _ACCENT, SECOND, _TEXT, _GOOD, _BAD = _COLOURS
_POINTS = 1000
"""More points than this can't be told apart in the width of a page."""
_PHONE = 5.0
"""Inches: a narrower drawing has its labels above the bars instead of beside them."""
_POINT = 72
"""Points, the unit of lettering, in an inch."""


def loss_curve(log: Sequence[Mapping[str, Any]], *, window: int, width: float) -> str | None:
    """The loss over the steps as an `<svg>` element; None where there is nothing to draw.

    The same log gives the same bytes. The element refers to nothing outside of it but the colour
    variables of the page; this holds for every drawing here.

    Args:
        log: rows {step, loss?, eval_loss?}; values that are not finite are left out.
        window: steps over which the strong line is a mean.
        width: in inches; lettering keeps its size, so a phone gets a narrower drawing.
    """
    steps, losses = _series(log, "loss")
    eval_steps, eval_losses = _series(log, "eval_loss")
    if not steps and not eval_steps:
        return None
    with drawing("loss", (width, 2.7), (0.55, 0.5, 0.2, 0.15)) as (axes, file):
        every = -(-len(steps) // _POINTS) or 1
        line = partial(axes.plot, clip_on=False)
        line(steps[::every], losses[::every], color=_FAINT, linewidth=1, alpha=0.75)
        means, mark = _trailing_means(losses, window), "o" if len(steps) == 1 else ""
        line(steps[::every], means[::every], color=_ACCENT, linewidth=2.2, marker=mark)
        line(eval_steps, eval_losses, color=SECOND, linewidth=1.6, marker="o", markersize=5)
        axes.set_ylim(bottom=0 if min(losses + eval_losses) >= 0 else None)
        ticks = {"steps": [1, 2, 5, 10]}
        axes.xaxis.set_major_locator(ticks_of(max(4, round(width)), integer=True, **ticks))
        axes.yaxis.set_major_locator(ticks_of(5, **ticks))
        axes.set_xlabel("step", color=MUTED)
        plain(axes, "y")
        axes.spines["bottom"].set_visible(True)
        axes.spines["bottom"].set_color(_LINE)
    return inline(file)


def gain_chart(comparison: Comparison, *, width: float) -> str:
    """Strict exact match before, what was won and lost, and after: each bar begins where one ends."""
    figures = comparison["intervals"]
    old, new = (100 * figures[w]["strict_em"]["value"] for w in ("before", "after"))
    won, read, lost = (100 * figures["gain"][p]["value"] for p in ("format", "reading", "lost"))
    top = old + won + read
    bars = [
        ("before", 0.0, old, _FAINT, ""),
        ("format", old, won, SECOND, "+"),
        ("reading", old + won, read, _GOOD, "+"),
        ("lost", top - lost, lost, _BAD, "−"),
        ("after", 0.0, new, _ACCENT, ""),
    ]
    left = 0.75
    with drawing("gain", (width, 2.75), (left, 0.4, 0.75, 0.05)) as (axes, file):
        for row, (name, start, length, colour, sign) in enumerate(bars):
            axes.barh(row, length, left=start, height=0.56, color=colour, clip_on=False)
            _label(axes, f"{sign}{length:.1f}", (start + length, row), 6)
            _label(axes, name, (0, row), -left * _POINT)
        ends = [start + (0 if name == "lost" else size) for name, start, size, _, _ in bars]
        for row, end in enumerate(ends[:-1]):
            down = ([end, end], [row, row + 1])
            axes.plot(*down, color=_LINE, linewidth=1, zorder=0, clip_on=False)
        # Of the whole only as much as is needed: a small gain is still seen.
        _rows_in_percent(axes, len(bars), min(100, max(10, 10 * math.ceil(top / 10))))
    return inline(file)


def controls_chart(controls: ControlFigures, *, width: float) -> str | None:
    """The headline under each condition before and after, with intervals; None without figures."""
    metric = controls["metric"]
    rows = [
        (one["title"], [side[metric] if side else None for side in (one["before"], one["after"])])
        for one in controls["conditions"]
    ]
    rows = [(title, pair) for title, pair in rows if any(pair)]
    if not rows:
        return None
    above = width < _PHONE
    each, left, title_up, dots_down = (0.62, 0.12, 0.28, 0.18) if above else (0.44, 2.9, 0, 0)
    size = (width, each * len(rows) + 0.5)
    with drawing("controls", size, (left, 0.4, 0.3, 0.1)) as (axes, file):
        for row, (title, pair) in enumerate(rows):
            for shift, colour, found in zip((-0.12, 0.12), (_FAINT, _ACCENT), pair, strict=True):
                if found:
                    value, *ends = (
                        100 * part for part in (found["value"], found["low"], found["high"])
                    )
                    y, draw = (
                        row + shift + dots_down,
                        partial(axes.plot, color=colour, clip_on=False),
                    )
                    draw(ends, [y, y], linewidth=2, alpha=0.6, solid_capstyle="round")
                    draw(value, y, marker="o", markersize=7)
            short = textwrap.shorten(title, 44, placeholder=" …")
            _label(axes, short, (0, row - title_up), -left * _POINT + 4)
        _rows_in_percent(axes, len(rows), 100)
    return inline(file)


def calibration_chart(confidence: Mapping[str, Confidence | None], *, width: float) -> str | None:
    """The share of right answers over their probability, before and after; None without probabilities.

    On the dashed line the probability says how often an answer is right.
    """
    if not any(confidence.values()):
        return None
    with drawing("calibration", (width, 3.2), (0.6, 0.55, 0.2, 0.15)) as (axes, file):
        axes.plot(
            [0, 100], [0, 100], color=_LINE, linewidth=1.2, linestyle=(0, (4, 3)), clip_on=False
        )
        for which, colour in (("before", _FAINT), ("after", _ACCENT)):
            bins = (confidence[which] or {"bins": []})["bins"]
            across, up = ([100 * one[k] for one in bins] for k in ("probability", "right"))
            axes.plot(
                across, up, color=colour, linewidth=1.8, marker="o", markersize=6, clip_on=False
            )
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)
        axes.set_xlabel("probability of the answer", color=MUTED)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(ticks_of(5))
            axis.set_major_formatter("{x:.0f} %")
        plain(axes, "y")
    return inline(file)


@contextlib.contextmanager
def drawing(
    name: str, size: tuple[float, float], margins: tuple[float, float, float, float]
) -> Iterator[tuple[Axes, io.StringIO]]:
    """Empty axes, and a file that holds them as SVG when the block has drawn.

    Args:
        name: makes the ids in the file.
        size: width and height, in inches.
        margins: left, bottom, right and top, in inches.
    """
    (width, height), (left, bottom, right, top) = size, margins
    settings = {
        "svg.fonttype": "none",  # text stays text, in the page's font
        "svg.hashsalt": f"ragtune {name} {width}",  # else ids are drawn anew each time
        "font.size": 10.5,
        "axes.linewidth": 0.8,
    }
    import matplotlib as mpl  # noqa: PLC0415 - as above
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    file = io.StringIO()
    with mpl.rc_context(settings):
        figure = Figure(figsize=size)
        inside = (1 - (left + right) / width, 1 - (bottom + top) / height)
        yield figure.add_axes((left / width, bottom / height, *inside)), file
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)


def ticks_of(count: int, **more: object) -> MaxNLocator:
    """At most so many marks on an axis, at round numbers."""
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 - as above

    return MaxNLocator(count, **more)


def _label(axes: Axes, text: str, at: tuple[float, float], shift: float) -> None:
    """Text that begins so many points to the right of a place, inside the axes or not."""
    axes.annotate(
        text,
        at,
        (shift, 0),
        textcoords="offset points",
        va="center_baseline",
        color=_TEXT,
        annotation_clip=False,
        parse_math=False,  # a title may hold a dollar sign
    )


def _rows_in_percent(axes: Axes, rows: int, end: float) -> None:
    """Rows from the top down, over a scale from 0 to `end` percent."""
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_xlim(0, end)
    axes.set_yticks([])
    axes.xaxis.set_major_formatter("{x:.0f} %")
    plain(axes, "x")


def plain(axes: Axes, grid: Literal["x", "y"]) -> None:
    """Axes of which only the grid and the numbers are seen."""
    axes.tick_params(length=0, colors=MUTED, pad=6)
    axes.grid(axis=grid, color=_LINE, linewidth=0.8, clip_on=False)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)


def _series(log: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    rows = [(r["step"], float(r[key])) for r in log if r.get(key) is not None]
    finite = [(step, value) for step, value in rows if math.isfinite(value)]
    return [step for step, _ in finite], [value for _, value in finite]


def _trailing_means(values: Sequence[float], window: int) -> list[float]:
    parts = (values[max(0, end - window) : end] for end in range(1, len(values) + 1))
    return [sum(part) / len(part) for part in parts]


def inline(file: io.StringIO) -> str:
    """Matplotlib's SVG file as an element of an HTML page."""
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # would hold for the whole page
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)  # HTML knows them
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # nothing refers to groups
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", svg, count=1)  # scales
    for stand_in, variable in _COLOURS.items():
        svg = svg.replace(stand_in, variable)
    return svg
