"""The files of an index, as tantivy keeps them: made, opened, and written by one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ragtune.base.commands import install
from ragtune.base.errors import RagtuneError, UsageError, is_panic
from ragtune.base.files import remove
from ragtune.base.text import first_line

if TYPE_CHECKING:
    import tantivy

HEAP = 256_000_000
"""Bytes that tantivy gathers before it writes a segment; the whole process then stays far below 1 GB."""

ID, TERMS, CANARY = "id", "terms", "canary"
"""The fields: a passage's name, what it is found by, and what only the canary has."""


def require_tantivy() -> None:
    """Raise UsageError unless tantivy is installed."""
    try:
        import tantivy  # noqa: F401, PLC0415 - an extra
    except ImportError as error:
        raise UsageError(
            "retrieval.retriever: lexical needs tantivy, which is not installed.",
            f"Run: {install('tantivy')}",
        ) from error


def is_there(folder: Path) -> bool:
    """Whether a folder holds the files of an index, damaged or not."""
    return (folder / "meta.json").is_file()


def make_segments(folder: Path, canary: str) -> None:
    """Make the files of an index that holds nothing but its canary, which is found by these terms."""
    from tantivy import Document, Index, SchemaBuilder  # noqa: PLC0415 - an extra

    remove(folder)
    folder.mkdir(parents=True)
    schema = SchemaBuilder()
    schema.add_text_field(ID, stored=True, tokenizer_name="raw", index_option="basic")
    for name in (TERMS, CANARY):
        schema.add_text_field(name, tokenizer_name="whitespace", index_option="freq")
    index = _with_tokenizers(Index(schema.build(), str(folder)))
    with writing(index, folder) as writer:
        writer.writer.add_document(Document(canary=canary))


def open_segments(folder: Path) -> tantivy.Index:
    """Open the files of an index.

    Raises:
        ValueError, OSError: they are damaged.
    """
    from tantivy import Index  # noqa: PLC0415 - an extra

    index = _with_tokenizers(Index.open(str(folder)))
    index.config_reader("manual")
    return index


def _with_tokenizers(index: tantivy.Index) -> tantivy.Index:
    """An index that knows its tokenizers: only their names are stored."""
    from tantivy import TextAnalyzerBuilder, Tokenizer  # noqa: PLC0415 - an extra

    index.register_tokenizer("raw", TextAnalyzerBuilder(Tokenizer.raw()).build())
    index.register_tokenizer("whitespace", TextAnalyzerBuilder(Tokenizer.whitespace()).build())
    return index


@contextmanager
def no_panic() -> Iterator[None]:
    """Raise ValueError where tantivy panics, as it does in files that are damaged; a panic is no Exception."""
    try:
        yield
    except BaseException as error:
        if not is_panic(error):
            raise
        raise ValueError(first_line(error)) from error


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes an index. Raises RagtuneError where that can't be done: the disk may be full."""

    writer: tantivy.IndexWriter
    folder: Path

    def add(self, passage_id: str, terms: str) -> None:
        from tantivy import Document  # noqa: PLC0415 - an extra

        document = Document(id=passage_id, terms=terms)
        try:
            self.writer.add_document(document)
        except ValueError as error:
            raise self._failed(error) from error

    def delete(self, passage_id: str) -> None:
        try:
            self.writer.delete_documents_by_term(ID, passage_id)
        except ValueError as error:
            raise self._failed(error) from error

    def commit(self) -> None:
        try:
            self.writer.commit()
        except ValueError as error:
            raise self._failed(error) from error

    def _failed(self, error: ValueError) -> RagtuneError:
        return RagtuneError(
            f"The index in {self.folder} can't be written: {first_line(error)}",
            "Look whether the disk is full. What was indexed before is kept; the same command goes on.",
        )


@contextmanager
def writing(index: tantivy.Index, folder: Path) -> Iterator[Writer]:
    """Write an index: what was done is committed at the end, and undone on an error.

    Raises:
        UsageError: another process writes it.
    """
    try:
        # One thread: it writes while Python's makes the terms, and the same passages always make the
        # same segments.
        writer = index.writer(HEAP, 1)
    except ValueError as error:
        raise UsageError(
            f"The index in {folder} can't be opened to write: {first_line(error)}",
            "Another process may be writing it: wait until it ends, then run the command again.",
        ) from error
    try:
        made = Writer(writer, folder)
        yield made
        made.commit()
    except BaseException:  # Ctrl-C, too
        with suppress(ValueError):  # a writer that failed can't go back, and needn't
            writer.rollback()
        raise
    finally:
        with suppress(ValueError):
            writer.wait_merging_threads()
