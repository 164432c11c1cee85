"""Answers as a terminal shows them, and as JSON: the answer first, then its passages with it marked in them."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from ragtune.asking.answer import Answer
from ragtune.base.screen.console import Door
from ragtune.base.screen.visible import in_line, visible
from ragtune.data.citations import FORM
from ragtune.data.example import Passage

Span = tuple[int, int]

_MARK = "bold reverse"
_AROUND = 240
"""Cells that are shown of a passage which is longer."""
_BESIDE = 60
"""The width, in cells, from which on two answers stand side by side."""
_INDENT = 3


def show_answer(console: Door, answer: Answer, base: Answer | None, *, whole: bool) -> None:
    """Print an answer, where it stands, and its passages; that of the base beside it, if there is one."""
    if base is None:
        _print(console, Text(_said(answer), "bold"))
    elif console.is_terminal:
        console.print(_beside(console, answer, base))
    else:
        for one in (answer, base):
            _print(console, Text(f"{one.which}: {_said(one)}"))
    show_rest(console, answer, base, whole=whole)


def show_rest(console: Door, answer: Answer, base: Answer | None, *, whole: bool) -> None:
    """Print what belongs below an answer that stands there already."""
    for line in _remarks(answer, base):
        _print(console, Text(line, "yellow" if line.startswith("!") else "dim"))
    for number, (passage, spans) in enumerate(
        zip(answer.passages, answer.stands_at, strict=True), 1
    ):
        console.print()
        text = marked(passage.text, spans, plain=is_plain(console), whole=whole)
        _show_passage(console, f"{number:<{_INDENT}}", _named(passage), text)


def _show_passage(console: Door, number: str, names: tuple[str, str], text: Text) -> None:
    """A passage's number, title and place, and below them its text; in a pipe each in one line."""
    title, place = names
    room = console.width - _INDENT if console.is_terminal else sys.maxsize
    apart = "  " if cell_len(title) + cell_len(place) + 2 <= room else "\n"
    head = Text.assemble(title, apart if title and place else "", (place, "dim"))
    if not console.is_terminal:
        _print(console, Text.assemble(number, head))
        for line in text.split("\n"):
            _print(console, Text.assemble(" " * _INDENT, line))
        return
    table = Table.grid()
    table.add_column(width=_INDENT)
    table.add_column(overflow="fold")
    table.add_row(Text(number, "bold"), head)
    table.add_row("", text)
    console.print(table)


def _print(console: Door, line: Text) -> None:
    """Print a line; one in a pipe stays one, however long it is."""
    console.print(line, soft_wrap=not console.is_terminal)


def is_plain(console: Door) -> bool:
    """Whether nothing can be printed in bold here, so that marks are signs."""
    return not console.is_terminal or console.color_system is None


def marked(text: str, spans: Sequence[Span], *, plain: bool, whole: bool) -> Text:
    """A passage's text with an answer marked in it; of a long one what stands around the first.

    Args:
        text: of the passage.
        spans: where the answer stands in it.
        plain: whether the marks are signs.
        whole: all of it, as it stands there.
    """
    start, end = (0, len(text)) if whole else _window(text, spans)
    shown = Text("" if start == 0 else "…")

    def put(part: str, style: str = "") -> None:
        shown.append(visible(part if whole else re.sub(r"\s+", " ", part)), style)

    at = start
    for first, last in spans:
        if first < start or last > end:
            continue
        put(text[at:first])
        if plain:
            put(f"»{text[first:last]}«")
        else:
            put(text[first:last], _MARK)
        at = last
    put(text[at:end])
    if end < len(text):
        shown.append("…")
    return shown


def _window(text: str, spans: Sequence[Span]) -> Span:
    """The part of a long text that is shown: around where the answer stands first, at word borders."""
    if cell_len(text) <= _AROUND:
        return 0, len(text)
    first, last = spans[0] if spans else (0, 0)
    room = max(0, _AROUND - cell_len(text[first:last]))
    start = _back(text, first, room // 3)
    end = _forth(text, last, room - cell_len(text[start:first]))
    part = text[start:end]
    return end - len(part.lstrip()), start + len(part.rstrip())


def _back(text: str, at: int, cells: int) -> int:
    start = at
    while start > 0 and cell_len(text[start - 1]) <= cells:
        start -= 1
        cells -= cell_len(text[start])
    if start > 0 and text[start - 1 : start + 1].isalnum() and text[start].isascii():
        start = min((m.end() for m in re.finditer(r"\s", text[start:at])), default=0) + start
    return start


def _forth(text: str, at: int, cells: int) -> int:
    end = at
    while end < len(text) and cell_len(text[end]) <= cells:
        cells -= cell_len(text[end])
        end += 1
    if end < len(text) and text[end - 1 : end + 1].isalnum() and text[end].isascii():
        end = max((m.start() for m in re.finditer(r"\s", text[at:end])), default=end - at) + at
    return end


def _said(answer: Answer) -> str:
    return visible(answer.text.strip()) or "(nothing)"


def _beside(console: Door, answer: Answer, base: Answer) -> Table:
    """Both answers, side by side or, where it is narrow, one below the other."""
    wide = console.width >= _BESIDE
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False, expand=wide)
    if wide:
        for name in ("tuned", "base"):
            table.add_column(name, header_style="dim", ratio=1, overflow="fold")
        table.add_row(Text(_said(answer), "bold"), Text(_said(base)))
        return table
    table.show_header = False
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("tuned", Text(_said(answer), "bold"))
    table.add_row("base", Text(_said(base)))
    return table


def _remarks(answer: Answer, base: Answer | None) -> Iterable[str]:
    """What is to be said of answers, a line each; a warning begins with a sign."""
    for one in filter(None, (answer, base)):
        whose = "" if base is None else f"{one.which}: "
        if one.unsure:
            yield f"{whose}Refused by evaluate.refuse_below: the model gave no answer that is probable enough."
        elif one.refused:
            yield f"{whose}This is the refusal that was trained: the passages don't say it."
        elif not one.text.strip():
            yield f"! {whose}The model wrote nothing."
        elif not one.passages:
            yield f"! {whose}Answered without any passage."
        elif one.is_found:
            yield f"{whose}{_where(one)} ({_beside_it(one)})"
        else:
            yield f"! {whose}The answer stands in none of the passages. ({_beside_it(one)})"
        yield from _around(one, whose)
        if not one.finished:
            yield f"! {whose}It was cut off: it is longer than evaluate.max_new_tokens allows."


def _around(answer: Answer, whose: str) -> Iterable[str]:
    """What is to be said of its quote and its citations."""
    if answer.quote and answer.quote_found:
        yield f"{whose}It quotes: “{answer.quote}”"
    elif answer.quote:
        yield f"! {whose}It quotes what stands in none of the passages: “{answer.quote}”"
    if answer.citations:
        yield f"{whose}It cites {_listed([*map(str, answer.citations)])}."
    if answer.malformed:
        wrong = _listed([FORM.format(n) for n in answer.malformed])
        yield f"! {whose}It cites {wrong}, which no passage is."


def _where(answer: Answer) -> str:
    numbers = [str(i) for i, spans in enumerate(answer.stands_at, 1) if spans]
    if answer.source is None:
        return f"The answer stands in {_listed(numbers)}."
    source = answer.source
    copied = f"Copied from {source.passage + 1}, characters {source.start} to {source.end}."
    others = [number for number in numbers if number != str(source.passage + 1)]
    return f"{copied} It stands in {_listed(others)}, too." if others else copied


def _beside_it(answer: Answer) -> str:
    """What it took and, where that is known, how sure the model was."""
    sure = "" if answer.probability is None else f", probability {answer.probability:.2f}"
    return f"{answer.seconds:.1f} s{sure}"


def _listed(numbers: Sequence[str]) -> str:
    """Such as 1, 2 and 3."""
    *most, last = numbers
    return f"{', '.join(most)} and {last}" if most else last


def _named(passage: Passage) -> tuple[str, str]:
    """A passage's title and, behind it, where it stands."""
    place = passage.place.in_words() if passage.place else str(passage.passage_id or "")
    return in_line(passage.title), in_line(place)


def as_json(answer: Answer, base: Answer | None) -> dict[str, Any]:
    """An answer as one JSON object; what the base answered to the same is in it."""
    found = {"question": answer.question, **_one(answer)}
    found["passages"] = [
        {
            **passage.to_dict(),
            "where": passage.place.in_words() if passage.place else None,
            "answer_at": [list(span) for span in spans],
        }
        for passage, spans in zip(answer.passages, answer.stands_at, strict=True)
    ]
    if base is not None:
        at = [[list(span) for span in spans] for spans in base.stands_at]
        found["base"] = {**_one(base), "answer_at": at}
    return found


def _one(answer: Answer) -> dict[str, Any]:
    return {
        "answer": answer.text,
        "found": answer.is_found,
        "refused": answer.refused,
        "unsure": answer.unsure,
        "quote": answer.quote,
        "quote_found": answer.quote_found,
        "citations": [*answer.citations],
        "malformed_citations": [*answer.malformed],
        "finished": answer.finished,
        "probability": answer.probability,
        "source": answer.source and dataclasses.asdict(answer.source),
        "seconds": round(answer.seconds, 3),
    }
