"""The one record that every stage speaks, in the schema of llm-book/aio-retriever."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, TypeVar

from ragtune.base.errors import UsageError
from ragtune.base.text import one_or_many, shortened
from ragtune.data.words import stands

T = TypeVar("T")

_KNOWN = {
    "qid", "question", "answers", "passages",
    "positive_passage_indices", "negative_passage_indices",
}  # fmt: skip
_IDS = (str, int, type(None))
"""What a passage_id may be."""
MAX_PASSAGES = 10_000
MAX_ANSWERS = 1_000
"""Of a record: each answer is looked for in each passage."""

_KINDS = {
    dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null",
}  # fmt: skip


_COUNTED = {
    ".pptx": "slide",
    ".xlsx": "row", ".csv": "row", ".tsv": "row",
    ".jsonl": "record", ".ndjson": "record", ".parquet": "record",
}  # fmt: skip
"""What a place's page is, by the ending of the file; else a page."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a passage stands."""

    file: str
    start: int
    """Of its characters in the text of the document, as it was read."""
    end: int
    page: int | None = None
    """From 1; of a presentation the slide, of a table the row."""
    heading: str = ""

    def in_words(self) -> str:
        """Such as `manual.pdf, p. 12`, `prices.xlsx, row 3` or `guide.md, Pump > Start`."""
        ending = PurePosixPath(self.file.lower().removesuffix(".gz")).suffix
        counted = _COUNTED.get(ending, "p.")
        where = f"{counted} {self.page}" if self.page is not None else self.heading
        return f"{self.file}, {where}" if where else self.file


@dataclass(frozen=True, slots=True)
class Passage:
    """A retrieved text."""

    text: str
    title: str = ""
    passage_id: str | int | None = None
    place: Place | None = None

    def to_dict(self) -> dict[str, Any]:
        found = {"passage_id": self.passage_id, "title": self.title, "text": self.text}
        return found if self.place is None else {**found, "place": asdict(self.place)}


@dataclass(frozen=True, slots=True)
class Example:
    """A question, its accepted answers and the passages retrieved for it, best first.

    `positive_passage_indices` point at the passages whose text contains an answer. An example
    without answers is legal: a question that the passages don't answer.
    """

    qid: str
    question: str
    answers: tuple[str, ...]
    passages: tuple[Passage, ...]
    positive_passage_indices: tuple[int, ...]
    negative_passage_indices: tuple[int, ...]
    extra: dict[str, Any] = field(default_factory=dict)
    positives_computed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The example in its on-disk schema."""
        return {
            "qid": self.qid,
            **self.extra,
            "question": self.question,
            "answers": list(self.answers),
            "passages": [p.to_dict() for p in self.passages],
            "positive_passage_indices": list(self.positive_passage_indices),
            "negative_passage_indices": list(self.negative_passage_indices),
        }

    def first_passages(self, count: int) -> Example:
        """The same example with only its first `count` passages."""
        return replace(
            self,
            passages=self.passages[:count],
            positive_passage_indices=tuple(i for i in self.positive_passage_indices if i < count),
            negative_passage_indices=tuple(i for i in self.negative_passage_indices if i < count),
        )

    def alternatives(self, field: str | None) -> tuple[str, ...]:
        """Further answers that the record names beside `answers`.

        They stand in `field`, separated by `, `; without a field in `original_additional_info`, but
        only where `competition` names a round of AI王: elsewhere it holds other things.
        """
        if field is None:
            if "AI王" not in str(self.extra.get("competition", "")):
                return ()
            field = "original_additional_info"
        text = self.extra.get(field)
        found = text.split(", ") if isinstance(text, str) else []
        if len(found) > MAX_ANSWERS:
            raise UsageError(
                f"Question {shortened(self.qid)}: {field} has {len(found):,} answers, parted by commas; at "
                f"most {MAX_ANSWERS:,} are taken.",
                "Name another field as data.alternatives, or shorten it.",
            )
        return tuple(a for a in found if a.strip() and a not in self.answers)


def parse_example(record: object, where: str) -> Example:
    """Check a record and make an Example of it.

    Without `positive_passage_indices` the positives are computed: the passages whose text contains
    an answer, character for character as in the reference data, but not inside a word (`stands`).
    Without `qid` it is a hash of question and passages.

    Raises:
        UsageError: naming `where` (file and line) and the field.
    """
    if not isinstance(record, dict):
        raise UsageError(
            f"{where}: a record must be a JSON object, this is {_kind(record)}.",
            "Each record holds question, answers and passages.",
        )
    question = _field(record, "question", str, where)
    if not question.strip():
        raise UsageError(f"{where}: question is empty.", "Fill it in or remove the record.")
    listed = [
        _of_type(answer, str, where, "answers", i)
        for i, answer in enumerate(_few(record, "answers", MAX_ANSWERS, where))
    ]
    # Some data write "no answer" as an empty one, which every text would contain.
    answers = tuple(answer for answer in listed if answer.strip())
    passages = tuple(
        _passage(passage, where, i)
        for i, passage in enumerate(_few(record, "passages", MAX_PASSAGES, where))
    )
    computed = record.get("positive_passage_indices") is None
    if computed:
        positive = tuple(
            i for i, p in enumerate(passages) if any(stands(p.text, a) for a in answers)
        )
    else:
        positive = _indices(record, "positive_passage_indices", len(passages), where)
    if computed or record.get("negative_passage_indices") is None:
        known = set(positive)
        negative = tuple(i for i in range(len(passages)) if i not in known)
    else:
        negative = _indices(record, "negative_passage_indices", len(passages), where)
    return Example(
        _qid(record, question, passages, where),
        question,
        answers,
        passages,
        positive,
        negative,
        _extra(record, where),
        computed,
    )


def is_unnamed(record: dict[str, Any]) -> bool:
    """Whether a record brings no qid."""
    return record.get("qid") in (None, "")


def _qid(record: dict[str, Any], question: str, passages: tuple[Passage, ...], where: str) -> str:
    if is_unnamed(record):
        text = json.dumps([question, [p.text for p in passages]], ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
    qid = record["qid"]
    if isinstance(qid, int) and not isinstance(qid, bool):
        return str(qid)
    return _of_type(qid, str, where, "qid")


def _passage(value: object, where: str, number: int) -> Passage:
    if not isinstance(value, dict):
        raise _wrong_type(value, "an object with text", where, "passages", number)
    title = value.get("title")
    passage_id = value.get("passage_id")
    if isinstance(passage_id, bool) or not isinstance(passage_id, _IDS):
        raise _wrong_type(
            passage_id, "a string or a number", where, "passages", number, ".passage_id"
        )
    if "text" not in value:
        raise UsageError(
            f"{where}: passages[{number}].text is missing.", "A passage is {title, text}."
        )
    return Passage(
        _of_type(value["text"], str, where, "passages", number, ".text"),
        "" if title is None else _of_type(title, str, where, "passages", number, ".title"),
        passage_id,
        _place(value["place"]) if "place" in value else None,
    )


def _place(value: object) -> Place | None:
    """Where a passage stands, as `to_dict` wrote it; other data may use the word for something else."""
    if not isinstance(value, dict):
        return None
    file, start, end = value.get("file"), value.get("start"), value.get("end")
    page, heading = value.get("page"), value.get("heading")
    if not (isinstance(file, str) and is_text(file) and type(start) is type(end) is int):
        return None
    return Place(
        file,
        start,
        end,
        page if type(page) is int else None,
        heading if isinstance(heading, str) and is_text(heading) else "",
    )


def _extra(record: dict[str, Any], where: str) -> dict[str, Any]:
    """What else a record holds, as JSON: Parquet and the Hub have dates and more."""
    extra = {k: v for k, v in record.items() if k not in _KNOWN}
    if all(type(each) is str and is_text(each) for pair in extra.items() for each in pair):
        return extra  # mostly it is text alone, which JSON gives back as it is
    text = json.dumps(extra, ensure_ascii=False, default=str)
    if not is_text(text):
        raise _no_text(", ".join(extra), where)
    found: dict[str, Any] = json.loads(text)
    return found


def _field(record: dict[str, Any], name: str, kind: type[T], where: str) -> T:
    if name not in record:
        found = ", ".join(shortened(str(name)) for name in list(record)[:8]) or "none"
        raise UsageError(
            f"{where}: field {name} is missing (fields found: {found}).",
            "Each record holds question (string), answers (list of strings) and passages (list of "
            "{title, text}). Fields that are called otherwise are named in fields: {question: …}; the public "
            "formats that are read as they are stand in docs/data.md.",
        )
    return _of_type(record[name], kind, where, name)


def _few(record: dict[str, Any], name: str, most: int, where: str) -> list[Any]:
    values: list[Any] = _field(record, name, list, where)
    if len(values) > most:
        raise UsageError(
            f"{where}: {name} has {len(values):,} entries; at most {most:,} are taken.",
            "A record is one question, with the passages that were retrieved for it.",
        )
    return values


def _indices(record: dict[str, Any], name: str, count: int, where: str) -> tuple[int, ...]:
    values = _field(record, name, list, where)
    for position, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong_type(value, "an integer", where, name, position)
        if not 0 <= value < count:
            there = (
                f"there {'is' if count == 1 else 'are'} {one_or_many(count, 'passage')} (0 to {count - 1})"
                if count
                else "there are none"
            )
            raise UsageError(
                f"{where}: {name}[{position}] is {value}, but {there}.",
                f"Correct it, or leave {name} out: positives are then found by the answer's text.",
            )
    return tuple(dict.fromkeys(values))


def _of_type(value: object, kind: type[T], where: str, *name: str | int) -> T:
    """The value, if it is of a kind; its name comes in parts, for it is mostly not needed."""
    if not isinstance(value, kind):
        raise _wrong_type(value, _KINDS[kind], where, *name)
    if isinstance(value, str) and not is_text(value):
        raise _no_text(_named(*name), where)
    return value


def _named(*parts: str | int) -> str:
    """Such as passages[2].text of its parts."""
    return "".join(part if isinstance(part, str) else f"[{part}]" for part in parts)


def is_text(value: str) -> bool:
    """Whether a string can be written as UTF-8: half of a surrogate pair can't."""
    try:
        value.isascii() or value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _no_text(name: str, where: str) -> UsageError:
    return UsageError(
        f"{where}: {name} holds half of a surrogate pair, which is no text.",
        "Write the file again as valid UTF-8.",
    )


def _wrong_type(value: object, wanted: str, where: str, *name: str | int) -> UsageError:
    shown = shortened(json.dumps(value, default=str, ensure_ascii=False))
    return UsageError(
        f"{where}: {_named(*name)} must be {wanted}, this is {_kind(value)}: {shown}."
    )


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "a number")
