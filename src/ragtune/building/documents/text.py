"""Plain text and Markdown, as it is written; the headings of Markdown say where a passage stands."""

from __future__ import annotations

import re

from ragtune.building.documents.document import Document, Mark, UnreadableError
from ragtune.building.documents.normalise import normalise
from ragtune.building.documents.parts import Headings, stem

_FENCE = re.compile(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})")
_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]|$)")
_CLOSING = re.compile(r"(?:^|[ \t])#+$")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_NO_PARAGRAPH = re.compile(
    r"\s*$| {4}|\t| {0,3}(?:(?:[-*+>|]|\d{1,9}[.)])(?:\s|$)|([-*_])[ \t]*(?:\1[ \t]*){2,}$)"
)
"""Blank lines, code by its indent, items, quotes, tables and rules."""
_FRONT = re.compile(r"(---|\+\+\+)[ \t]*\n(.*?\n)?\1[ \t]*(?:\n|$)", re.DOTALL)
_KEY = re.compile(r"^[\w-]+[ \t]*[:=]", re.MULTILINE)
_TITLE = re.compile(r"^title[ \t]*[:=](.+)$", re.MULTILINE | re.IGNORECASE)
MAX_FRONT = 100_000
"""Characters in which front matter must have come to its end."""


def read_text(text: str, name: str) -> Document:
    """A plain text as a document, named after its file.

    Raises:
        UnreadableError: there is nothing but blanks in it.
    """
    return Document(name, name, stem(name), _some(normalise(text), name))


def read_markdown(text: str, name: str) -> Document:
    """A text in Markdown as a document: as it is written, but for the front matter.

    The title is the front matter's, or the first heading of the highest level.

    Raises:
        UnreadableError: there is nothing but blanks in it.
    """
    text = normalise(text)
    front = _FRONT.match(text[:MAX_FRONT])
    title = ""
    if front and (front[2] is None or _KEY.search(front[2])):
        found = _TITLE.search(front[2] or "")
        title = _unquoted(found[1].strip()) if found else ""
        text = text[front.end() :]
    text = _some(text, name)
    headings = Headings()
    marks: list[Mark] = []
    levels: list[tuple[int, str]] = []
    for start, level, heading in _headings(text):
        marks.append(Mark(start, None, headings.enter(level, heading)))
        levels.append((level, heading))
    highest = min((level for level, _ in levels), default=0)
    title = title or next((heading for level, heading in levels if level == highest), "")
    return Document(name, name, title or stem(name), text, tuple(marks))


def _some(text: str, name: str) -> str:
    if text.strip():
        return text
    raise UnreadableError(f"{name} is empty.", "Remove it, or write into it what belongs there.")


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value


def _headings(text: str) -> list[tuple[int, int, str]]:
    """Where each heading begins, its level, and what it says; what looks like one in code is none."""
    found: list[tuple[int, int, str]] = []
    fence = ""
    start, paragraph = 0, -1
    """Of the line; and of the paragraph that it may go on in, or -1."""
    for line in text.split("\n"):
        opened = _FENCE.match(line)
        if fence:
            if opened and opened[1].startswith(fence) and not line[opened.end() :].strip():
                fence = ""
        elif opened:
            fence, paragraph = opened[1], -1
        elif heading := _HEADING.match(line):
            if said := _CLOSING.sub("", line[heading.end() :].strip()).strip():
                found.append((start, len(heading[1]), said))
            paragraph = -1
        elif paragraph >= 0 and (under := _UNDERLINE.match(line)):
            level = 1 if under[1][0] == "=" else 2
            found.append((paragraph, level, text[paragraph : start - 1].strip()))
            paragraph = -1
        elif _NO_PARAGRAPH.match(line):
            paragraph = -1
        elif paragraph < 0:
            paragraph = start
        start += len(line) + 1
    return found
