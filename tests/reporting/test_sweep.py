"""The table of a sweep, in a terminal and as a page; what comes from outside stays text."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from ragtune.reporting.sweep import dev_lines, sweep_table, verdict, write_page
from ragtune.scoring.seeds import Spread
from ragtune.scoring.sweep import Dev, PointRow, Results


def spread(value: float) -> Spread:
    figure = {"value": value, "low": value - 0.05, "high": value + 0.05}
    return {"figure": figure, "n": 100, "seeds": {"1": value, "2": value}, "deviation": 0.0}  # type: ignore[typeddict-item]


def row(
    name: str, value: float | None, share: float = 1.0, *, behind: float | None = None
) -> PointRow:
    return {
        "name": name,
        "changes": [f"prompt.system=<script>{name}\x1b[31m"],
        "share": share,
        "spread": None if value is None else spread(value),
        "answerable": None,
        "behind": None if behind is None else spread(behind),
        "missing": [],
        "apart": False,
        "problems": [] if value is not None else ["run: <b>no room</b>"],
    }


RESULTS: Results = {
    "name": "tiny",
    "by": "strict_em",
    "metric": "strict_em",
    "answers": "all",
    "seeds": [1, 2],
    "questions": 90,
    "data": {"held": 100, "train": 900, "left_out": 3},
    "points": [row("a", 0.5), row("b", 0.4, behind=0.1), row("c", 0.2, 0.25), row("d", None, 0.0)],
    "best": "a",
    "winner": None,
    "verdict": "a has the highest figure; not told apart from it: b.",
    "looks": [
        {
            "point": "a", "before": spread(0.1), "after": spread(0.6), "difference": spread(0.5),
            "answerable": None,
        }
    ],
}  # fmt: skip


def test_the_table_has_every_point_and_what_became_of_it() -> None:
    console = Console(width=160, record=True, file=Path("/dev/null").open("w"), color_system=None)  # noqa: SIM115
    console.print(sweep_table(RESULTS))
    text = console.export_text()
    for words in (
        "50.0 (45.0…55.0)",
        "+10.0 (+5.0…+15.0)",
        "90 questions held apart",
        "25%",
        "failed",
        "not told apart from it: b",
    ):
        assert words in text
    assert "\x1b" not in text
    (line,) = dev_lines(RESULTS)
    assert "100 questions" in line
    assert "before 10.0 (5.0…15.0) %, after 60.0 (55.0…65.0) %; each seed 60.0 60.0" in line


def test_the_page_is_one_file_that_runs_nothing(tmp_path: Path) -> None:
    write_page(tmp_path / "report.html", RESULTS)
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;a" in page
    assert "&lt;b&gt;no room" in page
    assert "\x1b" not in page
    for words in ("50.0", "25%", "failed", "900 examples were trained", "100 questions"):
        assert words in page
    assert "times, since a wider grid" not in page
    twice: Results = {**RESULTS, "looks": RESULTS["looks"] * 2}
    write_page(tmp_path / "report.html", twice)
    assert "2 times, since a wider grid" in (tmp_path / "report.html").read_text("utf-8")
    one: Results = {**RESULTS, "data": {"held": 100, "train": 1, "left_out": 1}}
    write_page(tmp_path / "report.html", one)
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "1 example was trained, 1 left out because it shares an article with those." in page
    never: Results = {**RESULTS, "looks": []}
    write_page(tmp_path / "report.html", never)
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "It was not looked at." in page
    assert "Looked at with" not in page


def test_a_point_that_misses_a_seed_is_said(tmp_path: Path) -> None:
    lost: PointRow = {**row("b", 0.9), "missing": [2]}
    rows = [row("a", 0.5), row("c", 0.4, behind=0.1), lost]
    (label,) = lost["changes"]
    assert f"ranked last: {label}" in verdict(rows, 2)
    assert "nothing is called better" in verdict([lost], 2)
    assert "ranked last" not in verdict(rows[:2], 2)
    write_page(tmp_path / "report.html", {**RESULTS, "points": rows})
    assert "100%, 1 of 2 seeds" in (tmp_path / "report.html").read_text("utf-8")


def test_it_is_said_where_nothing_was_to_be_refused() -> None:
    rows = [row("a", 0.5), row("c", 0.4, behind=0.1)]
    words = "which point refuses rightly is not known"
    some: Spread = {**spread(0.7), "n": 60}
    for answerable, said in ((None, False), (some, False), (spread(0.7), True)):
        rows[0]["answerable"] = answerable
        assert (words in verdict(rows, 2)) == said


def test_the_page_says_where_a_wrong_answer_costs(tmp_path: Path) -> None:
    write_page(tmp_path / "report.html", RESULTS)
    assert "CRAG" not in (tmp_path / "report.html").read_text("utf-8")
    rows: list[PointRow] = [{**row("a", -0.5), "answerable": spread(0.7)}, row("b", None, 0.0)]
    look: Dev = {**RESULTS["looks"][0], "answerable": RESULTS["looks"][0]}
    results: Results = {**RESULTS, "by": "crag", "points": rows, "looks": [look]}
    write_page(tmp_path / "report.html", results)
    page = (tmp_path / "report.html").read_text("utf-8")
    for words in (
        '<th scope="col">CRAG’s score over all that were asked</th>',
        "<td>−50.0<small>",
        "<td>−50.0 −50.0</td>",
        "Exact match, strict, of those that can be answered",
        "a refusal 0, a wrong answer −1",
        "By this points are ranked, stopped early and compared",
        "%, of those that can be answered, n = 100",
    ):
        assert words in page
