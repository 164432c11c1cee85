"""Signs of life: what is under way, how far it is, how fast it goes, and how long it still takes.

A terminal shows a bar that moves. In a pipe or a log file a line says the same every 30 seconds, and nothing
of what takes less; in a notebook it is the last line of a stage's output. A thread of its own looks
whether such a line is due, so that what calls nobody back, as loading a model does, is covered as well.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from ragtune.base.screen import notebook
from ragtune.base.screen.console import console, note
from ragtune.base.screen.output import interjecting
from ragtune.base.screen.visible import in_line
from ragtune.base.text import duration, size_of

EVERY = 30.0
"""Seconds between two lines, and before the first."""
_LOOKS = 30
"""How often the thread looks within that time; a notebook's line moves each time."""
_LONG = 6
"""What runs for this part of that time is told of; else that of which it is a part."""
BYTES = "bytes"
"""A unit of its own: shown as sizes."""

_BAR = 72
"""The width, in cells, below which there is no room for a bar and the time so far."""
_PART = 256
"""Items that are worked on between two updates."""
T = TypeVar("T")
R = TypeVar("R")

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
class _Activity:
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
    told: bool = False
    counted: int | None = None

    def __post_init__(self) -> None:
        if self.growing is not None:
            self.before = _bytes_in(self.growing)
        self.done = self.begun or 0

    def move(
        self,
        completed: int,
        text: str = "",
        total: int | None = None,
        counted: int | None = None,
    ) -> None:
        self.begun = min(completed if self.begun is None else self.begun, completed)
        self.done, self.text, self.total = completed, text, total or self.total
        self.counted = counted

    def line(self, now: float, *, ended: bool = False) -> str:
        """What, how far, how fast, since when and how long still."""
        took = max(now - self.start, 1e-9)
        if self.growing is not None and not ended:
            self.done = _bytes_in(self.growing) - self.before
        made = self.made
        fast = made > 0 and self._fast((self.counted or made) / took)
        parts = [self._far(), fast, self.text]
        parts.append(f"{duration(took)} {'in all' if ended else 'so far'}")
        if not ended and made > 0 and self.total and self.total > self.done:
            parts.append(f"about {duration((self.total - self.done) * took / made)} to go")
        return f"{self.what}: {', '.join(part for part in parts if part)}"

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


class _Pulse:
    """What is under way, the outermost first, and the thread that tells of it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.activities: list[_Activity] = []
        self.bars = 0
        """Bars that move on a terminal: nothing else is said beside them."""
        self.told = 0.0
        self.over = threading.Event()

    def begin(self, activity: _Activity) -> None:
        with self.lock:
            if not self.activities:
                self.told, self.over = clock(), threading.Event()
                threading.Thread(target=self._run, args=(self.over,), daemon=True).start()
            self.activities.append(activity)

    def end(self, activity: _Activity) -> None:
        """With what an interrupt left above it. When this returns, nothing is told of it any more."""
        with self.lock:
            if activity in self.activities:
                del self.activities[self.activities.index(activity) :]
            if page := notebook.page():
                page.move("")
            if not self.activities:
                self.over.set()

    def _run(self, over: threading.Event) -> None:
        with suppress(OSError, ValueError):  # nobody reads any more: who works will notice
            while not over.wait(EVERY / _LOOKS):
                self.beat()

    def beat(self) -> None:
        """Tell of what is under way, if that is due."""
        with self.lock:
            if self.bars or not self.activities:
                return
            now = clock()
            page, due = notebook.page(), now - self.told >= EVERY
            if not (page or due):
                return
            # What began only now may be one of many short ones.
            least = EVERY / (_LOOKS if page else _LONG)
            longer = [one for one in self.activities if now - one.start >= least]
            shown = (longer or self.activities[:1])[-1]
            shown.told = shown.told or due
            if page:
                page.move(shown.line(now), shown.share)
            else:
                note(shown.line(now))
            self.told = now if due else self.told


_pulse = _Pulse()


def _forget() -> None:
    """A forked child has no thread that tells, and perhaps a lock that nobody gives back."""
    global _pulse  # noqa: PLW0603 - one for the process
    _pulse = _Pulse()


if hasattr(os, "register_at_fork"):  # Windows has none
    os.register_at_fork(after_in_child=_forget)


@contextmanager
def busy(
    what: str,
    total: int | None = None,
    *,
    done: int = 0,
    unit: str = "",
    growing: Path | None = None,
) -> Iterator[Update]:
    """Something that takes its time and has no bar; call what is yielded, if there is a number to tell.

    Args:
        what: it is, in a word or two.
        total: how many there are in all, if that is known.
        done: how many were done before, and don't count for the speed.
        unit: what is counted: questions, steps, or BYTES.
        growing: a file or folder that grows; its bytes then say how far it is.
    """
    if threading.current_thread().daemon:  # it may outlive what it was begun for
        yield lambda *_, **__: None
        return
    begun = None if unit == BYTES and not total else done
    activity = _Activity(what, total, begun, BYTES if growing else unit, growing)
    _pulse.begin(activity)
    try:
        yield activity.move
    finally:
        _pulse.end(activity)
    if activity.told and activity.made > 0:
        note(activity.line(clock(), ended=True))


@contextmanager
def progress(
    what: str, total: int | None = None, *, done: int = 0, unit: str = ""
) -> Iterator[Update]:
    """The same with a bar on a terminal."""
    with busy(what, total, done=done, unit=unit) as update:
        if not moves() or threading.current_thread().daemon:
            yield update
            return
        with _bar(what, total, done) as move:

            def both(
                completed: int,
                text: str = "",
                total: int | None = None,
                counted: int | None = None,
            ) -> None:
                update(completed, text, total, counted)
                move(completed, text, total)

            yield both


def in_parts(
    what: str, act: Callable[[Sequence[T]], list[R]], items: Sequence[T], unit: str
) -> list[R]:
    """What a function makes of all items, some of them at a time, so that it can be told how far it is."""
    found: list[R] = []
    with busy(what, len(items), unit=unit) as update:
        for start in range(0, len(items), _PART):
            found += act(items[start : start + _PART])
            update(len(found))
    return found


def moves() -> bool:
    """Whether what is written can be written over.

    A colour that is forced makes no terminal of a pipe. What a notebook runs with ! has one, and the
    notebook keeps every state of a bar.
    """
    there = console.is_terminal and not console.is_dumb_terminal and console.file.isatty()
    return there and notebook.page() is None and "JPY_PARENT_PID" not in os.environ


@contextmanager
def _bar(what: str, total: int | None, done: int) -> Iterator[Update]:
    # Bytes are too many to be read as a fraction.
    counted = Column(no_wrap=True, min_width=2 * len(str(total)) + 1)
    count = (
        TextColumn("{task.percentage:.0f} %")
        if total is None
        else MofNCompleteColumn(table_column=counted)
    )
    # Where room lacks, the bar is shorter, and then the text at the end: no number and no time.
    whole = Column(no_wrap=True, min_width=len("0:00:00"))
    columns = [
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        count,
        TimeElapsedColumn(table_column=whole),
        TimeRemainingColumn(table_column=whole),
        TextColumn("{task.fields[text]}", markup=False),
    ]
    if console.width < _BAR:
        del columns[3], columns[1]
    _pulse.bars += 1
    try:
        # rich would take what libraries print meanwhile for its own, escape sequences included.
        # One within another leaves nothing behind: it would stand in the other's table.
        bar = Progress(
            *columns, console=console, redirect_stdout=False, redirect_stderr=False,
            transient=_pulse.bars > 1,
        )  # fmt: skip
        with bar, interjecting(note):
            task = bar.add_task(in_line(what), total=total, completed=done, text="")

            def move(
                completed: int,
                text: str = "",
                total: int | None = None,
                counted: int | None = None,  # noqa: ARG001 - a bar has the share alone
            ) -> None:
                bar.update(task, completed=completed, text=in_line(text), total=total or None)

            yield move
    finally:
        _pulse.bars -= 1


def _bytes_in(path: Path) -> int:
    """The bytes of a file, or of all files in a folder, as far as they are there."""
    total = 0
    for one in [path, *path.rglob("*")]:
        with suppress(OSError):  # renamed meanwhile
            total += one.lstat().st_size if one.is_file() else 0
    return total
