"""What the functions return: plain values, which a notebook shows as tables in which every text is text."""

from __future__ import annotations

import copy
import json
import os
import pickle
import re
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import ragtune
from ragtune.data.example import Example, Passage
from ragtune.reporting.answers import AnswerRow, answer_rows
from ragtune.reporting.shown import AnsweredQuestions, as_table
from ragtune.reporting.tables import FigureTable
from tests.reporting.made import a_recipe

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
            "passages": [HOSTILE],
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


RAGAS = ("user_input", "response", "retrieved_contexts", "reference")
DEEPEVAL = ("input", "actual_output", "retrieval_context", "expected_output")


class Sample(SimpleNamespace):
    """In the place of what Ragas and DeepEval make of a question, where they are not installed."""

    def __init__(self, **fields: Any) -> None:
        assert tuple(fields) in {RAGAS, DEEPEVAL}
        super().__init__(**fields)

    @classmethod
    def from_list(cls, rows: list[dict[str, Any]]) -> list[Sample]:
        return [cls(**row) for row in rows]


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether Ragas and DeepEval are here themselves: `make evaluators` has them, and fails without."""
    monkeypatch.setenv("DEEPEVAL_DISABLE_DOTENV", "1")  # else it reads keys from a file above
    members = {"ragas": "EvaluationDataset", "deepeval.test_case": "LLMTestCase"}
    try:
        for name in members:
            import_module(name)
    except ImportError:
        if "REAL_EVALUATORS" in os.environ:
            raise
        for name, member in members.items():
            module = ModuleType(name)
            setattr(module, member, Sample)
            monkeypatch.setitem(sys.modules, name.partition(".")[0], module)
            monkeypatch.setitem(sys.modules, name, module)
        return False
    return True


def test_what_the_page_makes_of_them_for_ragas_and_deepeval(
    monkeypatch: pytest.MonkeyPatch, real: bool
) -> None:
    asked: list[str] = []

    def answers(run: str, n: int) -> AnsweredQuestions:
        asked.append(run)
        passages = (Passage("In Paris."), Passage("Rome."))
        known = AnswerRow("q1", "Where?", ("Paris", "paris"), passages, None, "Paris", False, True)
        return AnsweredQuestions(
            [known, AnswerRow("q2", "Who?", (), (), None, "no", False, True)], "m"
        )

    monkeypatch.setattr(ragtune, "answers", answers, raising=False)
    page = (Path(__file__).parents[2] / "docs/evaluation.md").read_text("utf-8")
    part = page.partition("## Ragas and DeepEval")[2].partition("\n## ")[0]
    found: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", part, re.DOTALL):
        exec(code, found)
    assert asked == ["runs/my-run"] * 2
    for made, fields in ((found["dataset"], RAGAS), (found["cases"], DEEPEVAL)):
        assert [[getattr(one, field) for field in fields] for one in made] == [
            ["Where?", "Paris", ["In Paris.", "Rome."], "Paris"], ["Who?", "no", [], None],
        ]  # fmt: skip
    if real:
        require_measurable(found["dataset"], found["cases"])


def require_measurable(dataset: Any, cases: list[Any]) -> None:
    """A metric of each that asks no model takes what the page makes."""
    from deepeval.metrics import ExactMatchMetric
    from ragas import evaluate
    from ragas.metrics import ExactMatch

    scores = evaluate(dataset, [ExactMatch()], show_progress=False, allow_nest_asyncio=False)
    assert scores["exact_match"] == [1, 0]
    assert ExactMatchMetric().measure(cases[0], _show_indicator=False) == 1


def test_the_passages_are_those_of_the_prompt() -> None:
    passages = tuple(Passage(f"text {i}") for i in range(4))
    example = Example("q", "?", ("a",), passages, (0,), (), {"selected": True})
    (whole,) = answer_rows(a_recipe(), [example], {}, {}, {})
    shown = a_recipe().data.max_passages
    assert [p.text for p in whole.passages] == [f"text {i}" for i in range(min(4, shown))]
    cut = replace(example, extra={"selected": True, "left_in_prompt": [[0, 6], [1, 4]]})
    (short,) = answer_rows(a_recipe(), [cut], {}, {}, {})
    assert [p.text for p in short.passages] == ["text 0", "text"]
