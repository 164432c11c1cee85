"""The points of a sweep, for a terminal and as a page for the browser."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from markupsafe import Markup

from ragtune.base.files import writing
from ragtune.base.screen.visible import in_line
from ragtune.base.text import one_or_many
from ragtune.reporting.tables import FigureTable
from ragtune.reporting.terminal import rate_cell
from ragtune.reporting.wording import package_text, points, rate, rendered
from ragtune.scoring.seeds import Spread
from ragtune.scoring.sweep import CRAG, PointRow, Results, Sides


def sweep_table(results: Results) -> FigureTable:
    """The points, the best first."""
    metric, crag = results["metric"], results["by"] == CRAG
    asked = one_or_many(results["questions"], "question", "questions")
    title, figure = (
        f"{metric} of {asked} held apart, in %",
        metric,
    )
    if crag:
        title = (
            f"CRAG's score over all {asked} asked of those held apart: +100 for a right answer, 0 for "
            f"a refusal, -100 for a wrong one; {metric} of those that can be answered, in %"
        )
        figure = "CRAG's score"
    heads = ("point", figure, "each seed", *[metric] * crag, "trained", "the best less this")
    table = FigureTable(f"{title} (95 % interval)", results["verdict"], heads)
    for row in results["points"]:
        behind = row["behind"]
        table.add_row(
            label_of(row),
            _cell(row["spread"], "+" if crag else ""),
            seeds_of(row["spread"], crag=crag),
            *[_cell(row["answerable"])] * crag,
            trained(row, len(results["seeds"])),
            _cell(behind, "+") if behind else "",
        )
    return table


def _cell(spread: Spread | None, sign: str = "") -> str:
    """A figure with its interval, or a dash."""
    return rate_cell(spread and spread["figure"], sign)


def trained(row: PointRow, seeds: int) -> str:
    """How far a point was trained, and with how many seeds if that isn't all."""
    if not row["spread"]:
        return "failed"
    lost = f", {seeds - len(row['missing'])} of {seeds} seeds" if row["missing"] else ""
    return f"{row['share']:.0%}{lost}"


def label_of(row: PointRow) -> str:
    """What a point changes of the recipe."""
    return in_line(_plain(row))


def seeds_of(spread: Spread | None, *, crag: bool = False) -> str:
    """Each seed's own figure; CRAG's score with its sign."""
    return " ".join(map(points if crag else rate, spread["seeds"].values())) if spread else ""


def dev_lines(results: Results) -> Iterator[str]:
    """What the looks at the evaluation set gave."""
    metric, crag = results["metric"], results["by"] == CRAG
    for number, look in enumerate(results["looks"], 1):
        which = "" if len(results["looks"]) == 1 else f" (look {number})"
        row = next(row for row in results["points"] if row["name"] == look["point"])
        n = look["after"]["n"] if look["after"] else 0
        words = f"CRAG's score {_sides(look, '+')}" if crag else _sides(look, "", " %")
        line = f"Evaluation set{which}, {one_or_many(n, 'question', 'questions')}, {label_of(row)}: {words}"
        line += f"; each seed {seeds_of(look['after'], crag=crag)}"
        if (found := look["answerable"]) and found["after"]:
            of = f"{metric} of the {found['after']['n']:,} that can be answered"
            line += f"; {of}: {_sides(found, '', ' %')}"
        yield line


def _sides(sides: Sides, sign: str, unit: str = "") -> str:
    both = (("before", sides["before"]), ("after", sides["after"]))
    return ", ".join(f"{name} {_cell(one, sign)}{unit}" for name, one in both if one)


def write_page(path: Path, results: Results) -> None:
    """Write the table as one file that fetches nothing and runs nothing; everything from outside is escaped."""
    page = rendered(
        "sweep.html.j2",
        **results,
        label_of=label_of,
        trained=trained,
        seeds_of=seeds_of,
        style=Markup(package_text("report.css")),  # noqa: S704 - a file of this package
    )
    with writing(path) as file:
        file.write(page)


def verdict(rows: Sequence[PointRow], seeds: int) -> str:
    """What the table says, in a sentence or two.

    Args:
        rows: the best first.
        seeds: with how many each point was to be trained.
    """
    ended = [row for row in rows if row["share"] == 1 and row["spread"]]
    if not ended:
        return "No run came to its end."
    lost = [_plain(row) for row in ended if row["missing"]]
    if len(lost) == len(ended):
        return (
            f"No point has a figure of every seed, so nothing is called better: {'; '.join(lost)}."
        )
    more = (
        f" Not every seed came to its end, and so ranked last: {'; '.join(lost)}." if lost else ""
    )
    return _verdict(ended, seeds) + more + _untried(ended[0])


def _verdict(ended: Sequence[PointRow], seeds: int) -> str:
    """Of points that were trained to the end, of which the first has all seeds."""
    label = _plain(ended[0])
    if len(ended) == 1:
        return f"{label} alone was trained to the end."
    if seeds == 1:
        return (
            f"{label} has the highest figure, with one seed: what another seed would give is not known, so "
            "nothing is called better. --seeds 3 tells."
        )
    behind = ended[1]["behind"]
    if behind is not None and ended[1]["apart"]:
        figure = behind["figure"]
        low, high = points(figure["low"]), points(figure["high"])
        return (
            f"{label} is better than the runner-up by {points(figure['value'])} points ({low} … {high}), "
            f"over {one_or_many(behind['n'], 'question', 'questions')} and "
            f"{one_or_many(len(behind['seeds']), 'seed')}."
        )
    alike = [_plain(row) for row in ended[1:] if not row["apart"]]
    return f"{label} has the highest figure; not told apart from it: {'; '.join(alike)}."


def _untried(row: PointRow) -> str:
    """Whether nothing was asked that is to be refused, where points are ranked by CRAG's score."""
    figure, answerable = row["spread"], row["answerable"]
    if figure is None or answerable is None or answerable["n"] < figure["n"]:
        return ""
    return (
        " Each of these questions can be answered, so which point refuses rightly is not known: data.train "
        "needs questions without an answer (answers: [])."
    )


def _plain(row: PointRow) -> str:
    """`label_of`, for what is made safe where it is shown."""
    return ", ".join(row["changes"]) or "the recipe as it is"
