"""Which text of the evaluation stands in the training data, too."""

from __future__ import annotations

import hashlib
import json
import sys
import unicodedata
from array import array
from collections.abc import Iterable
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ragtune.data.words import nfkc

CHUNK = 64
SHARED = 2 * CHUNK
"""Shared text is reported from this length on, in characters."""

CANDIDATES = 100
"""Different chunks of one text that are looked for in the rows that they may come from."""
PLACES = 10_000
"""Places of one text that are compared with those rows."""

Hashes = npt.NDArray[np.uint64]

# A window's hash is the sum of its characters, each times an odd number of its own: the same in
# every process, and one product of a matrix and a vector for all windows of a text.
_FACTORS = np.frombuffer(hashlib.shake_128(b"window").digest(8 * CHUNK), "<u8") | np.uint64(1)


def text_hash(text: str) -> int:
    """64 bits, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def question_key(text: str) -> int:
    """A hash that is the same for texts that differ in width, case, white space or the last signs."""
    plain = "".join(nfkc(text).casefold().split())
    end = len(plain)
    while end and unicodedata.category(plain[end - 1]).startswith("P"):
        end -= 1
    return text_hash(plain[:end] or plain)


class TrainingText:
    """Finds text in the passages of training, of which only hashes are held in memory.

    Training text is hashed in chunks of 64 characters, one after the other, and text of the
    evaluation at every offset. So one hash a chunk does for training, and yet a text of 127
    characters or more that stands in both is always met, wherever it begins: it covers a whole
    chunk. A chunk that is met is a candidate only. The row it comes from is read back and the
    shared text measured, so neither a collision of hashes nor a short phrase is reported.

    Args:
        path: train.jsonl. It is read by `shared`, and must be whole by then.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._passages: dict[int, int] = {}
        self._chunks = array("Q")
        self._chunk_rows = array("I")
        self._texts = lru_cache(16)(self._read_texts)  # the chunks of a text lead to few rows

    def add(self, number: int, texts: Iterable[str]) -> None:
        """Take up the passages of row `number` (from 0)."""
        for text in texts:
            key = text_hash(text)
            if key not in self._passages:  # retrieved for several questions: one row is enough
                self._passages[key] = number
                hashes = _chunk_hashes(text)
                self._chunks.frombytes(hashes.tobytes())
                self._chunk_rows.extend([number] * len(hashes))

    def equal(self, text: str) -> int | None:
        """The first row with this passage, character for character."""
        return self._passages.get(text_hash(text))

    def shared(self, text: str) -> tuple[int, str] | None:
        """A row, and the text of at least SHARED characters that one of its passages shares.

        A chunk that stands in several rows is looked for in the first of them. Another row may
        share more, but then the chunks beside it, which the first lacks, mostly lead there. Of what stands
        there only by accident, no more than CANDIDATES chunks at PLACES places are looked at.
        """
        hashes, rows = self._sorted
        windows = _window_hashes(text)
        if not len(hashes):
            return None
        places = np.minimum(np.searchsorted(hashes, windows), len(hashes) - 1)
        known: dict[str, tuple[int, list[tuple[str, int]]]] = {}
        """By a chunk, the row and where the chunk stands in its texts."""
        for offset in np.flatnonzero(hashes[places] == windows)[:PLACES].tolist():
            chunk = text[offset : offset + CHUNK]
            if chunk not in known and len(known) < CANDIDATES:
                number = int(rows[places[offset]])
                found = [(other, other.find(chunk)) for other in self._texts(number)]
                known[chunk] = number, [pair for pair in found if pair[1] >= 0]
            number, standing = known.get(chunk, (0, []))
            near = [pair for pair in standing if len(_grown(text, offset, *pair, SHARED)) >= SHARED]
            if near:
                return number, max((_grown(text, offset, *pair) for pair in near), key=len)
        return None

    def _read_texts(self, number: int) -> list[str]:
        with self.path.open("rb") as file:
            file.seek(self._starts[number])
            return [passage["text"] for passage in json.loads(file.readline())["passages"]]

    @cached_property
    def _sorted(self) -> tuple[Hashes, npt.NDArray[np.uint32]]:
        """The chunks' hashes, each once and in order, and the first row of each."""
        hashes, first = np.unique(np.frombuffer(self._chunks, np.uint64), return_index=True)
        return hashes, np.frombuffer(self._chunk_rows, np.uint32)[first]

    @cached_property
    def _starts(self) -> array[int]:
        """Where each row begins, in bytes."""
        starts = array("Q", [0])
        with self.path.open("rb") as file:
            for line in file:
                starts.append(starts[-1] + len(line))
        return starts


def _grown(text: str, offset: int, other: str, place: int, most: int = sys.maxsize) -> str:
    """The chunk that stands in both, grown both ways as far as they go along, by at most `most`."""
    before = _in_common(
        text[max(0, offset - most) : offset][::-1], other[max(0, place - most) : place][::-1]
    )
    behind = _in_common(text[offset : offset + most], other[place : place + most])
    return text[offset - before : offset + behind]


def _in_common(one: str, two: str) -> int:
    """How many characters two texts have in common at their beginning."""
    pairs = enumerate(zip(one, two, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(two)))


def _characters(text: str) -> Hashes:
    return np.frombuffer(text.encode("utf-32-le"), "<u4").astype(np.uint64)


def _chunk_hashes(text: str) -> Hashes:
    """Of the chunks one after the other; what is left at the end is in none."""
    whole = len(text) // CHUNK
    hashes: Hashes = _characters(text[: whole * CHUNK]).reshape(whole, CHUNK) @ _FACTORS
    return hashes


def _window_hashes(text: str) -> Hashes:
    """Of the chunk at every offset."""
    if len(text) < CHUNK:
        return np.empty(0, np.uint64)
    windows = np.lib.stride_tricks.sliding_window_view(_characters(text), CHUNK)
    hashes: Hashes = windows @ _FACTORS
    return hashes
