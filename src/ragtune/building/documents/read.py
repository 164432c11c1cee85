"""Reading documents: from what the user named to texts with marks, one source after the other."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

from ragtune.base.reading import open_plain
from ragtune.base.screen.console import note, warn
from ragtune.base.text import named, one_or_many
from ragtune.building.documents.archives import Unpacked
from ragtune.building.documents.document import Document, UnreadableError
from ragtune.building.documents.files import read_file
from ragtune.building.documents.find import find_files
from ragtune.building.documents.kinds import READ_WHOLE
from ragtune.building.documents.records import Said, read_records
from ragtune.building.documents.source import Source, unopened
from ragtune.building.documents.worker import Worker
from ragtune.recipe.corpus import Documents

__all__ = ["Source", "UnreadableError", "find_files", "read_source", "read_sources"]

AHEAD, AHEAD_CHARACTERS = 1_000, 4 << 20
"""Records, and characters of them, that are read before a source is given: whichever is reached first."""


def read_sources(
    sources: Iterable[Source], documents: Documents
) -> Iterator[tuple[Source, Iterable[Document] | UnreadableError]]:
    """Yield what each source gives, in their order, or why it can't be read.

    Files are read in a process of their own, with limits of time and memory: what they do to it is their
    own error. Records are read while they are asked for, before the next source is; an iteration over many
    of them may end in an UnreadableError, too. At the end it is said in which encodings files were, and
    what had no text.

    Raises:
        UsageError: a library isn't installed.
        RagtuneError: the Hub can't be reached, no process can be started.
    """
    said = Said()
    with Worker(documents) as worker, Unpacked() as unpacked:
        for source in sources:
            try:
                _require_readable(source)
                path = unpacked.path_of(source)
                if source.dataset or source.suffix not in READ_WHOLE:
                    _require_there(path, source)
                    found = _begun(read_records(path, source, documents, said))
                else:
                    reading = worker.read(path, source)
                    said.read_as(reading.encoding, source.name)
                    found = reading.documents
                    for document in found:
                        said.read_pages(document)
            except UnreadableError as error:
                yield source, error
            else:
                yield source, found
    _say(said)


def read_source(source: Source, documents: Documents) -> Iterator[Document]:
    """Yield the documents of one source, read in this process: for files that are known to be harmless.

    Raises:
        UnreadableError: it can't be read; and as `read_sources`.
    """
    _require_readable(source)
    with Unpacked() as unpacked:
        path = unpacked.path_of(source)
        if source.dataset or source.suffix not in READ_WHOLE:
            yield from read_records(path, source, documents, Said())
        else:
            yield from read_file(path, source, documents).documents


def _require_readable(source: Source) -> None:
    if source.problem:
        raise UnreadableError(source.problem, source.advice)


def _require_there(path: Path, source: Source) -> None:
    if not source.dataset:
        try:
            open_plain(path).close()
        except OSError as error:
            raise unopened(source.name, error) from None


def _begun(records: Iterator[Document]) -> Iterable[Document]:
    """All of the records where they are few; else they are read while they are asked for.

    So most of what can be wrong with a file is found before it is given.
    """
    first: list[Document] = []
    size = 0
    for document in records:
        first.append(document)
        size += len(document.text)
        if len(first) == AHEAD or size >= AHEAD_CHARACTERS:
            return itertools.chain(first, records)
    return first


def _say(said: Said) -> None:
    for encoding, names in sorted(said.encodings.items()):
        note(f"Read as {encoding}: {one_or_many(len(names), 'file')} ({named(names)}).")
    if said.without_text:
        tables = said.without_text
        note(
            f"Without a column text: {named(tables)}. Each row is read as lines of `column: value`; if one "
            "column is the text, documents.fields: {text: NAME} says so."
        )
    for name, count in said.empty.items():
        warn(f"{name}: {one_or_many(count, 'record')} without text left out.")
    if said.silent:
        warn(
            f"Pages that show pictures and hold no text, and are left out: {named(said.silent)}. If they are "
            "scanned, recognise the letters first (`ocrmypdf --skip-text IN.pdf OUT.pdf`), or set "
            "documents.reader: docling."
        )
