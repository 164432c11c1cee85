"""The figures for the terminal."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from ragtune.reporting.wording import CUT, GRADED, REFUSALS, probability


def comparison_table(comparison: dict[str, Any]) -> Table:
    """Before, after and difference, each with its 95 % interval, in %."""
    up, down = _changes(comparison["metric"])
    table = Table(
        title=f"{comparison['n']} questions, in % (95 % interval)",
        caption=(
            f"by {comparison['metric']}, accepted answers: {comparison['answers']}; "
            f"{comparison['fixed']} {up}, {comparison['broken']} {down} "
            f"(McNemar's {probability(comparison['mcnemar_p'])}); "
            f"{comparison['changed']} answers changed"
        ),
    )
    for name in ("metric", "before", "after", "difference"):
        table.add_column(name, **_column(first=name == "metric"))
    for metric, difference in comparison["difference"].items():
        mark = "bold" if metric == comparison["metric"] else ""
        cells = [_with_interval(comparison["intervals"][w][metric]) for w in ("before", "after")]
        table.add_row(metric, *cells, _with_interval(difference, sign="+"), style=mark)
    table.add_section()
    whole, metric = comparison["all"], comparison["metric"]
    cells = [_with_interval(whole["intervals"][w][metric]) for w in ("before", "after")]
    change = _with_interval(whole["intervals"]["difference"][metric], sign="+")
    table.add_row(f"{metric}, {_of_all(whole)}", *cells, change)
    cut = comparison["cut"]
    if None not in cut.values():
        before, after = cut["before"], cut["after"]
        table.add_row(CUT, f"{before:,}", f"{after:,}", f"{after - before:+,}")
    found = comparison["refusals"] or {}
    _add_refusals(table, *(found.get(which, {}) for which in _WHICH))
    return table


def _changes(metric: str) -> tuple[str, str]:
    """What answers became, by a metric."""
    return ("better", "worse") if metric in GRADED else ("fixed", "broken")


def _add_refusals(table: Table, *sides: dict[str, Any]) -> None:
    """Refusals where there was no answer, and where there was one, and CRAG's score, side by side."""
    kinds = [kind for kind in REFUSALS if any(kind in side for side in sides)]
    if kinds:
        table.add_section()
    for kind in kinds:
        n = next(side[kind]["n"] for side in sides if "n" in side.get(kind, {}))
        cells = (
            _or_dash(side.get(kind), "+" if kind == "crag" or place == _DIFFERENCE else "")
            for place, side in enumerate(sides)
        )
        table.add_row(f"{_REFUSED[kind]}, n {n:,}", *cells)


def metrics_table(metrics: dict[str, Any]) -> Table:
    """Metrics.json: each metric over the answerable questions and over all, in %."""
    table = Table(title="in % (95 % interval)", caption=f"accepted answers: {metrics['answers']}")
    table.add_column("metric", **_column(first=True))
    for title in (f"{metrics['n']:,} answerable", _of_all(metrics["all"])):
        table.add_column(title, **_column(first=False))
    for metric, figure in metrics["intervals"].items():
        whole = metrics["all"]["intervals"][metric]
        table.add_row(metric, _with_interval(figure), _with_interval(whole))
    if metrics.get("cut") is not None:
        table.add_row(CUT, f"{metrics['cut']:,}", "")
    _add_refusals(table, {}, metrics.get("refusals", {}))
    return table


def _of_all(whole: dict[str, Any]) -> str:
    bound = " (at least)" if whole["lower_bound"] else ""
    return f"all {whole['n']:,}{bound}"


def runs_table(result: dict[str, Any]) -> Table:
    """Runs against the first of them, by the headline metric, in %."""
    metric = result["metric"]
    table = Table(
        title=f"{metric}, {result['n']} questions in common, in % (95 % interval)",
        caption=f"accepted answers: {result['answers']}",
    )
    for name in ("run", metric, "less the first", *_changes(metric), "p"):
        table.add_column(name, **_column(first=name == "run"))
    first, *others = result["runs"]
    table.add_row(escape(first["name"]), _with_interval(first["intervals"][metric]), "", "", "", "")
    for one, found in zip(others, result["comparisons"], strict=True):
        table.add_row(
            escape(one["name"]),
            _with_interval(one["intervals"][metric]),
            _with_interval(found["difference"][metric], sign="+"),
            str(found["fixed"]),
            str(found["broken"]),
            f"{found['mcnemar_p']:.2g}",
        )
    return table


def controls_table(controls: dict[str, Any]) -> Table:
    """The headline metric of every control, before and after, in %."""
    metric = controls["metric"]
    table = Table(
        title=f"{metric} with other passages, in % (95 % interval)",
        caption=f"accepted answers: {controls['answers']}",
    )
    for name in ("passages", "n", "before", "after", "difference"):
        table.add_column(name, **_column(first=name == "passages"))
    rows = [
        (one["title"], one["n"], *(one[w] and one[w][metric] for w in _WHICH))
        for one in controls["conditions"]
    ]
    for title, n, before, after, difference in rows:
        table.add_row(title, str(n), *map(_or_dash, (before, after)), _or_dash(difference, "+"))
    table.add_section()
    for one in controls["effects"]:
        cells = (_or_dash(one[w], "+") for w in ("before", "after"))
        table.add_row(one["title"], str(one["n"]), *cells, "")
    return table


def _column(*, first: bool) -> dict[str, Any]:
    """Figures to the right; what is too long for the terminal goes on in the next line."""
    return {"justify": "left" if first else "right", "overflow": "fold"}


_REFUSED = {
    "unanswerable": "refused, no answer there",
    "answerable": "refused, an answer there",
    "crag": "CRAG's score, -100 to 100",
}
_WHICH = ("before", "after", "difference")
_DIFFERENCE = 2


def _or_dash(figure: dict[str, float] | None, sign: str = "") -> str:
    return _with_interval(figure, sign) if figure else "–"


def _with_interval(figure: dict[str, float], sign: str = "") -> str:
    value, low, high = (f"{100 * figure[k]:{sign}.1f}" for k in ("value", "low", "high"))
    return f"{value} ({low}…{high})"
