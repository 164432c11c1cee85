"""What the functions return: plain values, which a notebook shows as tables in which every text is text."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from ragtune.data.example import Passage
from ragtune.reporting.answers import AnswerRow
from ragtune.reporting.shown import AnsweredQuestions, as_table
from ragtune.reporting.tables import FigureTable

HOSTILE = "<img src=x onerror=alert(1)>\n\x1b[31m"
ESCAPED = "&lt;img src=x onerror=alert(1)&gt;"


def row(before: str | None, after: str | None, *right: bool) -> AnswerRow:
    return AnswerRow(
        "q1", HOSTILE, (HOSTILE, "red"), (Passage(HOSTILE, HOSTILE),), before, after, *right
    )


def test_answers_stand_side_by_side() -> None:
    found = AnsweredQuestions([row("blue", HOSTILE, False, True)], "squad_em")
    assert json.loads(json.dumps(found)) == [
        {
            "qid": "q1",
            "question": HOSTILE,
            "answers": [HOSTILE, "red"],
            "before": "blue",
            "after": HOSTILE,
            "before_right": False,
            "after_right": True,
        }
    ]
    page = found._repr_html_()
    assert page.count(ESCAPED) == 3
    assert "\x1b" not in page + repr(found)
    assert "1 question; right by squad_em: 0 before, 1 after" in page
    assert "✗ blue" in page
    assert repr(found).splitlines()[2:] == [
        "    before: ✗ blue",
        "    after: ✓ <img src=x onerror=alert(1)>⏎\\x1b[31m",
        "1 question; right by squad_em: 0 before, 1 after",
    ]


@pytest.mark.parametrize(
    ("sides", "heads"),
    [(("a", None), ["before"]), ((None, "a"), ["after"]), ((None, None), [])],
)
def test_of_what_there_is_not_nothing_is_said(
    sides: tuple[str | None, str | None], heads: list[str]
) -> None:
    found = AnsweredQuestions([row(*sides, False, False)], "squad_em")
    page = found._repr_html_()
    assert [head for head in ("before", "after") if f">{head}</th>" in page] == heads
    assert [found[0]["before_right"], found[0]["after_right"]].count(False) == len(heads)


def test_none() -> None:
    found = AnsweredQuestions([], "squad_em")
    assert repr(found) == "0 questions; right by squad_em: none"
    assert "0 questions" in found._repr_html_()


def test_figures_are_a_mapping_still() -> None:
    table = FigureTable("figures", "", ("metric", "value"))
    table.add_row("<b>", "1.0")
    figures = {"n": 1, "metrics": {"squad_em": 0.5}}
    found = as_table(figures, table)
    assert found == figures
    assert repr(found) == repr(figures)
    assert json.dumps(found) == json.dumps(figures)
    for other in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert other == figures
        assert "&lt;b&gt;" in other._repr_html_()
