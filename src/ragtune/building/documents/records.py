"""Records of {id, title, text}, each a document: JSONL, Parquet, CSV and TSV files, and datasets of the Hub.

They are read one after the other, whatever the size of the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ragtune.base.errors import UsageError
from ragtune.base.text import named, nearest, shortened
from ragtune.building.documents import tables
from ragtune.building.documents.document import Document, Mark, UnreadableError
from ragtune.building.documents.normalise import normalise
from ragtune.building.documents.parts import stem
from ragtune.building.documents.source import Source
from ragtune.data.read import records
from ragtune.recipe.corpus import Documents

_USUAL = {
    "id": ("id", "_id", "docid", "passage_id"),
    "title": ("title",),
    "text": ("text", "contents"),
}
"""What columns are called: passages files of cl-tohoku/quiz-datasets, DPR, BEIR, MIRACL, FlashRAG."""
_SECTION = "section"
"""Of a passages file of cl-tohoku/quiz-datasets: the heading that a passage stands under."""
MAX_TEXT = 16 << 20
"""Characters of one record's text."""
_SHOWN = 8


@dataclass
class Said:
    """What is to be said of the files that were read, counted."""

    encodings: dict[str, list[str]] = field(default_factory=dict)
    without_text: list[str] = field(default_factory=list)
    """Tables whose rows are read as lines."""
    empty: dict[str, int] = field(default_factory=dict)
    """How many records of a source had no text."""
    silent: list[str] = field(default_factory=list)
    """How many pages of a file are pictures without text, in words."""

    def read_as(self, encoding: str, name: str) -> None:
        if encoding not in ("", "utf-8"):
            self.encodings.setdefault(encoding, []).append(name)

    def read_pages(self, document: Document) -> None:
        if document.silent:
            self.silent.append(f"{document.silent:,} of {document.pages:,} in {document.file}")


def read_records(
    path: Path, source: Source, documents: Documents, said: Said
) -> Iterator[Document]:
    """Yield the documents of a source, without holding it in memory.

    Args:
        path: where its bytes are; of a dataset nothing.
        source: what it is called.
        documents: the user's settings.
        said: what the reader found, for the caller to say.

    Raises:
        UnreadableError: a damaged file, a column that isn't there, a text that is none.
        RagtuneError: the Hub can't be reached.
    """
    columns: _Columns | None = None
    count = 0
    for row in _rows(path, source, documents, said):
        if not isinstance(row.record, dict):
            raise UnreadableError(f"{row.where}: a record must be an object.", _RECORD)
        count += 1
        if columns is None:
            columns = _Columns.of(row, documents)
            if columns.text is None:
                said.without_text.append(source.name)
        found = columns.document(row, source.name, count)
        if found is None:
            said.empty[source.name] = said.empty.get(source.name, 0) + 1
        else:
            yield found
    if not count:
        raise UnreadableError(f"{source.name} holds no record.", _RECORD)


_RECORD = "A record is {id, title, text}; other names of columns: documents.fields."


@dataclass(frozen=True, slots=True)
class _Row:
    where: str
    """For messages."""
    record: object
    number: int | None = None
    """Of a table's row, as a spreadsheet counts."""


def _rows(path: Path, source: Source, documents: Documents, said: Said) -> Iterator[_Row]:
    if source.suffix in tables.SUFFIXES and not source.dataset:

        def tell(encoding: str) -> None:
            said.read_as(encoding, source.name)

        for number, cells in tables.rows(path, source, documents.encoding, tell):
            yield _Row(f"{source.name}: row {number}", cells, number)
        return
    known = source.dataset or str(path)
    try:
        for where, record in records(known, "train"):
            yield _Row(where.replace(known, source.name, 1), record)
    except UsageError as error:
        advice = _SCRIPT if source.dataset and "a script" in error.message else error.advice
        raise UnreadableError(error.message.replace(known, source.name), advice) from None


_SCRIPT = (
    "Download its files, and name these: those of cl-tohoku/quiz-datasets and llm-book/jawiki-20220404-c400 "
    "lie at https://github.com/cl-tohoku/quiz-datasets/releases (passages.….jsonl.gz)."
)


@dataclass(frozen=True)
class _Columns:
    """Which columns of a source are what; None where there is none."""

    id: str | None
    title: str | None
    text: str | None

    @classmethod
    def of(cls, row: _Row, documents: Documents) -> _Columns:
        """The columns of a source whose first record this is.

        Raises:
            UnreadableError: a column that the user named isn't there, or none holds the text.
        """
        there = _names(row)
        named_by_user = {str(key): name for key, name in documents.fields.items()}
        chosen: dict[str, str | None] = {}
        for key, usual in _USUAL.items():
            wanted = named_by_user.get(key)
            if wanted is not None and wanted not in there:
                raise _missing(row, key, wanted)
            chosen[key] = wanted or next((name for name in usual if name in there), None)
        if chosen["text"] is None and row.number is None:
            raise _missing(row, "text")
        return cls(chosen["id"], chosen["title"], chosen["text"])

    def document(self, row: _Row, file: str, count: int) -> Document | None:
        """The record as a document, or None if it has no text.

        Raises:
            UnreadableError: its text is no text.
        """
        assert isinstance(row.record, dict)
        if self.text is None:
            text = "\n".join(f"{name}: {value}" for name, value in row.record.items() if value)
        else:
            text = self._text(row, self.text)
        text = normalise(text)
        if not text.strip():
            return None
        title, own, section = (
            _word(row.record.get(name)) if name else "" for name in (self.title, self.id, _SECTION)
        )
        marks = (Mark(0, row.number, section),) if row.number or section else ()
        name = f"{file}#{own or row.number or count}"
        return Document(name, file, title or stem(file), text, marks)

    def _text(self, row: _Row, column: str) -> str:
        assert isinstance(row.record, dict)
        if column not in row.record:
            raise _missing(row, "text", column)
        value = row.record[column]
        if value is None:
            return ""
        if not isinstance(value, str):
            raise UnreadableError(
                f"{row.where}: {column} must be a string, this is {shortened(repr(value))}.",
                "Name another column as documents.fields.text.",
            )
        if len(value) > MAX_TEXT:
            raise UnreadableError(
                f"{row.where}: {column} has more than {MAX_TEXT:,} characters.",
                "Divide the record.",
            )
        return value


def _names(row: _Row) -> list[str]:
    return [str(name) for name in row.record] if isinstance(row.record, dict) else []


def _word(value: object) -> str:
    """An id, a title or a heading in one line; "" for what is none."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return normalise(" ".join(str(value).split()))


def _missing(row: _Row, key: str, name: str = "") -> UnreadableError:
    there = _names(row)
    shown = named([shortened(column) for column in there], _SHOWN) or "none"
    near = nearest(name or key, there)
    if name:
        advice = (
            f"Did you mean {shortened(near)}? documents.fields.{key} names it."
            if near
            else f"documents.fields.{key} must name one of them."
        )
    else:
        advice = f"Name the one that holds the text: documents.fields: {{text: {shortened(near or 'NAME')}}}."
    return UnreadableError(
        f"{row.where}: there is no column {shortened(name or key)} (there are: {shown}).", advice
    )
