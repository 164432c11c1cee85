"""The file of a shelf: made or opened, and what is wrong with it in words."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
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
        raise RagtuneError(
            f"{path} can't be used: {error}.",
            f"Delete {path.name}, and run the command again: it is built anew from the files.",
        ) from error


def prepare(path: Path, db: sqlite3.Connection) -> None:
    """Make a new file ready, or see that one that is there is of this version."""
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    if version not in (0, _VERSION):
        raise RagtuneError(
            f"{path} was written by another version of ragtune.",
            f"Delete {path.name}, and run the command again: it is built anew from the files.",
        )
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    if version == 0:
        db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
