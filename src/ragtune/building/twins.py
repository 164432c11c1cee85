"""Passages that are the same, or nearly: MinHash (Broder 1997), 72 bytes a passage and its id.

The shingles of a text are its runs of eight characters, without white space, in one width and case. Of each
text the smallest of sixteen hashes are kept; the share of them that two texts have in common estimates the
share of their shingles. Where one of four bands of them is the same, and most of the others, the texts
themselves are compared: what is told is so, and a few that are nearly the same may be missed.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ragtune.base.text import shortened
from ragtune.building.figures import Twin, TwinFigures, where
from ragtune.data.example import Passage
from ragtune.data.overlap import text_hash
from ragtune.data.words import nfkc

_SHINGLE = 8
_HASHES, _BANDS = 16, 4
_ALIKE = 11
"""Of the hashes, for texts that are compared."""
_SHARE = 0.8
"""Of the shingles of two texts, those that both have, if the texts are nearly the same."""
_EXAMPLES = 10
_TEXT = 160
"""Characters of an example that are kept."""
_LONG = 100_000
"""Characters of a passage that are looked at: a document that stays whole may be a book."""

_DRAWN = np.random.default_rng(20)
# Odd: a product with one of them is another order of all numbers of 64 bits.
_FACTORS = _DRAWN.integers(2**62, 2**63, _HASHES, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_PLACES = _DRAWN.integers(2**62, 2**63, _SHINGLE, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_HALF = np.uint64(32)

Rows = npt.NDArray[np.int64]
"""For each passage the number of an earlier one, or -1."""


class Twins:
    """Takes passages as they come, and tells which of them there are again."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._texts = array("Q")
        self._minima = array("I")
        self._among: int | None = None

    def add(self, passage: Passage) -> None:
        text = _plain(passage)
        self._ids.append(str(passage.passage_id))
        self._texts.append(text_hash(text))
        self._minima.frombytes(_minima(text).tobytes())

    def divide(self) -> None:
        """Compare those that come from here on with those that came before, and not with each other."""
        self._among = len(self._ids)

    def figures(self, passage_of: Callable[[str], Passage]) -> TwinFigures:
        """How many of the passages there are again.

        Args:
            passage_of: a passage by its id, to compare texts and to show examples.
        """
        first = self._among or 0
        exact = _same(np.frombuffer(self._texts, np.uint64), self._among)
        near = _alike(np.frombuffer(self._minima, np.uint32), self._among)
        near[exact >= 0] = -1
        self._confirm(near, passage_of)
        pairs = [(row, int(near[row])) for row in np.flatnonzero(near >= 0)[:_EXAMPLES].tolist()]
        pairs += [(row, int(exact[row])) for row in np.flatnonzero(exact >= 0).tolist()[:_EXAMPLES]]
        return TwinFigures(
            of=len(self._ids) - first,
            exact=int((exact >= 0).sum()),
            near=int((near >= 0).sum()),
            examples=tuple(self._examples(pairs[:_EXAMPLES], passage_of)),
        )

    def _confirm(self, near: Rows, passage_of: Callable[[str], Passage]) -> None:
        """Leave only those whose texts are nearly the same."""
        shingles = lru_cache(256)(lambda row: _shingles(_plain(passage_of(self._ids[row]))))
        for row in np.flatnonzero(near >= 0).tolist():
            one, other = shingles(row), shingles(int(near[row]))
            if len(one & other) < _SHARE * len(one | other):
                near[row] = -1

    def _examples(
        self, pairs: list[tuple[int, int]], passage_of: Callable[[str], Passage]
    ) -> Iterator[Twin]:
        for one, other in pairs:
            passage, before = (passage_of(self._ids[row]) for row in (one, other))
            yield Twin(shortened(passage.text, _TEXT), where(passage), where(before))


def _plain(passage: Passage) -> str:
    return "".join(nfkc(passage.text[:_LONG]).casefold().split())


def _shingles(text: str) -> frozenset[str]:
    return frozenset(text[i : i + _SHINGLE] for i in range(max(1, len(text) - _SHINGLE + 1)))


def _minima(text: str) -> npt.NDArray[np.uint32]:
    """The smallest of the shingles' hashes, of each of sixteen kinds."""
    hashes = np.frombuffer(text.ljust(_SHINGLE).encode("utf-32-le"), "<u4").astype(np.uint64)
    # Of one character, of two, of four, of eight: three products, for this is done for a million passages.
    for width in (1, 2, 4):
        hashes = hashes[:-width] * _PLACES[width] + hashes[width:]
    hashes ^= hashes >> _HALF  # the low bits know little of the characters
    mixed = (hashes[None, :] * _FACTORS[:, None]) >> _HALF
    minima: npt.NDArray[np.uint32] = mixed.min(axis=1).astype(np.uint32)
    return minima


def _same(hashes: npt.NDArray[np.uint64], among: int | None) -> Rows:
    """The first passage with the same hash, of those before."""
    found = np.full(len(hashes), -1)
    order = np.argsort(hashes, kind="stable")
    _take(found, order, order[_firsts(hashes[order])], among)
    return found


def _alike(minima: npt.NDArray[np.uint32], among: int | None) -> Rows:
    """An earlier passage that has most hashes in common, for those where a band leads to one."""
    table = minima.reshape(-1, _HASHES)
    found = np.full(len(table), -1)
    width = _HASHES // _BANDS
    for start in range(0, _HASHES, width):
        band = table[:, start : start + width].astype(np.uint64) @ _PLACES[:width]
        order = np.argsort(band, kind="stable")
        sorted_ = band[order]
        # The first of those with the same band, and the one before: by accident there may be two kinds.
        places = np.arange(len(order))
        for others in (_firsts(sorted_), np.maximum(places - 1, 0)):
            rows = np.flatnonzero((others < places) & (sorted_ == sorted_[others]))
            one, other = order[rows], order[others[rows]]
            alike = (table[one] == table[other]).sum(axis=1) >= _ALIKE
            _take(found, one[alike], other[alike], among)
    return found


def _firsts(keys: npt.NDArray[np.uint64]) -> Rows:
    """Of keys in order, for each the place of the first that equals it."""
    places = np.arange(len(keys))
    begins = np.ones(len(keys), bool)
    begins[1:] = keys[1:] != keys[:-1]
    return np.maximum.accumulate(np.where(begins, places, 0))


def _take(found: Rows, rows: Rows, others: Rows, among: int | None) -> None:
    """Note the others of rows that have none yet: earlier ones, and of those that they are compared with."""
    good = (others < rows) & (found[rows] < 0)
    if among is not None:
        good &= (rows >= among) & (others < among)
    found[rows[good]] = others[good]
