"""What a format is: how its records are told from others, and what becomes of one."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ragtune.base.errors import UsageError
from ragtune.base.text import nearest, shortened

T = TypeVar("T")
Record = dict[str, Any]
"""In the schema of Example; one that brings no passages lacks them. `documents` may name where the answer
stands: titles or ids."""

SHOWN = 12
"""Names of fields that a message shows."""
_MIDNIGHT = dt.time()
_KINDS: dict[type, str] = {str: "text", list: "a list", dict: "an object"}


@dataclass(frozen=True)
class Format:
    """A format of question-answering data."""

    name: str
    """In a recipe's data.format; several may share it."""
    title: str
    """What people call it."""
    wanted: str
    """The fields of a record, in words."""
    fits: Callable[[Record], bool]
    """Whether a record is in this format and in no other."""
    records: Callable[[Fields], Iterator[Record]]
    """What becomes of one: one record, or several. Raises UsageError."""
    first: bool = False
    """Whether the gold passages come first in every record, which teaches a model to look there."""


@dataclass(frozen=True)
class Fields:
    """The fields of a record of a format; what is not as it should be is said with its place."""

    values: Mapping[str, Any]
    where: str
    """The record's file and line."""
    title: str
    wanted: str
    path: str = ""
    """Of an object in the record: `paragraphs[3].`."""

    def text(self, name: str) -> str:
        """A field that is text."""
        return self._of(name, str)

    def inner(self, name: str) -> Fields:
        """A field that is an object."""
        return self._inside(name, self._of(name, dict))

    def rows(self, name: str) -> list[Fields]:
        """A field that is a list of objects; or, as `datasets` turns one, an object of lists."""
        value = self.have(name)
        rows: list[Any] = (
            self._of(name, list) if not isinstance(value, dict) else self._turned(name)
        )
        for number, row in enumerate(rows):
            if not isinstance(row, dict):
                raise self.wrong(f"{name}[{number}]", "an object", row)
        return [self._inside(f"{name}[{number}]", row) for number, row in enumerate(rows)]

    def maybe_rows(self, name: str) -> list[Fields]:
        """The same, where the field may be missing or empty."""
        return self.rows(name) if self.maybe(name) else []

    def words(self, name: str) -> list[str]:
        """A field that is a list of texts, each once; or one text."""
        value = self.have(name)
        return words(value if isinstance(value, list) else [value], self.at(name))

    def maybe(self, name: str) -> Any | None:  # noqa: ANN401 - whatever a stranger wrote
        """A field that may be missing."""
        return self.values.get(name)

    def have(self, name: str) -> Any:  # noqa: ANN401 - whatever a stranger wrote
        """A field of any kind."""
        if name not in self.values:
            found = list(map(str, self.values))
            near = nearest(name, found)
            raise UsageError(
                f"{self.where}: no {self.title}: field {self.path}{name} is missing (fields found: "
                f"{shown(found)}).",
                f"{self.title} has {self.wanted}." + (f" Did you mean {near}?" if near else ""),
            )
        return self.values[name]

    def at(self, name: str) -> str:
        """Where a field stands."""
        return f"{self.where}: {self.path}{name}"

    def wrong(self, name: str, kind: str, value: object) -> UsageError:
        """A field is of another kind than it should be."""
        return UsageError(
            f"{self.where}: no {self.title}: {self.path}{name} must be {kind}, this is "
            f"{shortened(repr(value))}.",
            f"{self.title} has {self.wanted}.",
        )

    def _of(self, name: str, kind: type[T]) -> T:
        value = self.have(name)
        if not isinstance(value, kind):
            raise self.wrong(name, _KINDS[kind], value)
        return value

    def _inside(self, name: str, values: Mapping[str, Any]) -> Fields:
        return Fields(values, self.where, self.title, self.wanted, f"{self.path}{name}.")

    def _turned(self, name: str) -> list[dict[str, Any]]:
        value: dict[str, Any] = self._of(name, dict)
        rows = turned(value)
        if rows is None:
            raise self.wrong(name, "an object of lists of the same length", value)
        return rows


def turned(columns: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The rows of an object of lists; None where these are of unlike length, or there is none."""
    lists = {name: column for name, column in columns.items() if isinstance(column, list)}
    if len({len(column) for column in lists.values()}) != 1:
        return None
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def shown(names: list[str]) -> str:
    """Names of fields, for a message."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(shortened(name, 40) for name in names[:SHOWN]) + more or "none"


def words(values: list[Any], where: str) -> list[str]:
    """Answers as texts, each once, in their order; empty ones are left out."""
    found = (word(value, where) for value in values)
    return list(dict.fromkeys(text for text in found if text.strip()))


def word(value: object, where: str) -> str:
    """A text, number or date as text: 1945, not 1945.0; 2024-01-31. Nothing is "".

    Raises:
        UsageError: it is something else.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        raise UsageError(
            f"{where} is {str(value).lower()}, and no text.",
            "Write the word that stands in the texts, such as yes or no.",
        )
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"{value:.15g}"
    if isinstance(value, dt.datetime):
        return value.date().isoformat() if value.time() == _MIDNIGHT else value.isoformat(" ")
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    raise UsageError(f"{where} must be text, this is {shortened(repr(value))}.")


def passage(text: str, title: object = None, passage_id: object = None) -> Record:
    """A passage in the schema of Example."""
    found: Record = {"title": title if isinstance(title, str) else "", "text": text}
    if isinstance(passage_id, str | int) and not isinstance(passage_id, bool):
        found["passage_id"] = passage_id
    return found


def kept(fields: Fields, *names: str) -> Record:
    """Further fields of a record that stay with it."""
    return {name: fields.values[name] for name in names if name in fields.values}


def one_level(value: object) -> list[Any]:
    """A list without the lists in it; of anything else a list with that."""
    found: list[Any] = []
    for one in value if isinstance(value, list) else [value]:
        found += one if isinstance(one, list) else [one]
    return found


def is_list_of(kind: type, value: object) -> bool:
    """Whether something is a list of that kind; an empty one is."""
    return isinstance(value, list) and all(isinstance(one, kind) for one in value)


def is_rows(value: object, *names: str) -> bool:
    """Whether something is a list of objects with these fields, or an object with these lists."""
    if isinstance(value, dict):
        return all(isinstance(value.get(name), list) for name in names)
    return isinstance(value, list) and all(
        isinstance(one, dict) and one.keys() >= set(names) for one in value
    )
