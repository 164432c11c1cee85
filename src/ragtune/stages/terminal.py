"""What the commands print for people: pages, tables, errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ragtune.base.console import console, note, to_stderr
from ragtune.reporting.terminal import controls_table, metrics_table, runs_table
from ragtune.stages.check.findings import Finding, show

__all__ = ["console", "controls_table", "metrics_table", "runs_table", "show_findings",
           "to_stderr"]  # fmt: skip


def show_findings(found: Sequence[Mapping[str, Any]]) -> None:
    """Print the page of what `ragtune.check` returned."""
    show([Finding(**one) for one in found])
    if failures := sum(one["level"] == "fail" for one in found):
        note(f"The run would fail: {failures} of {len(found)} findings say so.")
