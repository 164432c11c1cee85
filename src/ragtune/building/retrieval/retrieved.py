"""What was retrieved elsewhere: a file with the ids of passages for each question."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ragtune.base.disk import disk_errors
from ragtune.base.errors import UsageError
from ragtune.base.reading import open_plain
from ragtune.base.screen.activity import BYTES
from ragtune.base.screen.console import warn
from ragtune.base.screen.progress import busy
from ragtune.base.text import one_or_many, shortened, size_of
from ragtune.building.retrieval.known import Known
from ragtune.building.retrieval.retriever import Hit

_LONGEST = 16 << 20
"""Bytes of the longest line that is read: a million ids."""
_FORM = (
    'A line is {"qid": "q1", "passage_ids": ["manual.pdf#3", …]}, best first; or question for qid.'
)
_KEY = "retrieval.retrieved"


@dataclass(frozen=True)
class Retrieved:
    """A JSONL file of {qid or question, passage_ids}; in memory is only where each line begins."""

    path: Path
    known: Known
    by_qid: dict[str, int]
    by_question: dict[str, int]

    @classmethod
    def open(cls, path: Path, known: Known) -> Retrieved:
        """Read the file once: every line is looked at, and ids of no passage are counted and said.

        Args:
            path: the file.
            known: the passages of the corpus.

        Raises:
            UsageError: it can't be read, a line is no such record or is there twice, or no id in it is
                one of a passage.
        """
        by: dict[str, dict[str, int]] = {"qid": {}, "question": {}}
        ids = strange = 0
        first = ""
        for start, number, line in _lines(path):
            where = f"{_KEY}: {path}:{number}"
            record = _record(line, where)
            for name, places in by.items():
                value = _named(record, name)
                if value in places and name == "qid":
                    raise UsageError(
                        f"{where}: qid {shortened(value)} is there already.",
                        "Leave one of the two lines out.",
                    )
                if value:
                    places.setdefault(value, start)
            for one in _ids(record, where):
                ids += 1
                if not known.has(one):
                    strange, first = strange + 1, first or f"{shortened(one)} in line {number}"
        _tell(path, ids, strange, first)
        return cls(path, known, by["qid"], by["question"])

    def tell(self, asked: Sequence[tuple[str, str]]) -> None:
        """Say how many of the questions that will be asked, (qid, question), the file does not have.

        Raises:
            UsageError: it has none of them.
        """
        missing = [qid or question for qid, question in asked if self._start(qid, question) is None]
        if not missing:
            return
        if len(missing) == len(asked):
            raise UsageError(
                f"{_KEY}: {self.path} has none of {one_or_many(len(asked), 'question')}; the first: "
                f"{shortened(missing[0])}.",
                "Write each question's qid as the questions have it, or the question itself. "
                + _FORM,
            )
        are, have = ("is", "has") if len(missing) == 1 else ("are", "have")
        warn(
            f"{_KEY}: {len(missing):,} of {len(asked):,} questions {are} not in {self.path}, and {have} no "
            f"passages; the first: {shortened(missing[0])}."
        )

    def search(self, questions: Sequence[str], k: int) -> list[list[Hit]]:
        """What the file has for each question, found by its text: as `of` without qids."""
        return self.of([("", question) for question in questions], k)

    def of(self, asked: Sequence[tuple[str, str]], k: int) -> list[list[Hit]]:
        """The first k passages that the file has for each (qid, question), of which the qid comes first.

        For a question that isn't in the file there is nothing: `tell` says how many they are.
        """
        found: list[list[Hit]] = []
        with disk_errors(self.path), open_plain(self.path) as file:
            for qid, question in asked:
                start = self._start(qid, question)
                if start is None:
                    found.append([])
                    continue
                file.seek(start)
                where = f"{_KEY}: {self.path}"
                ids = _ids(_record(file.readline(_LONGEST), where), where)
                there = dict.fromkeys(one for one in ids if self.known.has(one))
                found.append([Hit(one, 1 / rank) for rank, one in enumerate(there, 1)][:k])
        return found

    def _start(self, qid: str, question: str) -> int | None:
        return self.by_qid.get(qid, self.by_question.get(question))


def _tell(path: Path, ids: int, strange: int, first: str) -> None:
    if ids == strange:
        raise UsageError(
            f"{_KEY}: {path} names no passage of this corpus ({one_or_many(ids, 'id')}"
            + (f"; the first: {first})." if ids else ")."),
            "Passages have their document's id, with # and a number where it was cut: retrieve among "
            "those that were built.",
        )
    if strange:
        are, left = ("is no passage", "is") if strange == 1 else ("are no passages", "are")
        warn(
            f"{_KEY}: {strange:,} of {ids:,} ids in {path} {are} of this corpus, and {left} left out; "
            f"the first: {first}."
        )


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Where each line begins, its number, and itself."""
    if not path.is_file():
        raise UsageError(f"{_KEY}: {path} does not exist.", f"Current folder: {Path.cwd()}.")
    with (
        disk_errors(path),
        open_plain(path) as file,
        busy(f"reading {path.name}", path.stat().st_size, unit=BYTES) as update,
    ):
        start, number = 0, 0
        while line := file.readline(_LONGEST + 1):
            number += 1
            if len(line) > _LONGEST:
                raise UsageError(
                    f"{_KEY}: {path}:{number} has more than {size_of(_LONGEST)}.", _FORM
                )
            if line.strip():
                yield start, number, line
            start = file.tell()
            update(start)


def _record(line: bytes, where: str) -> dict[str, object]:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is no JSON: {error}.", _FORM) from error
    if not isinstance(value, dict):
        raise UsageError(f"{where} holds no object.", _FORM)
    if not (_named(value, "qid") or _named(value, "question")):
        fields = ", ".join(shortened(name) for name in list(value)[:8]) or "none"
        raise UsageError(f"{where}: there is neither qid nor question (fields: {fields}).", _FORM)
    return value


def _named(record: dict[str, object], name: str) -> str:
    """A question's name; qids may be numbers."""
    value = record.get(name)
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _ids(record: dict[str, object], where: str) -> list[str]:
    ids = record.get("passage_ids")
    if not isinstance(ids, list) or not all(isinstance(one, str | int) for one in ids):
        raise UsageError(f"{where}: passage_ids is no list of ids.", _FORM)
    return [str(one) for one in ids]
