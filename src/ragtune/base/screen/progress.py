"""Signs of life: what is under way, how far it is, how fast it goes, and how long it still takes.

A terminal shows a bar that moves. In a pipe or a log file a line says the same every 30 seconds, and nothing
of what takes less; in a notebook it is the last line of a stage's output. A thread of its own looks
whether such a line is due, so that what calls nobody back, as loading a model does, is covered as well.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column
from rich.text import Text

from ragtune.base.screen import activity as activities
from ragtune.base.screen import notebook
from ragtune.base.screen.activity import BYTES, Activity, Update
from ragtune.base.screen.console import console, note
from ragtune.base.screen.output import interjecting
from ragtune.base.screen.visible import in_line

EVERY = 30.0
"""Seconds between two lines, and before the first."""
_LOOKS = 30
"""How often the thread looks within that time; a notebook's line moves each time."""
_LONG = 6
"""What runs for this part of that time is told of; else that of which it is a part."""
_BAR = 72
"""The width, in cells, below which there is no room for a bar and the time so far."""
_PART = 256
"""Items that are worked on between two updates."""
T = TypeVar("T")
R = TypeVar("R")


class _Pulse:
    """What is under way, the outermost first, and the thread that tells of it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.activities: list[Activity] = []
        self.bars = 0
        """Bars that move on a terminal: nothing else is said beside them."""
        self.told = 0.0
        self.over = threading.Event()

    def begin(self, activity: Activity) -> None:
        with self.lock:
            if not self.activities:
                self.told, self.over = activities.clock(), threading.Event()
                threading.Thread(target=self._run, args=(self.over,), daemon=True).start()
            self.activities.append(activity)

    def end(self, activity: Activity) -> None:
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
            now = activities.clock()
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
    unit = BYTES if growing else unit
    with _under_way(Activity(what, total, done, unit, growing)) as activity:
        yield activity.move


@contextmanager
def _under_way(activity: Activity) -> Iterator[Activity]:
    try:
        _pulse.begin(activity)  # cut off in it, there may be a thread by then
        yield activity
    finally:
        _pulse.end(activity)
    if activity.told and activity.made > 0:
        note(activity.line(activities.clock(), ended=True))


@contextmanager
def progress(
    what: str, total: int | None = None, *, done: int = 0, unit: str = ""
) -> Iterator[Update]:
    """The same with a bar on a terminal."""
    if not moves() or threading.current_thread().daemon:
        with busy(what, total, done=done, unit=unit) as update:
            yield update
        return
    with _under_way(Activity(what, total, done, unit, None)) as activity, _bar(activity):
        yield activity.move


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


class _ToGo(ProgressColumn):
    """The time to go as a line has it: rich's own isn't there where a part takes longer than 30 s."""

    def __init__(self, activity: Activity, column: Column) -> None:
        super().__init__(column)
        self._activity = activity

    def render(self, task: Task) -> Text:
        left = 0.0 if task.finished else self._activity.to_go(activities.clock())
        minutes, seconds = divmod(int(left or 0), 60)
        words = "-:--:--" if left is None else f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
        return Text(words, "progress.remaining")


@contextmanager
def _bar(activity: Activity) -> Iterator[None]:
    total = activity.total
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
        _ToGo(activity, whole),
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
            task = bar.add_task(
                in_line(activity.what), total=total, completed=activity.done, text=""
            )
            activity.show = lambda: bar.update(
                task, completed=activity.done, text=in_line(activity.text), total=activity.total
            )
            yield
    finally:
        _pulse.bars -= 1
