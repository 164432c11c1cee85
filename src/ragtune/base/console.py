"""What the user sees while a stage runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

# Without emoji: "file:100:" would become a picture.
console = Console(highlight=False, emoji=False)


@contextlib.contextmanager
def to_stderr(*, wanted: bool) -> Iterator[None]:
    """Keep standard output for a machine-readable answer (--json)."""
    before, console.stderr = console.stderr, wanted or console.stderr
    try:
        yield
    finally:
        console.stderr = before


STYLES = {"prompt": "dim", "opening": "black on yellow", "trained": "bold black on green"}
"""How tokens are shown: those that are read, those of them that a chat template writes between its
generation prompt and the answer, and those that are trained."""


def heading(title: str) -> None:
    console.print()
    console.rule(f"[bold]{title}", align="left", style="dim")


def note(message: str) -> None:
    """A line about what was found or chosen; markup in data is shown as text."""
    console.print(message, markup=False, soft_wrap=not console.is_terminal)


def warn(message: str) -> None:
    console.print(f"! {message}", style="yellow", markup=False, soft_wrap=not console.is_terminal)


class Update(Protocol):
    """Moves a progress bar to `completed`, with a short text behind it, and a total once known."""

    def __call__(self, completed: int, text: str = "", total: int | None = None) -> None: ...


@contextlib.contextmanager
def progress(description: str, total: int | None = None) -> Iterator[Update]:
    """A progress bar; call what is yielded."""
    # Bytes are too many to be read as a fraction.
    count = TextColumn("{task.percentage:.0f} %") if total is None else MofNCompleteColumn()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        count,
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}", markup=False),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(description, total=total, text="")

        def update(completed: int, text: str = "", total: int | None = None) -> None:
            bar.update(task, completed=completed, text=text, total=total or None)

        yield update


def show_error(message: str, advice: str) -> None:
    """Say on standard error why a command ended, and what to do."""
    stderr = Console(stderr=True, highlight=False, emoji=False)
    stderr.print("Error:", style="bold red", end=" ")
    stderr.print(message, markup=False, soft_wrap=True)
    if advice:
        stderr.print(advice, markup=False, soft_wrap=True)
