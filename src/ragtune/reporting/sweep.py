"""The points of a sweep, for a terminal and as a page for the browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from markupsafe import Markup

from ragtune.base.files import writing
from ragtune.base.screen.visible import in_line
from ragtune.reporting.tables import FigureTable
from ragtune.reporting.terminal import rate_cell
from ragtune.reporting.wording import package_text, rate, rendered
from ragtune.scoring.seeds import Spread
from ragtune.scoring.sweep import PointRow, Results


def sweep_table(results: Results) -> FigureTable:
    """The points, the best first."""
    metric = results["metric"]
    table = FigureTable(
        f"{metric} of {results['data']['held']:,} questions held apart, in % (95 % interval)",
        results["verdict"],
        ("point", metric, "each seed", "trained", "the best less this"),
    )
    for row in results["points"]:
        spread, behind = row["spread"], row["behind"]
        table.add_row(
            label_of(row),
            rate_cell(spread and spread["figure"]),
            seeds_of(spread),
            f"{row['share']:.0%}" if spread else "failed",
            rate_cell(behind["figure"], "+") if behind else "",
        )
    return table


def label_of(row: PointRow) -> str:
    """What a point changes of the recipe."""
    return in_line(", ".join(row["changes"]) or "the recipe as it is")


def seeds_of(spread: Spread | None) -> str:
    """Each seed's own figure."""
    return " ".join(rate(value) for value in spread["seeds"].values()) if spread else ""


def dev_lines(results: Results) -> Iterator[str]:
    """What the looks at the evaluation set gave."""
    for number, look in enumerate(results["looks"], 1):
        which = "" if len(results["looks"]) == 1 else f" (look {number})"
        row = next(row for row in results["points"] if row["name"] == look["point"])
        sides = ((name, look[name]) for name in ("before", "after"))
        words = ", ".join(
            f"{name} {rate_cell(one['figure'])} %" for name, one in sides if one is not None
        )
        n = look["after"]["n"] if look["after"] else 0
        seeds = f"each seed {seeds_of(look['after'])}"
        yield f"Evaluation set{which}, {n:,} questions, {label_of(row)}: {words}; {seeds}"


def write_page(path: Path, results: Results) -> None:
    """Write the table as one file that fetches nothing and runs nothing; everything from outside is escaped."""
    page = rendered(
        "sweep.html.j2",
        **results,
        label_of=label_of,
        seeds_of=seeds_of,
        style=Markup(package_text("report.css")),  # noqa: S704 - a file of this package
    )
    with writing(path) as file:
        file.write(page)
