"""Plots as inline SVG, in the colours of the page that they stand on."""

from __future__ import annotations

import contextlib
import io
import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

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
_MUTED, _LINE, _FAINT, _ACCENT, _SECOND, _TEXT, _GOOD, _BAD = _COLOURS
_POINTS = 1000
"""More points than this can't be told apart in the width of a page."""
_PHONE = 5.0
"""Inches: a narrower drawing has its labels above the bars instead of beside them."""


def loss_curve(log: Sequence[dict[str, Any]], *, window: int, width: float) -> str | None:
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
    from matplotlib.ticker import MaxNLocator

    height = 2.7
    with _drawing("loss", width, height) as (figure, file):
        axes = figure.add_axes((0.55 / width, 0.5 / height, 1 - 0.75 / width, 1 - 0.65 / height))
        every = -(-len(steps) // _POINTS) or 1
        thin = {"linewidth": 1, "alpha": 0.75, "clip_on": False}
        axes.plot(steps[::every], losses[::every], color=_FAINT, **thin)
        means = _trailing_means(losses, window)[::every]
        strong = {"linewidth": 2.2, "marker": "o" if len(steps) == 1 else "", "clip_on": False}
        axes.plot(steps[::every], means, color=_ACCENT, **strong)
        dotted = {"linewidth": 1.6, "marker": "o", "markersize": 5, "clip_on": False}
        axes.plot(eval_steps, eval_losses, color=_SECOND, **dotted)
        axes.set_ylim(bottom=0 if min(losses + eval_losses) >= 0 else None)
        ticks = {"steps": [1, 2, 5, 10]}
        axes.xaxis.set_major_locator(MaxNLocator(max(4, round(width)), integer=True, **ticks))
        axes.yaxis.set_major_locator(MaxNLocator(5, **ticks))
        axes.set_xlabel("step", color=_MUTED)
        _plain(axes, "y")
        axes.spines["bottom"].set_visible(True)
        axes.spines["bottom"].set_color(_LINE)
    return _inline(file.getvalue())


def gain_chart(comparison: dict[str, Any], *, width: float) -> str:
    """Strict exact match before, what was won and lost, and after: each bar begins where one ends.

    Args:
        comparison: comparison.json.
        width: in inches.
    """
    figures = comparison["intervals"]
    old, new = (100 * figures[w]["strict_em"]["value"] for w in ("before", "after"))
    won, read, lost = (100 * figures["gain"][p]["value"] for p in ("format", "reading", "lost"))
    top = old + won + read
    bars = [
        ("before", 0.0, old, _FAINT, ""),
        ("format", old, won, _SECOND, "+"),
        ("reading", old + won, read, _GOOD, "+"),
        ("lost", top - lost, lost, _BAD, "−"),
        ("after", 0.0, new, _ACCENT, ""),
    ]
    height = 2.75
    with _drawing("gain", width, height) as (figure, file):
        left, right = 0.75, 0.75
        axes = figure.add_axes(
            (left / width, 0.4 / height, 1 - (left + right) / width, 1 - 0.45 / height)
        )
        for row, (name, start, length, colour, sign) in enumerate(bars):
            axes.barh(row, length, left=start, height=0.56, color=colour, clip_on=False)
            where = {"xycoords": "data", "textcoords": "offset points", "va": "center_baseline"}
            axes.annotate(
                f"{sign}{length:.1f}", (start + length, row), (6, 0), color=_TEXT, **where
            )
            axes.annotate(
                name, (0, row), (-left * 72, 0), color=_TEXT, annotation_clip=False, **where
            )
        ends = [start + (0 if name == "lost" else size) for name, start, size, _, _ in bars]
        for row, end in enumerate(ends[:-1]):
            thin = {"linewidth": 1, "zorder": 0, "clip_on": False}
            axes.plot([end, end], [row, row + 1], color=_LINE, **thin)
        axes.set_ylim(len(bars) - 0.5, -0.5)
        # Of the whole only as much as is needed: a small gain is still seen.
        axes.set_xlim(0, min(100, max(10, 10 * math.ceil(top / 10))))
        axes.set_yticks([])
        axes.xaxis.set_major_formatter("{x:.0f} %")
        _plain(axes, "x")
    return _inline(file.getvalue())


def controls_chart(controls: dict[str, Any], *, width: float) -> str | None:
    """The headline under each condition before and after, with intervals; None without figures.

    Args:
        controls: controls.json.
        width: in inches.
    """
    metric = controls["metric"]
    rows = [
        (one["title"], [(one.get(which) or {}).get(metric) for which in ("before", "after")])
        for one in controls["conditions"]
    ]
    rows = [(title, pair) for title, pair in rows if any(pair)]
    if not rows:
        return None
    above = width < _PHONE
    each, bottom = (0.62 if above else 0.44), 0.4
    height = each * len(rows) + bottom + 0.1
    with _drawing("controls", width, height) as (figure, file):
        left = 0.12 if above else 2.9
        axes = figure.add_axes(
            (left / width, bottom / height, 1 - (left + 0.3) / width, each * len(rows) / height)
        )
        for row, (title, pair) in enumerate(rows):
            for shift, colour, found in zip((-0.12, 0.12), (_FAINT, _ACCENT), pair, strict=True):
                if found:
                    y = row + shift + (0.18 if above else 0)
                    ends = [100 * found["low"], 100 * found["high"]]
                    line = {"linewidth": 2, "alpha": 0.6, "solid_capstyle": "round"}
                    axes.plot(ends, [y, y], color=colour, clip_on=False, **line)
                    dot = {"marker": "o", "markersize": 7, "clip_on": False}
                    axes.plot(100 * found["value"], y, color=colour, **dot)
            axes.annotate(
                textwrap.shorten(title, 44, placeholder=" …"),
                (0, row - (0.28 if above else 0)),
                (-left * 72 + 4, 0),
                textcoords="offset points",
                va="center_baseline",
                color=_TEXT,
                annotation_clip=False,
                parse_math=False,  # a title may hold a dollar sign
            )
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0, 100)
        axes.set_yticks([])
        axes.xaxis.set_major_formatter("{x:.0f} %")
        _plain(axes, "x")
    return _inline(file.getvalue())


@contextlib.contextmanager
def _drawing(name: str, width: float, height: float) -> Iterator[tuple[Any, io.StringIO]]:
    """An empty figure, and a file that holds it as SVG when the block has drawn."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    settings = {
        "svg.fonttype": "none",  # text stays text, in the page's font
        "svg.hashsalt": f"ragtune {name} {width}",  # else ids are drawn anew each time
        "font.size": 10.5,
        "axes.linewidth": 0.8,
    }
    file = io.StringIO()
    with mpl.rc_context(settings):
        figure = Figure(figsize=(width, height))
        yield figure, file
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)


def _plain(axes: Any, grid: str) -> None:
    """Axes of which only the grid and the numbers are seen."""
    axes.tick_params(length=0, colors=_MUTED, pad=6)
    axes.grid(axis=grid, color=_LINE, linewidth=0.8, clip_on=False)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)


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
