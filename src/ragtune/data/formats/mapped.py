"""Records with names of their own: columns of tables, and fields that a recipe names."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from ragtune.base.errors import UsageError
from ragtune.base.text import shortened
from ragtune.data.formats.format import Record, passage, shown, turned, word, words

USUAL: dict[str, tuple[str, ...]] = {
    "qid": ("qid", "id", "question_id", "query_id"),
    "question": ("question", "query", "質問", "問題"),
    "answers": ("answers", "answer", "正解", "解答", "回答", "答え"),
    "passages": ("passages",),
    "text": ("text", "contents", "content"),
    "title": ("title",),
    "passage_id": ("passage_id", "id", "docid"),
}
"""Names that are understood where none are given, by what they mean; the first that is there counts."""

_OF_A_PASSAGE = ("text", "title", "passage_id", "positive")
_NAMES_DOCUMENTS = ("document", "passage", "title")
"""Of the fields of questions for a corpus: what names a document or a passage where the answer stands."""
_LONGEST_LIST = 10_000
"""Characters of a cell that is looked at as a list."""
_NEAR = 0.5
"""Names of columns are short: of two signs, one is right."""
_MISSING = object()


@dataclass(frozen=True)
class Naming:
    """Which fields of a record mean what."""

    names: Mapping[str, str]
    """By what they mean: question, answers and so on. `a.b` is a field in a field."""
    separator: str | None = None
    """Between several answers in one text."""

    def record(self, values: Record, where: str) -> Record:
        """What a record means. Raises UsageError."""
        found: Record = {
            "question": word(self._value(values, "question", where), f"{where}: {self._name('question')}"),
            "answers": self._answers(values, where),
        }  # fmt: skip
        if "passages" in self.names:
            found |= self._passages(values, where)
        if (qid := self._maybe(values, "qid")) is not _MISSING and word(
            qid, f"{where}: qid"
        ).strip():
            found["qid"] = word(qid, where)
        if documents := self._documents(values, where):
            found["documents"] = documents
        taken = {"question", "answers", "passages", *self._used()}
        return {k: v for k, v in values.items() if k not in taken} | found

    def in_words(self) -> str:
        """Such as `question: 質問, answers: 正解`."""
        return ", ".join(f"{meaning}: {shortened(name)}" for meaning, name in self.names.items())

    def _used(self) -> set[str]:
        return {n.partition(".")[0] for m, n in self.names.items() if m not in _OF_A_PASSAGE} | set(
            self.names.values()
        )

    def _name(self, meaning: str) -> str:
        return self.names.get(meaning, meaning)

    def _maybe(self, values: Record, meaning: str) -> Any:  # noqa: ANN401 - whatever a stranger wrote
        return follow(values, self.names[meaning]) if meaning in self.names else _MISSING

    def _value(self, values: Record, meaning: str, where: str) -> Any:  # noqa: ANN401 - the same
        found = self._maybe(values, meaning)
        if found is _MISSING:
            raise no_field(self._name(meaning), values, where, meaning)
        return found

    def _answers(self, values: Record, where: str) -> list[str]:
        value = self._value(values, "answers", where)
        at = f"{where}: {self._name('answers')}"
        if not isinstance(value, str):
            return words(value if isinstance(value, list) else [value], at)
        return words(listed(value, self.separator), at)

    def _documents(self, values: Record, where: str) -> list[str]:
        found: list[str] = []
        for meaning in _NAMES_DOCUMENTS:
            if meaning == "title" and "passages" in self.names:
                continue
            value = self._maybe(values, meaning)
            if value is not _MISSING:
                several = listed(value, self.separator) if isinstance(value, str) else value
                at = f"{where}: {self._name(meaning)}"
                found += words(several if isinstance(several, list) else [several], at)
        return list(dict.fromkeys(found))

    def _passages(self, values: Record, where: str) -> Record:
        value = self._value(values, "passages", where)
        at = f"{where}: {self._name('passages')}"
        if isinstance(value, str):
            parsed = listed(value, None)
            value = parsed if parsed != [value] else [value]
            outer = self._maybe(values, "title")
            titles = [outer if isinstance(outer, str) else ""] if len(value) == 1 else []
        else:
            titles = []
        rows = _rows(value, at)
        passages = [self._passage(row, f"{at}[{i}]", *titles) for i, row in enumerate(rows)]
        found: Record = {"passages": passages}
        if "positive" in self.names:
            found["positive_passage_indices"] = [
                i for i, row in enumerate(rows) if self._is_positive(row, f"{at}[{i}]")
            ]
        return found

    def _passage(self, row: object, at: str, title: str = "") -> Record:
        if isinstance(row, str):
            return passage(row, title)
        if not isinstance(row, dict):
            raise UsageError(f"{at} must be text or an object, this is {shortened(repr(row))}.")
        text = self._inner(row, "text")
        if text is _MISSING:
            raise no_field(self._name("text"), row, at, "text")
        named, id_ = self._inner(row, "title"), self._inner(row, "passage_id")
        return passage(word(text, f"{at}.{self._name('text')}"), named, id_)

    def _inner(self, row: Record, meaning: str) -> Any:  # noqa: ANN401 - whatever a stranger wrote
        if meaning in self.names:
            return follow(row, self.names[meaning])
        return next((row[name] for name in USUAL[meaning] if name in row), _MISSING)

    def _is_positive(self, row: object, at: str) -> bool:
        name = self.names["positive"]
        value = follow(row, name) if isinstance(row, dict) else _MISSING
        if value not in (True, False, 0, 1, None):
            held = "is missing" if value is _MISSING else f"is {shortened(repr(value))}"
            raise UsageError(
                f"{at}.{name} {held}, where true or false is wanted.",
                "data.fields.positive names a field of each passage that says whether the answer stands there.",
            )
        return bool(value)


def usual(record: Record, separator: str | None = None) -> Naming | None:
    """The fields of a record that are called as usual; None where it has no question or no answers."""
    names = _usual_names(record)
    return Naming(names, separator) if {"question", "answers"} <= names.keys() else None


def named(names: Mapping[str, str], head: list[tuple[str, Any]], separator: str | None) -> Naming:
    """The fields as the user names them, and as usual where none is named.

    Raises:
        UsageError: none of the first rows has such a field.
    """
    (where, first), rows = head[0], [row for _, row in head if isinstance(row, dict)]
    if not isinstance(first, dict):
        raise UsageError(f"{where}: a record must be an object of fields.")
    for meaning, name in names.items():
        if meaning not in _OF_A_PASSAGE and all(follow(row, name) is _MISSING for row in rows):
            raise no_field(name, first, where, meaning)
    return Naming(
        {"question": "question", "answers": "answers", **_usual_names(first), **names}, separator
    )


def _usual_names(record: Record) -> dict[str, str]:
    by_name = {str(name).strip().casefold(): str(name) for name in reversed(record)}
    found = {
        meaning: next((by_name[name] for name in USUAL[meaning] if name in by_name), None)
        for meaning in ("qid", "question", "answers", "passages")
    }
    return {meaning: name for meaning, name in found.items() if name is not None}


def follow(value: Any, name: str) -> Any:  # noqa: ANN401 - whatever a stranger wrote
    """A field of a record; `a.b` is field b of a, or of each in the list a."""
    if isinstance(value, dict) and name in value:
        return value[name]
    first, dot, rest = name.partition(".")
    if not dot or not isinstance(value, dict) or first not in value:
        return _MISSING
    inner = value[first]
    if not isinstance(inner, list):
        return follow(inner, rest)
    found = [follow(one, rest) for one in inner]
    return _MISSING if any(one is _MISSING for one in found) else _flat(found)


def _flat(values: list[Any]) -> list[Any]:
    return [one for value in values for one in (value if isinstance(value, list) else [value])]


def listed(text: str, separator: str | None) -> list[Any]:
    """The parts of a cell: a list in JSON or Python, or texts with the separator between them."""
    stripped = text.strip()
    if stripped[:1] == "[" and stripped[-1:] == "]" and len(stripped) <= _LONGEST_LIST:
        for parse in (json.loads, ast.literal_eval):
            try:
                value = parse(stripped)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            if isinstance(value, list):
                return value
    if separator is None:
        return [text]
    return [part.strip() for part in text.split(separator)]


def no_field(name: str, record: Mapping[str, Any], where: str, meaning: str) -> UsageError:
    """A field is not there; the one that is nearest may be meant."""
    found = [str(key) for key in record]
    near = get_close_matches(name, found, 1, _NEAR)
    advice = f"Did you mean {near[0]}?" if near else f"Name the field in fields: {{{meaning}: …}}."
    return UsageError(
        f"{where}: there is no field {shortened(name)} (fields found: {shown(found)}).", advice
    )


def _rows(value: object, at: str) -> list[Any]:
    """Passages as a list, also where they are an object of lists."""
    rows = turned(value) if isinstance(value, dict) else value
    if not isinstance(rows, list):
        raise UsageError(f"{at} must be a list of passages, this is {shortened(repr(value))}.")
    return rows


def records_of(mapping: Naming, rows: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Record]]:
    """The records of rows with these fields."""
    for where, row in rows:
        if not isinstance(row, dict):
            raise UsageError(f"{where}: a record must be an object of fields.")
        yield where, mapping.record(row, where)
