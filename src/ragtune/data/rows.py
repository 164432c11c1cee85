"""Dealing the samples of a step into rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def deal(items: Sequence[T], rows: int, size: Callable[[T], int]) -> list[list[T]]:
    """Deal items into at most `rows` rows of nearly equal size.

    The largest first, each into the smallest row that has room; a row takes at most
    ceil(items / rows), which is what the memory plan counts with.
    """
    rows = max(1, min(rows, len(items)))
    room = -(-len(items) // rows)
    out: list[list[T]] = [[] for _ in range(rows)]
    sizes = [0] * rows
    for item in sorted(items, key=size, reverse=True):
        target = min((r for r in range(rows) if len(out[r]) < room), key=lambda r: sizes[r])
        out[target].append(item)
        sizes[target] += size(item)
    return [row for row in out if row]
