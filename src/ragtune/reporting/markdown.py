"""The summary: the figures in Markdown, short enough for a pull request."""

from __future__ import annotations

from typing import Any

from ragtune.reporting.wording import environment


def summary(name: str, comparison: dict[str, Any], controls: dict[str, Any] | None = None) -> str:
    """What tuning changed, in Markdown.

    Args:
        name: of the run.
        comparison: comparison.json.
        controls: controls.json, if the controls were run.
    """
    template = environment(html=False).get_template("report.md.j2")
    text = template.render(name=name, comparison=comparison, controls=controls)
    return text.strip() + "\n"
