"""The shelf: what was read and how it was cut, in one SQLite file, and which of it an index doesn't have yet.

A source that changes replaces its own documents, in one transaction; of these, what is as before stays.
Each index works off its own list of changes, and an entry leaves it when the index says that it has it: a
kill at any moment costs the work of that moment.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Self

from ragtune.base.disk import disk_errors
from ragtune.base.errors import RagtuneError
from ragtune.base.text import shortened
from ragtune.building.documents.document import ClashError, Document, UnreadableError
from ragtune.building.retrieval.pieces import pieces
from ragtune.building.retrieval.retriever import Entry
from ragtune.building.shelf_file import in_words, prepare
from ragtune.data.example import Passage, Place

_PASSAGE = """SELECT p.id, p.title, p.text, d.file, p.start, p."end", p.page, p.heading, d.id
FROM passages p JOIN documents d ON d.number = p.document"""
_DOCUMENT = "SELECT p.id, d.id FROM passages p JOIN documents d ON d.number = p.document"
_TWO = "An id names one document of a corpus: give one of the two another."
LONGEST_ID = 980
"""Bytes of a document's id; those of its passages have a number behind it, and no index takes longer ones."""
_MANY = 500
"""Of names in one question to SQLite."""


class Shelf:
    """Documents and their passages, by name."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._db = connection

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[Self]:
        """A shelf that is there, or a new one. Within it, what SQLite can't do ends in words.

        Raises:
            RagtuneError: damaged, of another version, or no room.
        """
        with (
            disk_errors(path),
            in_words(path),
            closing(sqlite3.connect(path, isolation_level=None)) as db,
        ):
            try:
                prepare(path, db)
            except UnicodeDecodeError as error:  # of the name of something damaged
                raise sqlite3.DatabaseError(str(error)) from error
            yield cls(path, db)

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:  # Ctrl-C, too, leaves nothing half-written
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # Facts.

    def fact(self, name: str) -> str | None:
        found = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return str(found[0]) if found else None

    def keep_fact(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    # Sources.

    def sources(self) -> dict[str, str]:
        """The digest of each source that was read, or tried."""
        return dict(self._db.execute("SELECT name, digest FROM sources"))

    def unread(self) -> list[tuple[str, str, str]]:
        """Name, problem and advice of each source that could not be read."""
        return self._db.execute(
            "SELECT name, problem, advice FROM sources WHERE problem IS NOT NULL ORDER BY name"
        ).fetchall()

    def put(
        self, source: str, digest: str, documents: Iterable[tuple[Document, Sequence[Passage]]]
    ) -> int:
        """Let a source hold these documents and no others; returns how many are new or changed.

        Raises:
            ClashError: another document has the id of one of them.
            UnreadableError: an id is too long.
        """
        changed = 0
        with self._all_or_nothing():
            turn = int(self.fact("turn") or 0) + 1
            self.keep_fact("turn", str(turn))
            for document, passages in documents:
                changed += self._put_document(source, turn, document, passages)
            self._drop("source = ? AND turn <> ?", (source, turn))
            self._db.execute(
                "INSERT OR REPLACE INTO sources VALUES (?, ?, NULL, NULL)", (source, digest)
            )
        return changed

    def _put_document(
        self, source: str, turn: int, document: Document, passages: Sequence[Passage]
    ) -> bool:
        if len(document.id.encode("utf-8", "surrogatepass")) > LONGEST_ID:
            raise UnreadableError(
                f"{source}: the id {shortened(document.id)!r} is longer than {LONGEST_ID} bytes.",
                "Give it a shorter id, or the file a shorter path.",
            )
        digest = _digest(document)
        there = self._db.execute(
            "SELECT number, source, digest, turn FROM documents WHERE id = ?", (document.id,)
        ).fetchone()
        if there and there[1] == source and there[3] == turn:
            raise UnreadableError(
                f"{source} holds two documents that are called {shortened(document.id)!r}.", _TWO
            )
        if there and there[1] != source:
            raise ClashError(document.id, source, there[1])
        if there and there[2] == digest:
            self._db.execute("UPDATE documents SET turn = ? WHERE number = ?", (turn, there[0]))
            return False
        if there:
            self._drop("number = ?", (there[0],))
        number = self._db.execute(
            "INSERT INTO documents (id, source, file, title, digest, characters, turn) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (document.id, source, document.file, document.title, digest, len(document.text), turn),
        ).lastrowid
        self._require_free(source, turn, document, passages)
        rows = [
            (
                str(p.passage_id),
                number,
                p.title,
                p.text,
                p.place.start,
                p.place.end,
                p.place.page,
                p.place.heading,
            )
            for p in passages
            if p.place is not None
        ]
        self._db.executemany(
            'INSERT INTO passages (id, document, title, text, start, "end", page, heading) '
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        )
        self._changed("SELECT id FROM passages WHERE document = ?", (number,))
        return True

    def _require_free(
        self, source: str, turn: int, document: Document, passages: Sequence[Passage]
    ) -> None:
        """Raise unless its passages have ids of their own: a long text A is cut into A#1, A#2 and so on."""
        for name, owner in self.document_of(str(p.passage_id) for p in passages).items():
            there = self._db.execute(
                "SELECT number, source, turn FROM documents WHERE id = ?", (owner,)
            ).fetchone()
            if there is None:
                continue  # dropped, for another passage of it
            if there[1] != source:
                raise ClashError(name, source, there[1])
            if there[2] == turn:
                raise UnreadableError(
                    f"{source} holds documents that are called {shortened(document.id)!r} and "
                    f"{shortened(owner)!r}: {shortened(name)!r} would be a passage of "
                    "both.",
                    _TWO,
                )
            self._drop(
                "number = ?", (there[0],)
            )  # as it was before: if it is still there, it comes

    def put_problem(self, source: str, digest: str, error: RagtuneError) -> None:
        """Note that a source can't be read; what it held before is gone.

        With a `digest` of "" it is tried again next time.
        """
        with self._all_or_nothing():
            self._drop("source = ?", (source,))
            self._db.execute(
                "INSERT OR REPLACE INTO sources VALUES (?, ?, ?, ?)",
                (source, digest, error.message, error.advice),
            )

    def drop(self, source: str) -> None:
        """Forget a source and its documents."""
        with self._all_or_nothing():
            self._drop("source = ?", (source,))
            self._db.execute("DELETE FROM sources WHERE name = ?", (source,))

    def clear(self) -> None:
        """Forget every source: they are read and cut otherwise now."""
        with self._all_or_nothing():
            self._drop("1", ())
            self._db.execute("DELETE FROM sources")

    def _drop(self, where: str, values: tuple[str | int, ...]) -> None:
        """Remove documents and their passages. `where` is ours, never a user's."""
        chosen = f"SELECT number FROM documents WHERE {where}"  # noqa: S608 - as it says
        self._changed(f"SELECT id FROM passages WHERE document IN ({chosen})", values)  # noqa: S608 - as above
        self._db.execute(f"DELETE FROM passages WHERE document IN ({chosen})", values)  # noqa: S608 - as above
        self._db.execute(f"DELETE FROM documents WHERE {where}", values)  # noqa: S608 - as above

    def _changed(self, ids: str, values: tuple[str | int | None, ...]) -> None:
        if not self._db.execute(f"SELECT EXISTS ({ids})", values).fetchone()[0]:
            return
        self._db.execute(
            f"INSERT OR IGNORE INTO changes SELECT e.name, c.id FROM engines e, ({ids}) c",  # noqa: S608 - as above
            values,
        )
        self._db.execute(
            "INSERT OR REPLACE INTO facts VALUES ('version', lower(hex(randomblob(16))))"
        )

    # Passages.

    @property
    def version(self) -> str:
        """Another one after each change of the passages."""
        return self.fact("version") or ""

    def count(self) -> tuple[int, int]:
        """How many documents and passages there are."""
        documents: int = self._db.execute("SELECT count(*) FROM documents").fetchone()[0]
        passages: int = self._db.execute("SELECT count(*) FROM passages").fetchone()[0]
        return documents, passages

    def documents(self) -> Iterator[tuple[str, str, int]]:
        """Id, file and number of passages of each document, in the order of their ids."""
        yield from self._db.execute(
            "SELECT d.id, d.file, count(p.number) FROM documents d LEFT JOIN passages p "
            "ON p.document = d.number GROUP BY d.number ORDER BY d.id"
        )

    def passages(self, ids: Iterable[str]) -> dict[str, Passage]:
        """The passages with these ids, as far as they are there."""
        return {row[0]: _passage(row) for row in self._found(_PASSAGE, ids)}

    def in_order(self, ids: Iterable[str]) -> Iterator[Passage]:
        """The passages with these ids, which are there, one by one and some read at a time."""
        for some in pieces(ids, _MANY):
            there = self.passages(some)
            yield from (there[one] for one in some)

    def named(self, names: Iterable[str]) -> dict[str, tuple[set[str], set[str]]]:
        """The documents, and passages of theirs, that names mean; what isn't there is left out.

        A name is a passage's or document's id, a record's own id, a file with or without its folder, or a
        title.
        """
        wanted = set(names)
        found: dict[str, tuple[set[str], set[str]]] = {}
        for passage, document in self.document_of(wanted).items():
            found[passage] = ({document}, {passage})
        if not (wanted := wanted - found.keys()):
            return found
        for name, file, title in self._db.execute("SELECT id, file, title FROM documents"):
            own = name.removeprefix(f"{file}#")
            for one in {name, own, file, PurePosixPath(file).name, title} & wanted:
                found.setdefault(one, (set(), set()))[0].add(name)
        return found

    def document_of(self, ids: Iterable[str]) -> dict[str, str]:
        """The document of each passage."""
        return dict(self._found(_DOCUMENT, ids))

    def every_passage(self) -> Iterator[tuple[Passage, str]]:
        """All passages with their documents' ids, in the order in which they were read."""
        with closing(self._db.execute(f"{_PASSAGE} ORDER BY p.number")) as rows:
            for row in rows:
                yield _passage(row), row[8]

    def sample(self, most: int) -> list[str]:
        """The texts of some passages, from everywhere."""
        step = self.count()[1] // most + 1
        rows = self._db.execute("SELECT text FROM passages WHERE number % ? = 0", (step,))
        return [row[0] for row in rows]

    def _found(self, query: str, ids: Iterable[str]) -> Iterator[Any]:
        for some in pieces(dict.fromkeys(ids), _MANY):
            marks = ", ".join("?" * len(some))
            yield from self._db.execute(f"{query} WHERE p.id IN ({marks})", some)

    # What an index doesn't have yet.

    def knows(self, engine: str) -> bool:
        """Whether a list of changes is kept for an index."""
        found = self._db.execute("SELECT 1 FROM engines WHERE name = ?", (engine,)).fetchone()
        return found is not None

    def attach(self, engine: str, *, empty: bool) -> int:
        """Keep a list of changes for an index from now on; returns how many wait. `empty`: it lacks all."""
        with self._all_or_nothing():
            known = self.knows(engine)
            self._db.execute("INSERT OR IGNORE INTO engines VALUES (?)", (engine,))
            if empty or not known:
                self._db.execute(
                    "INSERT OR IGNORE INTO changes SELECT ?, id FROM passages", (engine,)
                )
        waiting: int = self._db.execute(
            "SELECT count(*) FROM changes WHERE engine = ?", (engine,)
        ).fetchone()[0]
        return waiting

    def waiting(self, engine: str, most: int) -> tuple[list[str], list[Entry]]:
        """Some of what an index doesn't have yet: ids that are to go, and passages to be put in.

        A passage that changed is among both: what it was goes, what it is comes.
        """
        rows = self._db.execute(
            "SELECT c.id, p.title, p.text FROM changes c LEFT JOIN passages p ON p.id = c.id "
            "WHERE c.engine = ? LIMIT ?",
            (engine, most),
        ).fetchall()
        return [row[0] for row in rows], [Entry(*row) for row in rows if row[2] is not None]

    def done(self, engine: str, ids: Iterable[str]) -> None:
        """An index has these changes."""
        with self._all_or_nothing():
            self._db.executemany(
                "DELETE FROM changes WHERE engine = ? AND id = ?", ((engine, one) for one in ids)
            )


def _passage(row: tuple[str, str, str, str, int, int, int | None, str]) -> Passage:
    name, title, text, file, start, end, page, heading = row[:8]
    return Passage(text, title, name, Place(file, start, end, page, heading))


def _digest(document: Document) -> str:
    marks = [(m.start, m.page, m.heading) for m in document.marks]
    whole = json.dumps([document.file, document.title, document.text, marks], ensure_ascii=False)
    return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()
