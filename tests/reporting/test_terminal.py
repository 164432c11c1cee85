"""The tables of the terminal lose nothing where it is narrow."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from ragtune.reporting.terminal import comparison_table, controls_table, metrics_table, runs_table
from tests.reporting import made

NAMES = ("runs/quickstart/before", "runs/one-with-a-long-name/after")


def figure(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.05, "high": value + 0.05}


def told(table: Any, width: int) -> list[str]:
    """What a table's columns hold, without its lines, breaks and spaces."""
    out = io.StringIO()
    Console(file=out, width=width).print(table)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    columns = zip(*(one.split("│") for one in lines if one.startswith("│")), strict=True)
    return ["".join(column).replace(" ", "") for column in columns]


@pytest.mark.parametrize("width", [50, 60, 80, 120])
def test_runs(width: int) -> None:
    table = runs_table(
        {
            "metric": "squad_em", "n": 637, "answers": "all",
            "runs": [{"name": name, "intervals": {"squad_em": figure(0.5)}} for name in NAMES],
            "comparisons": [
                {"difference": {"squad_em": figure(0.1)}, "fixed": 10, "broken": 5, "mcnemar_p": 0.03}
            ],
        }
    )  # fmt: skip
    assert told(table, width)[1:4] == ["".join(NAMES), "50.0(45.0…55.0)" * 2, "+10.0(+5.0…+15.0)"]


@pytest.mark.parametrize("width", [50, 80, 120])
def test_controls(width: int) -> None:
    both = {"before": figure(0.1), "after": figure(0.2)}
    row = {
        "title": "distractors alone", "n": 100, "difference": {"squad_em": figure(0.1)},
        **{which: {"squad_em": found} for which, found in both.items()},
    }  # fmt: skip
    table = controls_table(
        {
            "metric": "squad_em", "answers": "all", "conditions": [row],
            "effects": [{"title": "first less last", "n": 100, **both}],
        }
    )  # fmt: skip
    columns = told(table, width)
    assert columns[1] == "distractorsalonefirstlesslast"
    assert columns[3] == "10.0(5.0…15.0)+10.0(+5.0…+15.0)"


def test_a_name_in_brackets_and_a_graded_headline() -> None:
    table = runs_table(
        {
            "metric": "token_f1", "n": 6, "answers": "all",
            "runs": [{"name": f"runs/ex[{x}]", "intervals": {"token_f1": figure(0.5)}} for x in ("a", "/b")],
            "comparisons": [
                {"difference": {"token_f1": figure(0.1)}, "fixed": 1, "broken": 2, "mcnemar_p": 0.3}
            ],
        }
    )  # fmt: skip
    assert told(table, 100)[1] == "runs/ex[a]runs/ex[/b]"
    assert [column.header for column in table.columns][3:5] == ["better", "worse"]


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


def test_answers_that_were_cut_off_are_counted() -> None:
    found = made.compared(made.a_recipe(), made.rows())
    assert "cutoff" not in told(comparison_table(found), 100)[1]
    found["cut"] = {"before": 3, "after": 1}
    name, before, after, difference = told(comparison_table(found), 100)[1:5]
    assert "answerscutoff(number)" in name
    assert ")3" in before
    assert ")1" in after
    assert ")-2" in difference
