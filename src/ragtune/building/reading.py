"""Documents onto the shelf: what is new or changed is read and cut, what is gone is forgotten."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.screen.console import note, warn
from ragtune.base.screen.progress import progress
from ragtune.base.stopping import stop_if_asked
from ragtune.base.text import named, one_or_many
from ragtune.building.documents.document import (
    ClashError,
    Document,
    UnreadableError,
    UnreadYetError,
)
from ragtune.building.documents.read import Source, find_files, read_sources
from ragtune.building.language import find_language
from ragtune.building.passages import Cutter
from ragtune.building.questions import Question
from ragtune.building.shelf import Shelf
from ragtune.data.example import Passage
from ragtune.recipe.corpus import Corpus, Passages
from ragtune.store.proof import fingerprint

_SHOWN = 5
"""Files that a message names."""
_RULES = 1
"""Of reading and cutting: another number where ragtune makes other passages of the same files."""
_WRITTEN = ("train.jsonl", "eval.jsonl", "work", "index")
"""What a build writes into its folder, of the kinds that are read."""
BROUGHT = "questions"
"""The source of passages that the questions' own files bring."""


@dataclass(frozen=True, slots=True)
class Brought:
    """Passages that questions bring."""

    passages: dict[str, Passage]
    """By ids of which each names one text."""
    of: dict[str, list[str]]
    """By qid, those that a question brings."""


def brought_by(questions: Sequence[Question]) -> Brought:
    """The passages that questions bring, each once, in their order.

    Most formats have no ids for them, and files that were numbered each for itself have the same ids for
    others: such a passage is called by its text.
    """
    passages: dict[str, Passage] = {}
    of: dict[str, list[str]] = {}
    for question in questions:
        for passage in question.passages:
            digest = hashlib.sha256(f"{passage.title}\n{passage.text}".encode()).hexdigest()[:16]
            name = digest if passage.passage_id is None else str(passage.passage_id)
            first = passages.get(name, passage)
            if (first.title, first.text) != (passage.title, passage.text):
                name = f"{name} ({digest})"
            passages.setdefault(name, passage)
            of.setdefault(question.qid, []).append(name)
    return Brought(passages, of)


def fill(shelf: Shelf, corpus: Corpus, brought: Brought, *, strict: bool) -> None:
    """Bring the shelf up to date with the corpus's files.

    Args:
        shelf: where they go.
        corpus: what to read, and how.
        brought: passages that the questions' own files bring.
        strict: whether one file that can't be read is an error.

    Raises:
        UsageError: nothing could be read, or with `strict` something.
    """
    cutters = Cutters(corpus.passages)
    _start_anew_if_read_otherwise(shelf, corpus)
    sources = find_files(corpus.documents) if corpus.documents.files else []
    sources = _without_own(sources, shelf.path.parent)
    known = shelf.sources()
    with progress("Looking", len(sources), unit="files") as update:
        digests = {}
        for number, source in enumerate(sources, 1):
            digests[source.name] = source.digest()
            update(number)
    for name in known.keys() - digests.keys() - {BROUGHT}:
        shelf.drop(name)
    changed = {s.name for s in sources if known.get(s.name) != digests[s.name]}
    while changed:
        changed = _read(shelf, corpus, sources, changed, digests, cutters)
    _put_brought(shelf, brought.passages, cutters)
    _tell(shelf, strict=strict)


class Cutters:
    """Cuts each document by the rules of its language."""

    def __init__(self, passages: Passages) -> None:
        self._cutter = cache(lambda language: Cutter(passages, language))
        self._language = None if passages.language == "auto" else passages.language

    def cut(self, document: Document) -> list[Passage]:
        found: list[Passage] = self._cutter(self._language or find_language([document.text])).cut(
            document
        )
        return found


def _start_anew_if_read_otherwise(shelf: Shelf, corpus: Corpus) -> None:
    how = fingerprint(
        [
            _RULES,
            corpus.documents.model_dump(mode="json", include={"fields", "encoding", "reader"}),
            corpus.passages.model_dump(mode="json"),
        ]
    )
    before = shelf.fact("how")
    if before not in (None, how):
        note("Documents are read and cut otherwise than before: all of them are read again.")
        shelf.clear()
    shelf.keep_fact("how", how)


def _without_own(sources: list[Source], folder: Path) -> list[Source]:
    """Without what a build wrote into this folder: it is no document, and another one each time."""
    written = tuple(folder.resolve() / name for name in _WRITTEN)
    kept = [s for s in sources if s.dataset or not _is_of(s.path.resolve(), written)]
    if len(kept) < len(sources):
        note(
            f"Left out: {one_or_many(len(sources) - len(kept), 'file')} in {folder}, which build wrote itself."
        )
    return kept


def _is_of(path: Path, written: tuple[Path, ...]) -> bool:
    return any(path.is_relative_to(one) for one in written)


def _read(
    shelf: Shelf,
    corpus: Corpus,
    every: list[Source],
    changed: set[str],
    digests: dict[str, str],
    cutters: Cutters,
) -> set[str]:
    """Read the sources that changed; returns the names of those that must be read again after that.

    Of two sources with the same id the first one keeps it, as in a build from nothing: if the other one
    has it already, it gives it back, and both are read once more.
    """
    sources = [source for source in every if source.name in changed]
    order = {source.name: number for number, source in enumerate(every)}
    again: set[str] = set()
    with progress("Reading", len(sources), unit="files") as update:
        for number, (source, found) in enumerate(read_sources(sources, corpus.documents), 1):
            stop_if_asked()
            problem = found if isinstance(found, UnreadableError) else None
            if not isinstance(found, UnreadableError):
                cut = ((document, cutters.cut(document)) for document in found)
                try:
                    shelf.put(source.name, digests[source.name], cut)
                except UnreadableError as error:  # in the middle of many records
                    problem = error
            if isinstance(problem, ClashError) and (
                order.get(problem.other, len(order)) > order[source.name]
            ):
                shelf.drop(problem.other)
                again |= {source.name, problem.other} & order.keys()
            elif problem is not None:
                momentary = isinstance(problem, UnreadYetError)
                shelf.put_problem(source.name, "" if momentary else digests[source.name], problem)
            update(number, source.name)
    return again


def _put_brought(shelf: Shelf, brought: dict[str, Passage], cutters: Cutters) -> None:
    """Put the passages on the shelf that questions bring, but those that the documents have by that id."""
    if not brought and BROUGHT not in shelf.sources():
        return
    there = {n for n, file, _ in shelf.documents() if file != BROUGHT and n in brought}
    there |= {n for n, p in shelf.passages(brought).items() if p.place and p.place.file != BROUGHT}
    new = [(name, p) for name, p in brought.items() if name not in there]
    digest = fingerprint([[name, p.title, p.text] for name, p in new])
    if shelf.sources().get(BROUGHT) == digest:
        return
    documents = (Document(name, BROUGHT, p.title, p.text) for name, p in new)
    shelf.put(BROUGHT, digest, ((one, cutters.cut(one)) for one in documents))


def _tell(shelf: Shelf, *, strict: bool) -> None:
    unread = shelf.unread()
    for name, problem, advice in unread[:_SHOWN]:
        warn(f"{name} is left out: {problem} {advice}".rstrip())
    if len(unread) > _SHOWN:
        warn(
            f"And {one_or_many(len(unread) - _SHOWN, 'file more is', 'files more are')} left out: build.json "
            "names them."
        )
    if unread and strict:
        raise UsageError(
            f"{one_or_many(len(unread), 'file')} can't be read ({named([one[0] for one in unread])}).",
            "Mend or remove them, or leave --strict away.",
        )
    documents, passages = shelf.count()
    if not passages:
        raise RagtuneError(
            "There is no passage: no document has text.",
            "Name other files in documents.files. Scans need documents.reader: docling.",
        )
    note(f"{one_or_many(documents, 'document')}, {one_or_many(passages, 'passage')}.")
