"""Who waits for an answer on the page: one question is answered at a time, in the order in which they came."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ragtune.base.errors import RagtuneError


class Line:
    """The questions that are there, the one that is answered first.

    Args:
        most: how many may be there.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._there: list[object] = []
        self._change = threading.Lock()

    @contextmanager
    def place(self) -> Iterator[Callable[[], int]]:
        """A place at the end of the line; within, a function that tells how many are before it.

        Raises:
            RagtuneError: too many are there.
        """
        mine = object()
        with self._change:
            if len(self._there) >= self._most:
                raise RagtuneError(
                    f"{len(self._there)} questions are waiting for an answer already.",
                    "Ask again in a minute.",
                )
            self._there.append(mine)
        try:
            yield lambda: self._before(mine)
        finally:
            with self._change:
                self._there.remove(mine)

    def _before(self, one: object) -> int:
        with self._change:
            return self._there.index(one)
