"""Passages found by their words (BM25), in an index of tantivy that lies in a folder.

What it finds, how fast, and what each rule is worth: `bench/retrieval.py`, `bench/million.py` and their
results. What is searched in is one field: a title counts as the passage's first words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.files import remove
from ragtune.base.screen.console import note
from ragtune.base.text import first_line, shortened
from ragtune.base.threads import cores
from ragtune.building.retrieval.manifest import NAME, Manifest
from ragtune.building.retrieval.retriever import Entry, Hit
from ragtune.building.retrieval.segments import (
    CANARY,
    ID,
    TERMS,
    is_there,
    make_segments,
    no_panic,
    open_segments,
    require_tantivy,
    writing,
)
from ragtune.building.retrieval.terms import stemmer, terms_of, weights_of

if TYPE_CHECKING:
    import tantivy

COMMIT_EVERY = 100_000
"""Passages between two commits of one call: what a crash costs at most."""
LONGEST_ID = 1_000
"""Bytes of a passage's id."""
LONGEST_QUESTION = 4_000
"""Characters of a question that are searched for."""
EQUAL = 1e-5
"""Scores that differ by less, relatively, are equal: tantivy adds up 32-bit floats in an order that
depends on how its segments lie."""
_MORE = 8
"""Passages fetched beyond those that are asked for, to see whether equal ones follow."""

_SONG = "ﾃｽﾄの東京タワー２０２４年 The singing canaries' songs in Zürich"
"""What the canary is found by: a bit of everything that terms are made of."""
_BUILD = "Run ragtune build again: it makes the index from the documents."


class LexicalIndex:
    """BM25 over the terms of title and text; an `Index` of `retriever.py`.

    Another process may search while one writes; two can't write at the same time. How seldom a term
    is counts with passages that were removed or replaced, until tantivy merges their segment.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Open an index that is there; `open` and `read` make sure that it fits.

        Raises:
            ValueError, OSError: it is damaged.
        """
        self.folder = folder
        self._language = manifest.language
        self._stem = stemmer(manifest.language)
        with no_panic():
            self._index = open_segments(_segments(folder))
            self._schema = self._index.schema
            self._ask_canary()

    @classmethod
    def open(cls, folder: Path, language: str) -> LexicalIndex:
        """Open the index in a folder to write and to search; one that isn't there is made.

        An index that was made with something else (another language, engine or version of the rules)
        or is damaged is made again, empty, which is said: whoever calls has the passages.

        Raises:
            UsageError: tantivy is not installed.
        """
        require_tantivy()
        now, then = Manifest.here(language), Manifest.read(folder)
        reason = _reason(folder, now, then)
        if then is not None and not reason:
            try:
                return cls(folder, now)
            except (ValueError, OSError) as error:
                reason = f"it is damaged ({first_line(error)})"
        if reason:
            note(f"The index in {folder} is made again: {reason}.")
        remove(folder / NAME)  # without it, what is in the folder is no index
        make_segments(_segments(folder), " ".join(terms_of(_SONG, stemmer(language))))
        now.write(folder)
        return cls(folder, now)

    @classmethod
    def read(cls, folder: Path) -> LexicalIndex:
        """Open an index to search only; nothing in its folder is changed.

        Raises:
            UsageError: tantivy is not installed; there is no index, it was made with something else, or
                it is damaged.
        """
        require_tantivy()
        then = Manifest.read(folder)
        if then is None:
            raise UsageError(f"{folder} holds no index of passages.", _BUILD)
        if reason := _reason(folder, Manifest.here(then.language), then):
            raise UsageError(f"The index in {folder} can't be used: {reason}.", _BUILD)
        try:
            return cls(folder, then)
        except (ValueError, OSError) as error:
            message = f"The index in {folder} is damaged: {first_line(error)}"
            raise UsageError(message, _BUILD) from error

    def __len__(self) -> int:
        """How many passages it holds."""
        return self._searcher().num_docs - 1

    def index(self, passages: Iterable[Entry]) -> None:
        """Add passages; one whose id is there already is replaced.

        After a crash each is there, or isn't (where it was to be replaced, the old one is). Thousands at a
        time are much faster than one.

        Raises:
            UsageError: another process writes; an id is empty or too long.
            RagtuneError: the index can't be written.
        """
        with writing(self._index, self.folder) as writer:
            searcher, fresh = self._searcher(), set[str]()
            for entry in passages:
                name = entry.passage_id
                _check_id(name)
                if name in fresh or searcher.doc_freq(ID, name):
                    writer.delete(name)
                writer.add(name, " ".join(terms_of(f"{entry.title}\n{entry.text}", self._stem)))
                fresh.add(name)
                if len(fresh) == COMMIT_EVERY:
                    writer.commit()
                    searcher = self._searcher()
                    fresh.clear()

    def remove(self, passage_ids: Iterable[str]) -> None:
        """Remove passages; ids that aren't there are no error.

        Raises:
            UsageError: another process writes.
            RagtuneError: the index can't be written.
        """
        searcher = self._searcher()
        there = [one for one in passage_ids if searcher.doc_freq(ID, one)]
        if not there:
            return
        with writing(self._index, self.folder) as writer:
            for one in there:
                writer.delete(one)

    def search(self, questions: Sequence[str], k: int) -> list[list[Hit]]:
        """At most k passages for each question, best first; equal scores in the order of their ids.

        It sees what was committed last, whoever did. tantivy searches without Python's lock: questions
        are dealt to as many threads as there are cores.
        """
        with ThreadPoolExecutor(cores()) as pool:
            try:
                with no_panic():
                    searcher = self._searcher()  # it may be gone since it was opened
                    found = pool.map(
                        lambda question: self._search(searcher, question, k), questions
                    )
                    return list(found)
            except (ValueError, OSError) as error:
                raise RagtuneError(
                    f"The index in {self.folder} is damaged: {first_line(error)}",
                    "Delete this folder, and run ragtune build again: it makes the index from the documents.",
                ) from error

    def _search(self, searcher: tantivy.Searcher, question: str, k: int) -> list[Hit]:
        query = self._query(question[:LONGEST_QUESTION])
        limit = k + _MORE
        while True:
            found = searcher.search(query, limit, count=False).hits
            # Where the last ones are as good as the k-th, those that follow may be so, too.
            if len(found) < limit or not _equal(found[k - 1][0], found[-1][0]):
                break
            limit *= 4
        hits = [Hit(searcher.doc(address)[ID][0], score) for score, address in found]
        return in_order(hits)[:k]

    def _query(self, question: str) -> tantivy.Query:
        """Any of a question's terms."""
        from tantivy import Occur, Query  # noqa: PLC0415 - an extra

        terms = [
            Query.boost_query(Query.term_query(self._schema, TERMS, term, "freq"), weight)
            for term, weight in weights_of(question, self._stem, self._language).items()
        ]
        return Query.boolean_query([(Occur.Should, term) for term in terms])

    def _searcher(self) -> tantivy.Searcher:
        """What sees the last commit."""
        self._index.reload()
        return self._index.searcher()

    def _ask_canary(self) -> None:
        """Raise ValueError unless it is found: else a search could find nothing, and not say so."""
        from tantivy import Occur, Query  # noqa: PLC0415 - an extra

        terms = [
            (Occur.Must, Query.term_query(self._schema, CANARY, term, "freq"))
            for term in set(terms_of(_SONG, self._stem))
        ]
        searcher = self._searcher()
        if not searcher.search(Query.boolean_query(terms), 1, count=False).hits:
            raise ValueError("what is in it is not found")
        searcher.search(self._query(_SONG), 1, count=False)


def in_order(hits: list[Hit]) -> list[Hit]:
    """Hits, best first, where those with equal scores (from now on one and the same) follow by id."""
    ordered: list[Hit] = []
    start = 0
    for end in range(1, len(hits) + 1):
        if end == len(hits) or not _equal(hits[end - 1].score, hits[end].score):
            ids = sorted(hit.passage_id for hit in hits[start:end])
            ordered += [Hit(one, hits[start].score) for one in ids]
            start = end
    return ordered


def _equal(more: float, less: float) -> bool:
    return more - less <= EQUAL * more


def _segments(folder: Path) -> Path:
    return folder / "segments"


def _reason(folder: Path, now: Manifest, then: Manifest | None) -> str:
    """Why an index can't be used as it is; "" if it can, or if there is none."""
    if then is None:
        return "nothing says what it was made with" if is_there(_segments(folder)) else ""
    if not is_there(_segments(folder)):
        return "its files are gone"
    return f"it was made with {changed}" if (changed := then.differs(now)) else ""


def _check_id(passage_id: str) -> None:
    if not passage_id or len(passage_id.encode()) > LONGEST_ID:
        raise UsageError(
            f"The id of a passage, {shortened(passage_id)!r}, is empty or longer than {LONGEST_ID:,} bytes.",
            "Give the document a shorter id or file name.",
        )
