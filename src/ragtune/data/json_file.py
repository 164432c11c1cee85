"""Reading a JSON file record by record, whatever its size: a list, or an object that holds one as `data`."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterator
from typing import Any

from ragtune.base.errors import UsageError
from ragtune.base.text import first_line, shortened, size_of

MAX_BLANK = 16 << 20
"""Characters without any record; a small .gz can hold billions."""
_CHUNK = 1 << 20
_NEAR_END = 16
"""Characters before the end of what was read, within which an error may only mean that more is to come."""
_LISTS = ("data", "Data")
"""Of SQuAD and its like, of TriviaQA."""
_FEW_COLUMNS = 2
_SPACE = " \t\n\r"


class JsonFile:
    """A JSON text that is read piece by piece.

    Args:
        read: gives so many bytes, fewer at the end.
        where: the file, for messages.
        most: characters of the longest record.
    """

    def __init__(self, read: Callable[[int], bytes], where: str, most: int) -> None:
        self._read, self._where, self._most = read, where, most
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._json = json.JSONDecoder()
        self._text, self._at, self._ended, self._bytes = "", 0, False, 0
        self._line, self._column = 1, 1
        """Of the first character of the text that is held."""

    def records(self) -> Iterator[Any]:
        """The elements of the list, one by one.

        Raises:
            UsageError: it is no JSON, or holds no list of records.
        """
        first = self._next()
        if first == "[":
            yield from self._elements()
        elif first == "{":
            yield from self._object()
        else:
            self._value()
            raise self._no_list()
        if self._next():
            raise self._wrong("Extra data")

    def _elements(self) -> Iterator[Any]:
        self._at += 1
        if self._next() == "]":
            self._at += 1
            return
        while True:
            self._next()
            yield self._value()
            mark = self._next()
            if mark not in (",", "]"):
                raise self._wrong("Expecting ',' delimiter")
            self._at += 1
            if mark == "]":
                return

    def _object(self) -> Iterator[Any]:
        """The elements of its list; or its columns, as pandas writes them, turned into records."""
        self._at += 1
        columns: dict[str, Any] = {}
        listed = False
        while (mark := self._next()) != "}" or columns:
            if mark == "}":
                break
            if mark != '"':
                raise self._wrong("Expecting property name enclosed in double quotes")
            key = self._value()
            if self._next() != ":":
                raise self._wrong("Expecting ':' delimiter")
            self._at += 1
            if key in _LISTS and self._next() == "[":
                listed = True
                yield from self._elements()
            else:
                self._next()
                columns[key] = self._value()
            if (mark := self._next()) not in (",", "}"):
                raise self._wrong("Expecting ',' delimiter")
            self._at += mark == ","
        self._at += 1
        if not listed:
            yield from self._turned(columns)

    def _turned(self, columns: dict[str, Any]) -> Iterator[Any]:
        values = list(columns.values())
        alike = all(isinstance(v, dict) and v.keys() == values[0].keys() for v in values)
        if len(values) < _FEW_COLUMNS or not alike:
            raise self._no_list()
        for row in values[0]:
            yield {name: column[row] for name, column in columns.items()}

    def _next(self) -> str:
        """The next character that is no space; "" at the end."""
        blank = 0
        while True:
            start = self._at
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            blank += self._at - start
            if blank > MAX_BLANK:
                raise UsageError(f"{self._where}: {size_of(MAX_BLANK)} of blanks.", "Remove them.")
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return ""
            self._more()

    def _value(self) -> Any:  # noqa: ANN401 - whatever JSON holds
        while True:
            try:
                value, end = self._json.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                near = error.pos >= len(self._text) - _NEAR_END
                unfinished = near or error.msg.startswith("Unterminated string")
                if self._ended or not unfinished:
                    raise self._wrong(error.msg, error.pos) from None
            except (RecursionError, ValueError) as error:
                raise UsageError(
                    f"{self._where}: not readable as JSON ({first_line(error)})."
                ) from None
            else:
                if self._ended or end < len(self._text) - _NEAR_END:  # a number could go on
                    self._at = end
                    return value
            if len(self._text) - self._at > self._most:
                raise UsageError(
                    f"{self._where}: a record of more than {size_of(self._most)} of JSON.",
                    "A record is a question and its passages. Columns of such a size write as .parquet, and "
                    "records as .jsonl, one a line.",
                )
            self._more()

    def _more(self) -> None:
        """Read on, as much again as is held; what is done with is dropped."""
        done, self._text = self._text[: self._at], self._text[self._at :]
        self._line, self._column = _behind(done, self._line, self._column)
        self._at = 0
        content = self._read(max(_CHUNK, len(self._text)))
        try:
            self._text += self._decoder.decode(content, final=not content)
        except UnicodeDecodeError as error:
            held = self._bytes - (len(error.object) - len(content))
            raise UsageError(
                f"{self._where}: not UTF-8 (byte {held + error.start}).", "Save the file as UTF-8."
            ) from None
        self._bytes += len(content)
        self._ended = not content

    def _wrong(self, what: str, place: int | None = None) -> UsageError:
        place = self._at if place is None else place
        line, column = _behind(self._text[:place], self._line, self._column)
        rest = self._text[max(place - 20, 0) : place + 60].strip()
        return UsageError(
            f"{self._where}: not JSON ({what}, line {line:,}, column {column:,}): {shortened(rest)}",
            "A .json file holds a list of records; for one record a line, name the file .jsonl.",
        )

    def _no_list(self) -> UsageError:
        return UsageError(
            f"{self._where}: a JSON file must hold a list of records.",
            "For one record a line, name the file .jsonl. An object may hold the list as `data`.",
        )


def _behind(text: str, line: int, column: int) -> tuple[int, int]:
    """Line and column behind a text that begins at these."""
    breaks = text.count("\n")
    return (line + breaks, len(text) - text.rfind("\n")) if breaks else (line, column + len(text))
