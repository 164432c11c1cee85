"""A few sizes for all rows: shorter ones are filled up, so that what a GPU is told for one does for others."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from torch import Tensor
from torch.nn.functional import pad

from ragtune.data.encode import IGNORE, Sample

_GRAIN = 64
"""Of which every size is a multiple."""
_KINDS = 128
"""Lengths that are told apart."""
_FILLER = 0.02
"""Of all tokens: with so much more sizes aren't worth their capture."""


@dataclass(frozen=True)
class RowSize:
    """What rows of a size have room for."""

    tokens: int
    samples: int
    trained: int
    """tokens that are"""
    longest: int
    """tokens of a sample, or of the filler"""


def choose_sizes(rows: Sequence[Sequence[Sample]], most: int) -> list[RowSize]:
    """The fewest sizes with which little of the rows is filler, at most so many; from small to large."""
    lengths = [sum(map(len, row)) for row in rows]
    grain = _GRAIN * -(-max(lengths) // (_GRAIN * _KINDS))
    rounded = [-(-length // grain) * grain for length in lengths]
    found = Counter(rounded)
    kinds = sorted(found)
    counts = [*accumulate((found[kind] for kind in kinds), initial=0)]
    allowed = (1 + _FILLER) * sum(lengths)
    # Of the first n kinds in k sizes: the tokens with filler, and the sizes.
    best: list[tuple[int, tuple[int, ...]]] = [
        (kind * counts[n], (kind,)) for n, kind in enumerate(kinds, 1)
    ]
    for _ in range(most - 1):
        if best[-1][0] <= allowed:
            break
        best = [
            min([best[n]] + [
                (best[m][0] + kind * (counts[n + 1] - counts[m + 1]), (*best[m][1], kind))
                for m in range(n)
            ])
            for n, kind in enumerate(kinds)
        ]  # fmt: skip
    return [
        _size(tokens, [r for r, n in zip(rows, lengths, strict=True) if below < n <= tokens])
        for below, tokens in pairwise((0, *best[-1][1]))
    ]


def _size(tokens: int, rows: Sequence[Sequence[Sample]]) -> RowSize:
    """Of rows that are filled up to so many tokens."""
    filler = tokens - min(sum(map(len, row)) for row in rows)
    return RowSize(
        tokens=tokens,
        samples=max(map(len, rows)),
        trained=max(sum(len(sample.completion_ids) for sample in row) for row in rows),
        longest=max(filler, *(len(sample) for row in rows for sample in row)),
    )


def size_for(row: dict[str, Any], sizes: Sequence[RowSize]) -> RowSize | None:
    """The smallest size that has room for a packed row of the collator; None if none has."""
    at = bisect_left([size.tokens for size in sizes], row["input_ids"].shape[1])
    if at == len(sizes):
        return None
    size = sizes[at]
    fits = len(row["cu_seq_lens_q"]) - 1 <= size.samples and len(row["targets"]) <= size.trained
    return size if fits else None


def fill_up(row: dict[str, Any], size: RowSize) -> dict[str, Any]:
    """A packed row with one sample more, which trains nothing, so that it has a size.

    Returns, of a row of the collator: what the model reads, targets, places and the index; `T` is the size's
    tokens, `S` its samples and the filler, `K` its trained tokens, of which those that aren't are IGNORE.
    """
    ids_1T: Tensor = row["input_ids"]
    filler = size.tokens - ids_1T.shape[1]
    borders: Tensor = row["cu_seq_lens_q"]
    # Where there are fewer samples the last ones have no tokens.
    borders = pad(borders, (0, size.samples + 2 - len(borders)), value=size.tokens)
    left = size.trained - len(row["targets"])
    return {
        "input_ids": pad(ids_1T, (0, filler)),
        # The filler may be longer than a text that the model can tell the places of.
        "position_ids": pad(row["position_ids"], (0, filler)),
        "cu_seq_lens_q": borders,
        "cu_seq_lens_k": borders,
        "max_length_q": size.longest,
        "max_length_k": size.longest,
        "logits_to_keep": pad(row["logits_to_keep"], (0, left), value=size.tokens - 1),
        "targets": pad(row["targets"], (0, left), value=IGNORE),
        "places": pad(row["places"], (0, filler)),
        "row": row["row"],
    }
