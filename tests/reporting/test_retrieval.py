"""What a build found, in the report, in the summary and in the terminal."""

from __future__ import annotations

import copy
import dataclasses
import html
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len

from ragtune.base.errors import UsageError
from ragtune.base.screen import console as screen
from ragtune.building.figures import read_built
from ragtune.building.retrieval.compare import verdicts
from ragtune.data.example import Example, Passage, Place
from ragtune.reporting.building import (
    comparison_table,
    figures_table,
    show_figures,
    show_question,
)
from ragtune.reporting.markdown import summary
from ragtune.reporting.tables import FigureTable
from ragtune.reporting.wording import rendered
from tests.reporting import made
from tests.reporting.test_terminal import printed, told

WIDTHS = (50, 80, 120)


def section(page: str, name: str = "retrieval") -> str:
    """The text of a section, without its elements."""
    found = re.search(rf'<section id="{name}">(.*?)</section>', page, re.DOTALL)
    assert found
    text = re.sub(r"</?(bdi|b|small|span|code)[^>]*>", "", found[1])
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", "\n", text)))


def report(tmp_path: Path, **changes: Any) -> str:
    return made.render(tmp_path, **changes).read_text("utf-8")


def test_the_section_of_a_build(tmp_path: Path) -> None:
    built = made.a_build()
    page = report(tmp_path, builds={"train": built, "eval": built})
    assert '<a href="#retrieval">Retrieval</a>' in page
    text = section(page)
    for words in (
        "made the examples of 41 documents, cut into 12,345 passages. Retrieved by: lexical.",
        "An answer stands in itAs written, at word borders. 1,200 85.183.1 … 87.1 94.7",
        "It is the one that the question names",
        "An answer stands in it, synthetic questions",
        "Characters of a passage 20 to 400, median 371.5",
        "1,100 for training, 200 for evaluation",
        "Kept by the selection, training examples 45.0 % (9 of 20)",
        "Kept by the selection, evaluation questions 45.0 % (9 of 20)",
        "Questions left out: have no answer 9",
        "Licence, as stated for the corpus CC BY 4.0",
        "100 of the questions for training and 0 of those for evaluation were written by a model, gemma,",
        "Questions that no retrieved passage answers3 of 1,300",
        "Grundig · G – stands elsewhere in the corpus",
        "nearest: Pumps Before the first start …",
        "q7 · manual.pdf, p. 12",
        "東京 – stands nowhere in the corpus",
        "Documents that answer no question7 of 41",
        "Passages that are there again42 of 12,345",
        "pump.pdf, p. 3 and old/pump.pdf, p. 2",
        "Evaluation passages that are trained, too1 of 200",
        "scan.pdfit has no text",
    ):
        assert words in text, words
    assert text.count("What ragtune build found") == 1  # both splits are of one corpus


def test_splits_of_two_corpora_are_told_one_by_one(tmp_path: Path) -> None:
    other = made.a_build(name="letters", seal={"eval.jsonl": "0" * 64}, license=None)
    text = section(report(tmp_path, builds={"train": made.a_build(), "eval": other}))
    assert "manuals: training examples" in text
    assert "letters: evaluation questions" in text
    assert text.count("Kept by the selection, training examples") == 1
    assert text.count("Kept by the selection, evaluation questions") == 1
    assert "Licence, as stated for the corpus not stated" in text


def test_retrievers_that_were_compared(tmp_path: Path) -> None:
    built = made.a_build(compared=made.a_comparison())
    text = section(report(tmp_path, builds={"eval": built}))
    for words in (
        "Whether another retriever pays",
        "dense finds more than lexical in the first 10. lexical finds more than dense in the first 1.",
        "First, % First 3, % First 10, %",
        "lexical 80.078.0 … 82.0",
        "dense - lexicalpoints −6.0−8.0 … −4.0",
        "The same 1,200 questions were asked of each; differences are paired. 9 questions that no passage answers",
    ):
        assert words in text, words
    assert "another retriever pays" not in report(tmp_path, builds={"eval": made.a_build()})


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything in a JSON value."""
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [path, *(one for key, part in inner for one in leaves(part, (*path, key)))]


def holds(value: Any, key: Any) -> bool:
    return (isinstance(value, dict) and key in value) or (
        isinstance(value, list) and isinstance(key, int) and key < len(value)
    )


WHOLE = json.loads(json.dumps(dataclasses.asdict(made.a_build(compared=made.a_comparison()))))
JSON = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.just([])
    | st.just({})
)


@example([(("figures", "recall"), [])])
@given(st.lists(st.tuples(st.sampled_from(leaves(WHOLE)[1:]), JSON), min_size=1, max_size=3))
def test_a_forged_build_json_is_refused_or_shown(
    tmp_path_factory: pytest.TempPathFactory, changes: Any
) -> None:
    """Whatever a stranger has put beside the examples: no error but a message."""
    value = copy.deepcopy(WHOLE)
    for path, new in changes:
        inner = value
        for key in path[:-1]:
            inner = inner[key] if holds(inner, key) else {}
        if isinstance(inner, dict) or holds(inner, path[-1]):
            inner[path[-1]] = copy.deepcopy(new)
    file = tmp_path_factory.getbasetemp() / "forged.json"
    file.write_text(json.dumps(value), "utf-8")
    try:
        built = read_built(file)
    except UsageError:
        return
    if built is None:
        return
    rendered(
        "retrieval.html.j2",
        corpora=[built],
        builds={"eval": built},
        data=made.data_report(),
        verdicts=verdicts,
    )
    printed(figures_table(built.figures), 80)
    show_figures(built.figures)
    if built.compared:
        printed(comparison_table(built.compared), 80)


def test_a_build_that_found_nothing(tmp_path: Path) -> None:
    figures = made.a_build().figures
    bare = dataclasses.replace(
        figures,
        recall=(),
        documents=dataclasses.replace(
            figures.documents, unread=0, unread_files=(), empty=0, unasked_files=()
        ),
        passages=dataclasses.replace(figures.passages, n=0, length=None),
        questions=dataclasses.replace(
            figures.questions, synthetic=None, unfound_first=(), dropped={}
        ),
    )
    text = section(report(tmp_path, builds={"eval": made.a_build(figures=bare)}))
    assert "No question has an answer or names a passage" in text
    assert "synthetic" not in text
    assert "could not be read" not in text


def test_without_a_build_there_is_no_section(tmp_path: Path) -> None:
    assert 'href="#retrieval"' not in report(tmp_path)
    assert 'id="retrieval"' not in report(tmp_path)


def test_a_passage_says_where_it_stands_and_a_question_that_it_is_synthetic(tmp_path: Path) -> None:
    first, *others = made.rows()
    place = Place("manual.pdf", 3, 9, page=12)
    passages = (dataclasses.replace(first.passages[0], place=place),)
    first = dataclasses.replace(first, passages=passages, synthetic=True)
    page = report(tmp_path, answers=[first, *others])
    assert '"manual.pdf, p. 12"' in page
    assert 'data-kind="synthetic"' in page
    assert 'data-kind="synthetic"' not in report(tmp_path)


def test_the_summary_has_one_line_of_it() -> None:
    compared = made.compared(made.a_recipe(), made.rows())
    plain, with_build = (summary("x", compared, None, b) for b in (None, made.a_build()))
    (line,) = set(with_build.splitlines()) - set(plain.splitlines())
    assert line == (
        "- Retrieval in manuals, among the first 1/3/10 passages: an answer stands for 85.1/94.7/98.5 % of 1,200 "
        "questions; the named passage or document is for 75.0/90.0/96.0 % of 900 questions; an answer stands for "
        "97.0/100.0/100.0 % of 100 questions (synthetic)."
    )


def held(table: FigureTable, width: int) -> str:
    """What a table says, without breaks and spaces, whether its figures stand beside or below each other."""
    beside = any(line.startswith("│") for line in printed(table, width))
    return "".join(
        "".join([*printed(table, width), *(told(table, width) if beside else ())]).split()
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_tables_fit_and_lose_nothing(width: int) -> None:
    for figure in ("85.1(83.1…87.1)", "98.5(96.5…100.0)", "1,200", "900"):
        assert figure in held(figures_table(made.a_build().figures), width), figure
    for figure in (
        "80.0(78.0…82.0)",
        "-6.0(-8.0…-4.0)",
        "+5.0(+3.0…+7.0)",
        "1,200questions",
        "9thatnopassage",
    ):
        assert figure in held(comparison_table(made.a_comparison()), width), figure


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    out = io.StringIO()
    monkeypatch.setattr(screen.console, "_file", out)
    return out


def test_one_of_them_has_a_verb_of_its_own(said: io.StringIO) -> None:
    figures = made.a_build().figures
    one = dataclasses.replace(
        figures,
        documents=dataclasses.replace(figures.documents, empty=1, unasked=1),
        questions=dataclasses.replace(figures.questions, unfound=1),
    )
    show_figures(one)
    for line in (
        "  1 of the documents holds no text",
        "  1 of the documents answers no question",
        "  1 of 1,300 questions with an answer is answered by no passage that was retrieved",
    ):
        assert line in said.getvalue().splitlines(), line


def test_the_other_figures_in_lines(said: io.StringIO) -> None:
    show_figures(made.a_build().figures)
    assert said.getvalue().splitlines() == [
        "41 documents (30 .pdf, 11 .md), 12,345 passages of 20 to 400 characters, median 372",
        "1,100 questions for training, 200 for evaluation",
        "  100 and 0 of them are synthetic, written by gemma",
        "  left out: 9 have no answer",
        "  1 file could not be read: scan.pdf",
        "  2 of the documents hold no text",
        "  7 of the documents answer no question",
        "  3 of 1,300 questions with an answer are answered by no passage that was retrieved",
        "  12 of 12,345 passages are there again",
        "  30 of 12,345 passages are there again, nearly the same",
        "  1 of 200 passages that evaluation asks for is trained, nearly the same",
    ]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_question_is_shown_with_what_was_retrieved(said: io.StringIO, width: int) -> None:
    screen.console.width = width
    passages = (
        Passage(
            "Before the first start the pump is vented. " * 9,
            "Pumps",
            "m#3",
            Place("manual.pdf", 0, 9, page=12),
        ),
        Passage("富士山は日本の山である。" * 9, "", "d#1", Place("山.md", 0, 9, heading="高さ")),
        Passage("x\x1b[2J\ny", "", 7),
    )
    example = Example("q1", "What is vented?", ("the pump",), passages, (0, 2), (1,))
    show_question(example, {0: ["an answer stands in it", "the question names it"]})
    shown = said.getvalue()
    assert "What is vented?" in shown
    assert "  + 1 Pumps: Before the first start" in shown
    assert (
        "manual.pdf, p. 12 – positive: an answer stands in it, the question names it"
        in " ".join(shown.split())
    )
    assert "    2 富士山は" in shown
    assert "山.md, 高さ\n" in shown
    assert r"+ 3 x\x1b[2J" in shown
    assert "\x1b" not in shown


def test_nothing_retrieved_is_said(said: io.StringIO) -> None:
    show_question(Example("q1", "?", (), (), (), ()), {})
    assert "answers: none\nretrieved: nothing\n" in said.getvalue()


def test_no_line_is_wider_than_the_terminal() -> None:
    for width in WIDTHS:
        for table in (
            figures_table(made.a_build("長い").figures),
            comparison_table(made.a_comparison("長い")),
        ):
            assert max(map(cell_len, printed(table, width))) <= width
