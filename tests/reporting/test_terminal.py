"""The tables of the terminal lose nothing where it is narrow."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from rich.cells import cell_len

from ragtune.base.screen.console import Door
from ragtune.reporting.tables import FigureTable
from ragtune.reporting.terminal import (
    comparison_table,
    controls_table,
    differences_table,
    metrics_table,
    runs_table,
)
from ragtune.scoring.compare import Runs
from tests.reporting import made

NAMES = (
    "runs/quickstart/before",
    "runs/長い名前の実行/before",
    "runs/one-with-a-very-long-name-that-is-folded/after",
)
WIDTHS = (40, 50, 60, 80, 100, 120)


def figure(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.05, "high": value + 0.05}


def printed(table: FigureTable, width: int) -> list[str]:
    """The lines that are printed; none is wider than the terminal, in cells."""
    out = io.StringIO()
    console = Door()
    console.file, console.width = out, width
    console.print(table)
    lines = out.getvalue().splitlines()
    assert max(map(cell_len, lines)) <= width
    return lines


def told(table: FigureTable, width: int) -> list[str]:
    """What a table's columns hold, without its lines, breaks and spaces."""
    lines = printed(table, width)
    columns = zip(*(one.split("│") for one in lines if one.startswith("│")), strict=True)
    return ["".join(column).replace(" ", "") for column in columns]


def of_runs(names: Sequence[str], metric: str = "squad_em") -> FigureTable:
    one = {"difference": {metric: figure(0.1)}, "fixed": 1234, "broken": 5, "mcnemar_p": 0.03}
    runs = [{"name": name, "intervals": {metric: figure(0.5)}} for name in names]
    found = {"metric": metric, "n": 637, "answers": "all", "runs": runs}
    return runs_table(cast("Runs", found | {"comparisons": [one] * (len(names) - 1)}))


def of_controls() -> FigureTable:
    both = {"before": figure(0.1), "after": figure(0.2)}
    row = {
        "title": "distractors alone", "n": 100, "difference": {"squad_em": figure(0.1)},
        **{which: {"squad_em": found} for which, found in both.items()},
    }  # fmt: skip
    return controls_table(
        {
            "metric": "squad_em", "answers": "all", "conditions": [row, {**row, "after": None}],
            "effects": [{"title": "first less last", "n": 100, **both}],
        }
    )  # fmt: skip


def of_a_comparison() -> FigureTable:
    answers = [*made.rows(), made.unanswerable()]
    return comparison_table(made.compared(made.a_recipe(), answers))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("make", [lambda: of_runs(NAMES), of_controls, of_a_comparison])
def test_no_number_no_interval_and_no_word_is_split(
    make: Callable[[], FigureTable], width: int
) -> None:
    table = make()
    lines = printed(table, width)
    pieces = [piece for line in lines for piece in re.split(r"[ │┃]+", line)]
    figures = [cell for cells, _ in table.rows for cell in cells[1:]]
    names = [cells[0] for cells, _ in table.rows if cells[0] not in NAMES]
    for text in (*figures, *names, *table.columns[1:], table.title, table.caption):
        for word in text.split():
            assert word in pieces, (word, "\n".join(lines))


@pytest.mark.parametrize("width", WIDTHS)
def test_long_texts_are_folded_and_not_cut(width: int) -> None:
    text = "日本の首都はどこですか？" * 4
    table = FigureTable("", "", ("key", NAMES[2], "two"))
    table.add_row("prompt.template", text, "1,234.5678")
    lines = printed(table, width)
    told = "".join(re.sub(r"[ │┃]+", " ", line) for line in lines)
    assert sum(told.count(c) for c in "首都") >= 8
    assert "1,234.5678" in told


@pytest.mark.parametrize("width", [80, 120])
def test_runs(width: int) -> None:
    columns = told(of_runs(NAMES), width)
    assert columns[1] == "".join(NAMES)
    assert columns[2:4] == ["50.0(45.0…55.0)" * 3, "+10.0(+5.0…+15.0)" * 2]


def test_where_it_is_narrow_rows_stand_below_each_other() -> None:
    lines = printed(of_runs(NAMES[:2]), 50)
    assert [line.rstrip() for line in lines] == [
        "squad_em, 637 questions in common, in % (95 %",
        "interval)",
        "runs/quickstart/before",
        "  squad_em          50.0 (45.0…55.0)",
        "runs/長い名前の実行/before",
        "  squad_em          50.0 (45.0…55.0)",
        "  less the first  +10.0 (+5.0…+15.0)",
        "  fixed                        1,234",
        "  broken                           5",
        "  p                             0.03",
        "accepted answers: all",
    ]


def test_controls() -> None:
    columns = told(of_controls(), 120)
    assert columns[1] == "distractorsalone" * 2 + "firstlesslast"
    assert columns[3] == "10.0(5.0…15.0)" * 2 + "+10.0(+5.0…+15.0)"


def test_a_name_in_brackets_and_a_graded_headline() -> None:
    table = of_runs(["runs/ex[a]", "runs/ex[/b]"], "token_f1")
    assert told(table, 100)[1] == "runs/ex[a]runs/ex[/b]"
    assert table.columns[3:5] == ("better", "worse")


def test_where_recipes_differ() -> None:
    runs: Any = {"runs": [{"name": "runs/a"}, {"name": "runs/[b]"}], "differs": {}}
    assert differences_table(runs) is None
    runs["differs"] = {"train.learning_rate": [0.1, 0.2], "data.refusal": ["[/red]", None]}
    table = differences_table(runs)
    assert told(table, 60)[1:4] == ["train.learning_ratedata.refusal", "0.1'[/red]'", "0.2null"]


def test_refusals_are_in_the_tables() -> None:
    answers = [*made.rows(), made.unanswerable()]
    comparison = made.compared(made.a_recipe(), answers)
    columns = told(comparison_table(comparison), 120)
    assert "refused,noanswerthere,n1refused,ananswerthere,n4CRAG'sscore,-100to100,n5" in columns[1]
    alone = dict(comparison["all"], intervals=comparison["all"]["intervals"]["after"])
    metrics = {
        "n": 4, "answers": "all", "all": alone, "intervals": comparison["intervals"]["after"],
        "refusals": comparison["refusals"]["after"],
    }  # fmt: skip
    assert "refused,noanswerthere,n1" in told(metrics_table(metrics), 120)[1]
    del metrics["refusals"]
    assert "refused" not in told(metrics_table(metrics), 120)[1]


def test_citations_are_in_the_tables() -> None:
    comparison = made.compared(made.a_recipe(), made.rows())
    assert "itation" not in told(comparison_table(comparison), 120)[1]
    comparison["citations"] = {"before": None, "after": made.citation_figures()}
    name, before, after, difference = told(comparison_table(comparison), 120)[1:5]
    assert "CitationrecallCitationprecisionAnswersthatcitecitationsofnopassage" in name
    assert before.endswith("–––––")
    assert after.endswith("75.0(50.0…90.0)60.0(40.0…80.0)90.0(80.0…100.0)21,234")
    assert "(50.0…90.0)" not in difference
    metrics = {
        "n": 4, "answers": "all", "intervals": comparison["intervals"]["after"],
        "all": dict(comparison["all"], intervals=comparison["all"]["intervals"]["after"]),
        "citations": made.citation_figures(),
    }  # fmt: skip
    assert told(metrics_table(metrics), 120)[2].endswith("21,234")


def test_quotes_are_in_the_tables() -> None:
    comparison = made.compared(made.a_recipe(), made.rows())
    comparison["quotes"] = {"before": None, "after": made.quote_figures()}
    name, before, after, difference = told(comparison_table(comparison), 120)[1:5]
    assert "AnswersbehindaquoteQuotesthatstandinapassage" in name
    assert before.endswith("–––––")
    assert after.endswith("50.0(25.0…75.0)6171,234")
    assert "(25.0…75.0)" not in difference
    metrics = {
        "n": 4, "answers": "all", "intervals": comparison["intervals"]["after"],
        "all": dict(comparison["all"], intervals=comparison["all"]["intervals"]["after"]),
        "quotes": made.quote_figures(),
    }  # fmt: skip
    assert told(metrics_table(metrics), 120)[2].endswith("6171,234")


def test_answers_that_were_cut_off_are_counted() -> None:
    found = made.compared(made.a_recipe(), made.rows())
    assert "cutoff" not in told(comparison_table(found), 100)[1]
    found["cut"] = {"before": 3, "after": 1}
    name, before, after, difference = told(comparison_table(found), 100)[1:5]
    assert "answerscutoff(number)" in name
    assert ")3" in before
    assert ")1" in after
    assert ")-2" in difference


def test_what_was_not_asked_makes_no_bound_of_a_difference() -> None:
    """Before and after it counts as wrong, so these are lower bounds; their difference may be either way."""
    found = made.compared(made.a_recipe(), made.rows(), unasked=2)
    text = " ".join(" ".join(printed(comparison_table(found), 120)).split())
    assert "all 6 " in text
    assert "at least" not in text
    assert (
        "of all 6 the 2 not asked count as wrong, also in the intervals: before and after are lower "
        "bounds, the difference is no bound" in text
    )
    assert "not asked" not in " ".join(printed(of_a_comparison(), 120))
