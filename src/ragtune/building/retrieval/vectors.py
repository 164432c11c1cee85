"""Vectors with ids in a folder: added, replaced, removed, and searched exactly, a block at a time.

The vectors lie in blocks (safetensors); a database (SQLite) says which row of which block belongs to which
id. A block is written first and becomes a part of the whole by one transaction, so a kill at any moment
leaves what was committed, and at most a file that nothing names: the next change removes it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ragtune.base.disk import disk_errors
from ragtune.base.errors import RagtuneError
from ragtune.building.retrieval.retriever import Hit

Matrix = NDArray[np.float32]

ROWS = 4096
"""Vectors of a full block: what a kill may cost, and what is in memory at a time (12 MB of 768 numbers)."""
_FEW = 16
"""So many blocks may be less than half full before they are joined."""
_QUESTIONS = 256
"""Questions whose scores with a block are in memory at a time: 4 MB."""
_CLOSE = 1e-5
"""How far a score in float32 may be off, relative to the largest: what is as close to the k-th best is
computed again, alone, so that equal vectors have equal scores wherever they lie."""
_DIGITS = 6
"""Of a score: the same text gets vectors that differ in the seventh by what else was in its batch."""
_TABLE = """
CREATE TABLE IF NOT EXISTS vectors (
    id TEXT PRIMARY KEY, digest TEXT NOT NULL, block INTEGER NOT NULL, row INTEGER NOT NULL
) WITHOUT ROWID
"""
_BY_BLOCK = "CREATE INDEX IF NOT EXISTS by_block ON vectors (block, row)"


class Vectors:
    """Vectors with ids in a folder. One process changes them at a time, while none reads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        # Several threads may ask, one after the other.
        self._rows = sqlite3.connect(folder / "rows.sqlite", check_same_thread=False)
        with self._reading():
            if not self._rows.execute("SELECT 1 FROM sqlite_master").fetchone():
                self._rows.execute(_TABLE)
                self._rows.execute(_BY_BLOCK)

    def __len__(self) -> int:
        with self._reading():
            return int(self._rows.execute("SELECT COUNT(*) FROM vectors").fetchone()[0])

    def close(self) -> None:
        self._rows.close()

    def digests(self, ids: Sequence[str]) -> dict[str, str]:
        """What each vector was made of; nothing for ids that aren't there."""
        with self._reading():
            found = (
                self._rows.execute("SELECT digest FROM vectors WHERE id = ?", (one,)).fetchone()
                for one in ids
            )
            return {one: row[0] for one, row in zip(ids, found, strict=True) if row}

    def add(self, ids: Sequence[str], digests: Sequence[str], vectors_ND: Matrix) -> None:
        """Add vectors, or replace those of the same ids: all of them, or none if it is killed."""
        for start in range(0, len(ids), ROWS):
            part = slice(start, start + ROWS)
            block = self._write(vectors_ND[part])
            rows = zip(ids[part], digests[part], range(ROWS), strict=False)
            with self._reading(), self._rows:
                self._rows.executemany(
                    "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)",
                    ((one, digest, block, row) for one, digest, row in rows),
                )
        self._tidy()

    def remove(self, ids: Iterable[str]) -> None:
        """Remove vectors; ids that aren't there are no error."""
        with self._reading(), self._rows:
            self._rows.executemany("DELETE FROM vectors WHERE id = ?", ((one,) for one in ids))
        self._tidy()

    def nearest(self, questions_QD: Matrix, k: int) -> list[list[Hit]]:
        """The k vectors with the largest dot product for each question, exactly; equal ones by their ids."""
        best: list[list[Hit]] = [[] for _ in questions_QD]
        for block in self._blocks():
            ids, vectors_ND = self._read(block)
            for start in range(0, len(questions_QD), _QUESTIONS):
                part_QD = questions_QD[start : start + _QUESTIONS]
                scores_QN = part_QD @ vectors_ND.T
                margin = _CLOSE * max(1.0, float(np.abs(scores_QN).max()))
                for number, scores_N in enumerate(scores_QN, start):
                    rows = np.flatnonzero(scores_N >= _least(scores_N, best[number], k) - margin)
                    if len(rows):
                        exact = _exactly(questions_QD[number], vectors_ND[rows])
                        found = [Hit(ids[r], s) for r, s in zip(rows, exact, strict=True)]
                        best[number] = _first(best[number] + found, k)
        return best

    def _blocks(self) -> list[int]:
        with self._reading():
            query = "SELECT DISTINCT block FROM vectors ORDER BY block"
            return [block for (block,) in self._rows.execute(query)]

    def _read(self, block: int) -> tuple[list[str], Matrix]:
        """The ids and vectors of a block that are still valid."""
        query = "SELECT id, row FROM vectors WHERE block = ? ORDER BY row"
        with self._reading():
            found = self._rows.execute(query, (block,)).fetchall()
            with safe_open(self._path(block), "np") as file:
                vectors_ND: Matrix = file.get_tensor("vectors")
            rows = [row for _, row in found]
            whole = len(rows) == len(vectors_ND)
            return [one for one, _ in found], vectors_ND if whole else vectors_ND[rows]

    def _write(self, vectors_ND: Matrix) -> int:
        """Write a block that nothing names yet; its number."""
        taken = [int(path.stem) for path in self._folder.glob("*.safetensors")]
        block = max(taken, default=0) + 1
        path = self._path(block)
        with disk_errors(path, vectors_ND.nbytes):
            save_file({"vectors": np.ascontiguousarray(vectors_ND, np.float32)}, path)
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        return block

    def _tidy(self) -> None:
        """Join blocks that are mostly empty, and remove files that nothing names (any more)."""
        with self._reading():
            query = "SELECT block, COUNT(*) FROM vectors GROUP BY block ORDER BY block"
            sizes = dict(self._rows.execute(query).fetchall())
        small = [block for block, size in sizes.items() if size < ROWS / 2]
        if len(small) > _FEW:
            self._join(small)
            sizes = dict.fromkeys(self._blocks(), 0)
        with disk_errors(self._folder):
            for path in self._folder.glob("*.safetensors"):
                if int(path.stem) not in sizes:
                    path.unlink()

    def _join(self, blocks: Sequence[int]) -> None:
        """Write these blocks as fewer, in one transaction."""
        held: list[tuple[list[str], Matrix]] = []
        moved: list[tuple[int, int, str]] = []

        def put_down() -> None:
            ids = [one for part, _ in held for one in part]
            block = self._write(np.concatenate([part for _, part in held]))
            moved.extend((block, row, one) for row, one in enumerate(ids))
            held.clear()

        for block in blocks:
            held.append(self._read(block))
            if sum(len(ids) for ids, _ in held) > ROWS / 2:
                put_down()
        if held:
            put_down()
        with self._reading(), self._rows:
            self._rows.executemany("UPDATE vectors SET block = ?, row = ? WHERE id = ?", moved)

    def _path(self, block: int) -> Path:
        return self._folder / f"{block:06d}.safetensors"

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.DatabaseError, SafetensorError, FileNotFoundError, IndexError) as error:
            raise RagtuneError(
                f"The index in {self._folder} is damaged ({error}).",
                "Delete this folder and run the same command again: the index is then made anew.",
            ) from error


def _least(scores_N: Matrix, best: Sequence[Hit], k: int) -> float:
    """A score below which nothing can be among the k best."""
    if len(best) >= k:
        return best[k - 1].score
    return float(np.partition(scores_N, -k)[-k]) if len(scores_N) > k else -np.inf


def _exactly(question_D: Matrix, vectors_ND: Matrix) -> list[float]:
    """Scores that don't depend on where a vector lies."""
    products_ND = vectors_ND.astype(np.float64) * question_D.astype(np.float64)
    return [round(float(score), _DIGITS) for score in products_ND.sum(axis=1)]


def _first(hits: list[Hit], k: int) -> list[Hit]:
    return sorted(hits, key=lambda hit: (-hit.score, hit.passage_id))[:k]
