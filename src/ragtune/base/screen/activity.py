"""Something that takes its time: how far it is, how fast it goes, since when, and how long still."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ragtune.base.text import duration, size_of

BYTES = "bytes"
"""A unit of its own: shown as sizes."""

clock = time.monotonic


class Update(Protocol):
    """Moves an activity to `completed`, with a short text behind it, and a total once known.

    Where something else is `counted` than what says how far it is, records and not bytes, that is the speed.
    """

    def __call__(
        self,
        completed: int,
        text: str = "",
        total: int | None = None,
        counted: int | None = None,
    ) -> None: ...


@dataclass(eq=False)
class Activity:
    """Something that takes its time."""

    what: str
    total: int | None
    begun: int | None
    """What was done before; None until the first word of a download, which may go on."""
    unit: str
    growing: Path | None
    """A file or folder, the bytes of which say how far it is."""
    before: int = 0
    """The bytes that were in it."""
    done: int = 0
    text: str = ""
    start: float = field(default_factory=lambda: clock())  # noqa: PLW0108 - a test's clock is another
    moved: float = 0.0
    """When something was done last."""
    told: bool = False
    counted: int | None = None
    show: Callable[[], None] = lambda: None
    """Moves its bar, if it has one."""

    def __post_init__(self) -> None:
        if self.growing is not None:
            self.before = _bytes_in(self.growing)
        self.done = self.begun or 0
        if self.unit == BYTES and not self.total:
            self.begun = None

    def move(
        self,
        completed: int,
        text: str = "",
        total: int | None = None,
        counted: int | None = None,
    ) -> None:
        if completed != self.done:
            self.moved = clock()
        self.begun = min(completed if self.begun is None else self.begun, completed)
        self.done, self.text, self.total = completed, text, total or self.total
        self.counted = counted
        self.show()

    def line(self, now: float, *, ended: bool = False) -> str:
        """What, how far, how fast, since when and how long still."""
        took = max(now - self.start, 1e-9)
        if self.growing is not None and not ended:
            self.done, self.moved = _bytes_in(self.growing) - self.before, now
        until = took if ended else self.moved - self.start
        fast = self.made > 0 and until > 0 and self._fast((self.counted or self.made) / until)
        parts = [self._far(), fast, self.text]
        parts.append(f"{duration(took)} {'in all' if ended else 'so far'}")
        if not ended and (left := self.to_go(now)):
            parts.append(f"about {duration(left)} to go")
        return f"{self.what}: {', '.join(part for part in parts if part)}"

    def to_go(self, now: float) -> float | None:
        """Seconds, if what is left goes as fast as what is done; None where nothing is, or that is over.

        What is done counts until it was done, so that the time moves while a large part is worked on.
        """
        if self.made <= 0 or not self.total:
            return None
        left = (self.total - self.done) * (self.moved - self.start) / self.made
        return left - (now - self.moved) if left > now - self.moved else None

    @property
    def made(self) -> int:
        """What was done since it began."""
        return self.done - (self.begun or 0)

    @property
    def share(self) -> float | None:
        """How far it is, from 0 to 1; None where that isn't known."""
        return min(self.done / self.total, 1.0) if self.total else None

    def _far(self) -> str:
        size = size_of if self.unit == BYTES else "{:,}".format
        if not self.total:
            return size(self.done) if self.done and not self.counted else ""
        share = f"{100 * self.done // self.total} %"
        return share if self.counted else f"{size(self.done)} of {size(self.total)} ({share})"

    def _fast(self, rate: float) -> str:
        if self.unit == BYTES:
            return f"{size_of(rate)}/s"
        return f"{rate:,.1f} {self.unit}/s" if rate >= 1 else f"{1 / rate:,.1f} s each"


def _bytes_in(path: Path) -> int:
    """The bytes of a file, or of all files in a folder, as far as they are there."""
    total = 0
    for one in [path, *path.rglob("*")]:
        with suppress(OSError):  # renamed meanwhile
            total += one.lstat().st_size if one.is_file() else 0
    return total
