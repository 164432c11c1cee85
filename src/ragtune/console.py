"""What the user sees while a stage runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console(highlight=False)


def to_stderr() -> None:
    """Keep standard output for a machine-readable answer (--json)."""
    console.stderr = True


def heading(title: str) -> None:
    console.print()
    console.rule(f"[bold]{title}", align="left", style="dim")


def note(message: str) -> None:
    """A line about what was found or chosen; markup in data is shown as text."""
    console.print(message, markup=False, soft_wrap=not console.is_terminal)


def warn(message: str) -> None:
    console.print(f"! {message}", style="yellow", markup=False, soft_wrap=not console.is_terminal)


@contextlib.contextmanager
def progress(description: str, total: int | None) -> Iterator[Callable[[int, str], None]]:
    """A progress bar; call what is yielded with (completed so far, a short text)."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn() if total is None or total < 10**7 else TextColumn("{task.percentage:.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}", markup=False),
    )
    with Progress(*columns, console=console, transient=False) as bar:
        task = bar.add_task(description, total=total, text="")

        def update(completed: int, text: str = "", new_total: int | None = None) -> None:
            bar.update(task, completed=completed, text=text, **({"total": new_total} if new_total else {}))

        yield update
