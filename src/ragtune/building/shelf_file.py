"""The file of a shelf: made or opened, and what is wrong with it in words."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from ragtune.base.errors import RagtuneError

_VERSION = 1
_SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE sources (
  name TEXT PRIMARY KEY, digest TEXT NOT NULL, problem TEXT, advice TEXT
) WITHOUT ROWID;
CREATE TABLE documents (
  number INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, source TEXT NOT NULL, file TEXT NOT NULL,
  title TEXT NOT NULL, digest TEXT NOT NULL, characters INTEGER NOT NULL, turn INTEGER NOT NULL
);
CREATE INDEX documents_of ON documents (source);
CREATE TABLE passages (
  number INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, document INTEGER NOT NULL, title TEXT NOT NULL,
  text TEXT NOT NULL, start INTEGER NOT NULL, "end" INTEGER NOT NULL, page INTEGER, heading TEXT NOT NULL
);
CREATE INDEX passages_of ON passages (document);
CREATE TABLE changes (engine TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (engine, id)) WITHOUT ROWID;
CREATE TABLE engines (name TEXT PRIMARY KEY) WITHOUT ROWID;
"""


@contextmanager
def in_words(path: Path) -> Iterator[None]:
    """Raise what SQLite can't do as a RagtuneError."""
    try:
        yield
    except sqlite3.Error as error:
        if "disk is full" in str(error):
            raise RagtuneError(f"{path}: the disk is full.", "Free some space.") from error
        raise RagtuneError(f"{path} can't be used: {error}.", _anew(path)) from error


def _anew(path: Path) -> str:
    return f"Delete {path.name}, and run `ragtune build` again: it is built anew from the files."


def _other_version(path: Path) -> RagtuneError:
    return RagtuneError(f"{path} was written by another version of ragtune.", _anew(path))


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a shelf's file to read what was committed last; others may read or write it meanwhile.

    Raises:
        RagtuneError: it is damaged, of another version, or not there.
    """
    with in_words(path), closing(_read_only(path)) as db:
        if db.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
            raise _other_version(path)
        yield db


def waiting(db: sqlite3.Connection) -> int:
    """How many changes there are that an index doesn't have yet."""
    found: int = db.execute("SELECT count(*) FROM changes").fetchone()[0]
    return found


def _read_only(path: Path) -> sqlite3.Connection:
    where = path.absolute().as_uri()
    # Not as mode=ro: that leaves files behind by which readers and writers know of each other.
    db = sqlite3.connect(f"{where}?mode=rw", uri=True)
    try:
        db.execute("PRAGMA query_only = 1")
        db.execute("SELECT 1 FROM facts")
    except sqlite3.OperationalError:
        # Where nothing can be written there are no such files; and nobody writes there.
        db.close()
        return sqlite3.connect(f"{where}?mode=ro&immutable=1", uri=True)
    return db


def prepare(path: Path, db: sqlite3.Connection) -> None:
    """Make a new file ready, or see that one that is there is of this version."""
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    if version not in (0, _VERSION):
        raise _other_version(path)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    if version == 0:
        db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
