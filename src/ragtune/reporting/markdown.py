"""The summary: the figures in Markdown, short enough for a pull request."""

from __future__ import annotations

from ragtune.building.figures import Built
from ragtune.reporting.wording import rendered
from ragtune.scoring.compare import Comparison
from ragtune.scoring.controls import ControlFigures
from ragtune.scoring.paired import General


def summary(
    name: str,
    comparison: Comparison,
    controls: ControlFigures | None = None,
    built: Built | None = None,
    general: General | None = None,
) -> str:
    """What tuning changed in the run of this name, in Markdown; `built` of the evaluation questions."""
    text = rendered(
        "report.md.j2",
        name=name,
        comparison=comparison,
        controls=controls,
        built=built,
        general=general,
    )
    return text.strip() + "\n"
