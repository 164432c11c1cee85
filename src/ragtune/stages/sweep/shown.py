"""What `ragtune sweep` prints for people."""

from __future__ import annotations

from pathlib import Path

from ragtune.base.commands import command_line
from ragtune.base.screen.console import console, note, to_stderr
from ragtune.reporting.sweep import dev_lines, sweep_table
from ragtune.scoring.sweep import Results

__all__ = ["show", "to_stderr"]


def show(results: Results, folder: Path) -> None:
    """Print the points, and where the files are."""
    console.print(sweep_table(results))
    for line in [*dev_lines(results)] or ["Evaluation set: not looked at"]:
        note(line)
    note(f"Report: {folder / 'report.html'}")
    command = command_line("ragtune", "run", folder / "best.yaml")
    # In one line, however narrow the terminal: it is there to be copied.
    console.print(f"To train the best with all data: {command}", soft_wrap=True)
