"""The report: one HTML file that shows what was asked, what changed and how it was made."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import yaml

from ragtune.base.files import writing
from ragtune.data.select import REASONS
from ragtune.recipe.schema import Recipe
from ragtune.reporting.answers import AnswerRow, islands, outcomes
from ragtune.reporting.plots import controls_chart, gain_chart, loss_curve
from ragtune.reporting.wording import environment, package_text

_WIDTHS = {"wide": 9.0, "narrow": 3.7}
"""Inches of a drawing: on a page, on a phone."""
_FILTERS = {
    "fixed": "Fixed",
    "broken": "Broken",
    "wrong": "Still wrong",
    "right": "Right both times",
    "refused": "Refused",
    "unanswerable": "Unanswerable",
}


def write_report(
    path: Path,
    *,
    recipe: Recipe,
    state: dict[str, Any],
    data_report: dict[str, Any],
    comparison: dict[str, Any] | None,
    log: list[dict[str, Any]],
    answers: list[AnswerRow],
    controls: dict[str, Any] | None = None,
) -> None:
    """Write the report as one file that fetches nothing and runs one script, its own.

    The same values give the same bytes. Everything from the data is escaped.

    Args:
        path: the file, which appears when it is whole.
        recipe: of the run.
        state: run.json; any key may be missing.
        data_report: data/report.json.
        comparison: comparison.json, or None while there are not both evaluations.
        log: the rows of train_log.jsonl.
        answers: the questions that were asked.
        controls: controls.json, if the controls were run.
    """
    from markupsafe import Markup

    script = package_text("report.js")
    listed, opened = islands(answers)
    page = (
        environment(html=True)
        .get_template("report.html.j2")
        .render(
            recipe=recipe,
            recipe_yaml=yaml.safe_dump(
                recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100
            ),
            metric=comparison["metric"] if comparison else recipe.evaluate.metric,
            plan=state.get("plan") or state.get("hardware") or {},
            train=state.get("train") or {},
            merge=state.get("merge") or {},
            times=state.get("times") or {},
            peaks=state.get("peak_gib") or {},
            versions=state.get("versions") or {},
            data=data_report,
            comparison=comparison,
            controls=controls,
            outcomes=outcomes(answers),
            drawings=_drawings(recipe, comparison, log, controls),
            has_eval_loss=any(row.get("eval_loss") is not None for row in log),
            answers=answers,
            has_prompts=any(row.prompt is not None for row in answers),
            alternatives=[row for row in answers if row.alternatives],
            filters=_filters(answers),
            reasons=REASONS,
            policy=_policy(script),
            # The only markup that is taken as it is: the package's own files, and JSON without < > &.
            style=Markup(package_text("report.css")),  # noqa: S704
            script=Markup(script),  # noqa: S704
            listed=Markup(listed),  # noqa: S704
            opened=[Markup(chunk) for chunk in opened],  # noqa: S704
        )
    )
    with writing(path) as file:
        file.write(page)


def _drawings(
    recipe: Recipe,
    comparison: dict[str, Any] | None,
    log: list[dict[str, Any]],
    controls: dict[str, Any] | None,
) -> dict[str, Any]:
    """Each drawing in two widths; Matplotlib has escaped the text in it."""
    from markupsafe import Markup

    def draw(width: float) -> dict[str, str | None]:
        return {
            "loss": loss_curve(log, window=recipe.train.log_every, width=width),
            "gain": gain_chart(comparison, width=width) if comparison else None,
            "controls": controls_chart(controls, width=width) if controls else None,
        }

    drawn = {name: draw(width) for name, width in _WIDTHS.items()}
    return {
        what: {size: Markup(d[what]) for size, d in drawn.items() if d[what]}  # noqa: S704
        for what in ("loss", "gain", "controls")
    }


def _filters(answers: list[AnswerRow]) -> list[tuple[str, str]]:
    """The filters that leave something, and their names; outcomes always, once there are any."""
    kinds = {
        **dict.fromkeys(outcomes(answers), any(row.outcome for row in answers)),
        "refused": any(row.refused for row in answers),
        "unanswerable": any(not row.selected for row in answers),
    }
    return [(kind, name) for kind, name in _FILTERS.items() if kinds[kind]]


def _policy(script: str) -> str:
    """A content security policy under which this script runs, and nothing is fetched."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        f"script-src 'sha256-{digest}'"
    )
