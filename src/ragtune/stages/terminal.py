"""What the commands print for people: pages, tables, errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group

from ragtune.base.errors import UsageError
from ragtune.base.screen.console import console, note, to_stderr
from ragtune.reporting.terminal import (
    controls_table,
    differences_table,
    metrics_table,
    runs_table,
)
from ragtune.scoring.compare import Runs
from ragtune.scoring.threshold import require_reached, thresholds
from ragtune.stages.check.findings import Finding, show

__all__ = ["console", "controls_table", "metrics_table", "require_reached", "runs_tables", "set_of",
           "show_findings", "thresholds", "to_stderr"]  # fmt: skip


def runs_tables(result: Runs) -> Group:
    """Runs against the first of them, and where their recipes differ."""
    return Group(*filter(None, (runs_table(result), differences_table(result))))


def set_of(changes: Sequence[str]) -> str | None:
    """The evaluation set that `compare` of several runs is given: of their recipes nothing else changes.

    Raises:
        UsageError: another change.
    """
    others = [change for change in changes if not change.startswith("data.eval=")]
    if others:
        raise UsageError(
            f"several runs and {' and '.join(others)} don't go together.",
            "Give one of them. Of the recipes only data.eval=FILE may be named: a set that all were asked.",
        )
    return changes[-1].partition("=")[2].strip() or None if changes else None


def show_findings(found: Sequence[Mapping[str, Any]]) -> None:
    """Print the page of what `ragtune.check` returned."""
    show([Finding(**one) for one in found])
    if failures := sum(one["level"] == "fail" for one in found):
        note(f"The run would fail: {failures} of {len(found)} findings say so.")
