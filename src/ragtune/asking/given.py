"""Documents that are given for the moment: read and cut as a build does, and searched if they are many."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from ragtune.base.disk import named_path
from ragtune.base.errors import UsageError
from ragtune.base.screen.console import note
from ragtune.base.text import one_or_many
from ragtune.building.documents.find import find_files, require_named
from ragtune.building.documents.read import UnreadableError, read_sources
from ragtune.building.language import find_languages
from ragtune.building.reading import Cutters
from ragtune.building.retrieval.lexical import LexicalIndex
from ragtune.building.retrieval.retriever import Entry
from ragtune.data.example import Passage
from ragtune.data.read import records
from ragtune.recipe.corpus import Documents, Passages

_RECORDS = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
_SAMPLE = 1000
"""Passages by which the language is found."""


@dataclass(eq=False)
class Given:
    """Passages of documents; more than a prompt shows are searched by their words."""

    passages: list[Passage]
    language: str = "auto"
    _index: LexicalIndex | None = field(default=None, init=False, repr=False)
    _folder: TemporaryDirectory[str] | None = field(default=None, init=False, repr=False)

    def search(self, questions: Sequence[str], most: int) -> list[list[Passage]]:
        """The passages for each question: all of them in order or, of more than so many, the best."""
        if len(self.passages) <= most:
            return [self.passages for _ in questions]
        hits = self._indexed().search(questions, most)
        return [[self.passages[int(hit.passage_id)] for hit in found] for found in hits]

    def _indexed(self) -> LexicalIndex:
        if self._index is None:
            language = self.language
            if language == "auto":
                language = find_languages([p.text for p in self.passages[:_SAMPLE]]).main
            self._folder = TemporaryDirectory(prefix="ragtune-ask-")
            self._index = LexicalIndex.open(Path(self._folder.name) / "lexical", language)
            # Among equals the first one comes first.
            self._index.index(
                Entry(f"{number:09}", passage.title, passage.text)
                for number, passage in enumerate(self.passages)
            )
        return self._index


def require_given(files: Sequence[str | Path]) -> None:
    """Require documents to be there, or to be datasets of the Hub: it is said before torch is loaded.

    Raises:
        UsageError: one isn't, or has no name.
    """
    if not all(str(file).strip() for file in files):  # else it would be the current folder
        raise UsageError("The name of a document is empty.", "Name a file: --passages FILE.")
    with _without_corpus():
        for file in files:
            require_named(str(file))


def read_given(files: Sequence[str | Path], cut: Passages, most: int) -> Given:
    """Read documents, of every kind that `ragtune build` reads, or passages as they are.

    A file of records {passage_id, title, text}, one a line, holds passages.

    Args:
        files: as `documents.files` of a corpus names them.
        cut: how documents are cut.
        most: as many passages as a prompt shows, for what is said.

    Raises:
        UsageError: one isn't there, or can't be read.
    """
    require_given(files)
    passages = list(itertools.chain.from_iterable(_passages(str(file), cut) for file in files))
    if not passages:
        raise UsageError("The documents hold no text.", "Name other files.")
    count = len(passages)
    each = f": each question is asked with the best {most}" if count > most else ""
    note(f"{one_or_many(count, 'passage')} to answer from{each}.")
    return Given(passages, cut.language)


def _passages(file: str, cut: Passages) -> Iterator[Passage]:
    if file.lower().endswith(_RECORDS) and named_path(file).is_file():
        found = records(file)
        first = next(found, None)
        if first is not None and isinstance(first[1], dict) and "passage_id" in first[1]:
            for where, record in itertools.chain([first], found):
                yield _passage(record, where)
            return
    cutters = Cutters(cut)
    documents = Documents(files=[file])
    with _without_corpus():
        for _, read in read_sources(find_files(documents), documents):
            if isinstance(read, UnreadableError):
                raise read
            for document in read:
                yield from cutters.cut(document)


@contextmanager
def _without_corpus() -> Iterator[None]:
    """What is wrong with documents, in words for whoever has no corpus whose recipe could say more."""
    try:
        yield
    except UsageError as error:
        advice = "Save it as UTF-8." if "documents.encoding" in error.advice else error.advice
        raise type(error)(error.message.replace("documents.files: ", ""), advice) from error


def _passage(record: object, where: str) -> Passage:
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        raise UsageError(
            f"{where}: a passage needs text.", "A passage is {passage_id, title, text}."
        )
    title = record.get("title")
    return Passage(
        record["text"], title if isinstance(title, str) else "", str(record["passage_id"])
    )
