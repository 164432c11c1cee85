"""Items a few at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def pieces(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """So many items at a time, in their order; the last piece may have less."""
    iterator = iter(items)
    while piece := list(itertools.islice(iterator, size)):
        yield piece
