"""The figures for the terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from ragtune.reporting.wording import GRADED, probability


def comparison_table(comparison: dict[str, Any]) -> Table:
    """Before, after and difference, each with its 95 % interval, in %."""
    up, down = ("better", "worse") if comparison["metric"] in GRADED else ("fixed", "broken")
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
        table.add_column(name, justify="left" if name == "metric" else "right")
    for metric, difference in comparison["difference"].items():
        mark = "bold" if metric == comparison["metric"] else ""
        cells = [_with_interval(comparison["intervals"][w][metric]) for w in ("before", "after")]
        table.add_row(metric, *cells, _with_interval(difference, sign="+"), style=mark)
    return table


def _with_interval(figure: dict[str, float], sign: str = "") -> str:
    value, low, high = (f"{100 * figure[k]:{sign}.1f}" for k in ("value", "low", "high"))
    return f"{value} ({low} … {high})"
