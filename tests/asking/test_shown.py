"""What a terminal shows of an answer, in 80 and 50 columns and in a pipe; and the JSON."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import ColorSystem

from ragtune.asking.answer import Answer
from ragtune.asking.shown import as_json, marked, show_answer
from ragtune.base.screen.console import Door
from ragtune.data.example import Passage, Place
from ragtune.data.spans import Source
from ragtune.data.words import places

ENGLISH = (
    Passage(
        "Paris is the capital of France. It stands on the Seine, and has two million people.",
        "France — Geography",
        "guide.md#2",
        Place("guides/france/guide.md", 10, 90, None, "France > Geography > Cities and rivers"),
    ),
    Passage("Lyon is old. " * 30 + "The court moved to Paris in 1528. " + "Nantes is by the sea. " * 20,
            "History of France", "history.pdf#1", Place("history.pdf", 0, 100, 12)),
    Passage("Rome is in Italy, \x1b[31mred\x1b[0m, [bold]markup[/bold]", "Cities", "c#3"),
)  # fmt: skip
TOWER = "東京タワーは、東京都港区芝公園にある総合電波塔である。高さは333メートルで、観光名所として知られている。"
JAPANESE = (
    Passage(
        TOWER * 6, "東京タワー — 概要", "t#1", Place("塔/東京.md", 0, 99, None, "東京タワー > 概要")
    ),
    Passage("東京スカイツリーの高さは634メートルである。", "スカイツリー", "t#2"),
)


def answered(text: str, passages: tuple[Passage, ...], **more: Any) -> Answer:
    at = tuple(places(p.text, text.strip()) for p in passages)
    values = {"finished": True, "seconds": 0.83} | more
    return Answer("?", text, passages, at, **values)


def shown(
    answer: Answer,
    base: Answer | None = None,
    *,
    width: int | None,
    whole: bool = False,
) -> str:
    """What is printed to a terminal of this width; None: to a pipe."""
    out, console = io.StringIO(), Door()
    console._file = out
    console._force_terminal = width is not None
    console._color_system = ColorSystem.STANDARD if width else None
    console._width = width or 80
    show_answer(console, answer, base, whole=whole)
    return out.getvalue()


def bare(text: str) -> str:
    return re.sub("\x1b\\[[0-9;]*m", "", text)


@pytest.mark.parametrize("width", [80, 50])
@pytest.mark.parametrize(
    ("text", "passages", "other"),
    [
        (" Paris", ENGLISH, "The capital of France is the city that stands on the Seine, Paris"),
        ("333メートル", JAPANESE, "その高さは333メートルです。とても高い塔として、多くの人に知られています。"),
    ],
)  # fmt: skip
def test_no_line_is_wider_than_the_terminal(
    text: str, passages: tuple[Passage, ...], other: str, width: int
) -> None:
    tuned, base = answered(text, passages), answered(other, passages, which="base", finished=False)
    for compared in (None, base):
        for whole in (False, True):
            out = shown(tuned, compared, width=width, whole=whole)
            lines = bare(out).splitlines()
            assert max(map(cell_len, lines)) <= width
            assert text.strip() in lines[0 if compared is None else 1 if width == 80 else 0]
            assert f"\x1b[1;7m{text.strip()}\x1b[0m" in out  # bold and reversed
            whole_text = "".join(bare(out).split())
            for passage in passages:
                if whole or cell_len(passage.text) < 240:
                    said = passage.text.replace("\x1b", "\\x1b")
                    assert "".join(said.split()) in whole_text


def test_side_by_side_where_there_is_room() -> None:
    tuned, base = answered("Paris", ENGLISH), answered("It is Paris", ENGLISH, which="base")
    wide, narrow = (bare(shown(tuned, base, width=width)) for width in (80, 50))
    assert re.match(r"tuned +base *\nParis +It is Paris *\n", wide)
    assert re.match(r"tuned  Paris *\nbase   It is Paris *\n", narrow)
    assert shown(tuned, base, width=None).startswith("tuned: Paris\nbase: It is Paris\n")


def test_in_a_pipe_marks_are_signs_and_lines_are_whole() -> None:
    assert shown(answered(" Paris", ENGLISH), width=None) == (
        "Paris\n"
        "The answer stands in 1 and 2. (0.8 s)\n"
        "\n"
        "1  France — Geography  guides/france/guide.md, France > Geography > Cities and rivers\n"
        "   »Paris« is the capital of France. It stands on the Seine, and has two million people.\n"
        "\n"
        "2  History of France  history.pdf, p. 12\n"
        "   …old. Lyon is old. Lyon is old. Lyon is old. Lyon is old. The court moved to »Paris« in 1528. Nantes "
        "is by the sea. Nantes is by the sea. Nantes is by the sea. Nantes is by the sea. Nantes is by the sea. "
        "Nantes is by the sea. Nantes is by the…\n"
        "\n"
        "3  Cities  c#3\n"
        "   Rome is in Italy, \\x1b[31mred\\x1b[0m, [bold]markup[/bold]\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (answered("Rom", ENGLISH), "! The answer stands in none of the passages. (0.8 s)"),
        (answered("not said", ENGLISH, refused=True), "This is the refusal that was trained: the passages don't say it."),
        (answered("not said", ENGLISH, refused=True, unsure=True),
         "Refused by evaluate.refuse_below: the model gave no answer that is probable enough."),
        (answered(" ", ENGLISH), "! The model wrote nothing."),
        (answered("Paris", ()), "! Answered without any passage."),
        (answered("Paris", ENGLISH, finished=False),
         "The answer stands in 1 and 2. (0.8 s)\n! It was cut off: it is longer than evaluate.max_new_tokens allows."),
        (answered("Paris", ENGLISH, source=Source(0, 0, 5), probability=0.832),
         "Copied from 1, characters 0 to 5. It stands in 2, too. (0.8 s, probability 0.83)"),
    ],
)  # fmt: skip
def test_what_is_said_of_an_answer(answer: Answer, said: str) -> None:
    first, _, rest = shown(answer, width=None).partition("\n")
    assert first == (answer.text.strip() or "(nothing)")
    assert rest.startswith(f"{said}\n")


def test_only_what_is_around_the_answer() -> None:
    text = marked(TOWER * 6, places(TOWER * 6, "333メートル"), plain=True, whole=False).plain
    assert text.startswith("東京タワーは")
    assert text.endswith("…")
    assert cell_len(text) <= 260
    assert "»333メートル«" in text
    whole = marked("a\n\nb", (), plain=True, whole=True).plain
    assert whole == "a\n\nb"


def test_json_has_everything_and_says_where() -> None:
    base = answered("Lyon", ENGLISH, which="base")
    found = json.loads(json.dumps(as_json(answered("Paris", ENGLISH), base)))
    assert found["question"] == "?"
    assert (found["answer"], found["found"], found["refused"], found["finished"]) == (
        "Paris", True, False, True,
    )  # fmt: skip
    first, second, third = found["passages"]
    assert first["where"] == "guides/france/guide.md, France > Geography > Cities and rivers"
    assert [first["text"][a:b] for a, b in first["answer_at"]] == ["Paris"]
    assert second["text"] == ENGLISH[1].text
    assert (third["where"], third["answer_at"]) == (None, [])
    assert found["base"]["answer"] == "Lyon"
    assert len(found["base"]["answer_at"][1]) == 30


def test_what_an_answer_cites_is_said() -> None:
    answer = answered("Paris", ENGLISH, citations=(1, 2), malformed=(9,))
    text = shown(answer, width=None)
    assert text.startswith("Paris\n")
    assert "It cites 1 and 2." in text
    assert "! It cites [9], which no passage is." in text
    found = as_json(answer, None)
    assert (found["answer"], found["citations"], found["malformed_citations"]) == (
        "Paris",
        [1, 2],
        [9],
    )
    assert "cites" not in shown(answered("Paris", ENGLISH), width=None)


def test_what_an_answer_quotes_is_said() -> None:
    answer = answered("Paris", ENGLISH, quote="It is in Paris.", quote_found=True)
    assert "\nIt quotes: “It is in Paris.”" in shown(answer, width=None)
    found = as_json(answer, None)
    assert (found["quote"], found["quote_found"]) == ("It is in Paris.", True)
    made_up = answered("Paris", ENGLISH, quote="It is [bold]")
    assert "! It quotes what stands in none of the passages: “It is [bold]”" in shown(
        made_up, width=None
    )
    assert "quotes" not in shown(answered("Paris", ENGLISH), width=None)
