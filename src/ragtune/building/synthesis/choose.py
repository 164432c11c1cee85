"""Which passages questions are written for: drawn by the seed, spread over the documents."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ragtune.data.example import Passage

SHORTEST, SHORTEST_CJK = 120, 50
"""Letters and digits of a passage that says enough to ask for; fewer where a sign is a syllable or a word."""
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_CELLS = re.compile(r"\t|\s\|\s|^\s*\|| {3,}")
"""What parts the cells of a table that was read as text."""
_TABLE = 0.5
"""Share of lines with cells, or of signs that are no letters, from which on a passage is a table."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The passages to be asked for, and why others can't be."""

    passages: tuple[Passage, ...]
    offered: int
    too_short: int
    tables: int


def choose(passages: Sequence[Passage], count: int, seed: int) -> Chosen:
    """Choose at most `count` passages, one of each document before a second of any.

    The order within a document and between documents is by a hash of the seed and the passage: of a corpus
    that grew most of the same passages are chosen, and what was asked for them is still known.

    Args:
        passages: each with its place, in the order of their documents.
        count: how many, at most.
        seed: draws them.
    """
    short = tables = 0
    ranked: list[tuple[int, str, Passage]] = []
    for document in _documents(passages):
        fit: list[tuple[str, Passage]] = []
        for passage in document:
            if is_short(passage.text):
                short += 1
            elif is_table(passage.text):
                tables += 1
            else:
                fit.append((_drawn(seed, passage), passage))
        fit.sort(key=lambda one: one[0])
        ranked += [(turn, rank, passage) for turn, (rank, passage) in enumerate(fit)]
    ranked.sort(key=lambda one: one[:2])
    return Chosen(tuple(p for _, _, p in ranked[:count]), len(passages), short, tables)


def is_short(text: str) -> bool:
    """Whether a text says too little to ask for."""
    signs = sum(map(str.isalnum, text))
    cjk = len(_CJK.findall(text))
    return signs < (SHORTEST_CJK if 2 * cjk >= signs else SHORTEST)


def is_table(text: str) -> bool:
    """Whether a text is rows of cells or of numbers, of which nobody asks in a sentence."""
    lines = [line for line in text.splitlines() if line.strip()]
    cells = sum(_CELLS.search(line) is not None for line in lines)
    signs = sum(not c.isspace() for c in text)
    return cells >= _TABLE * len(lines) or sum(map(str.isalpha, text)) < _TABLE * signs


def _documents(passages: Sequence[Passage]) -> Iterator[list[Passage]]:
    """The passages of each document: another one begins where the file changes, or its text begins anew."""
    found: list[Passage] = []
    for passage in passages:
        before, here = found[-1].place if found else None, passage.place
        assert here is not None
        if before and (here.file != before.file or here.start <= before.start):
            yield found
            found = []
        found.append(passage)
    if found:
        yield found


def _drawn(seed: int, passage: Passage) -> str:
    text = f"{seed}\n{passage.passage_id}\n{passage.text}"
    return hashlib.sha256(text.encode()).hexdigest()
