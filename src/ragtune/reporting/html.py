"""The report: one HTML file that shows what was asked, what changed and how it was made."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ragtune.base.files import writing
from ragtune.building.figures import Built, corpora
from ragtune.building.retrieval.compare import verdicts
from ragtune.data.counts import SplitName
from ragtune.data.prepare import DataReport
from ragtune.data.select import REASONS
from ragtune.recipe.schema import Recipe
from ragtune.recipe.yaml import dump_yaml
from ragtune.reporting.answers import AnswerRow, islands, outcomes
from ragtune.reporting.judging import ROWS, JudgedRun, cost_of
from ragtune.reporting.looks import looks_chart, looks_of
from ragtune.reporting.plots import calibration_chart, controls_chart, gain_chart, loss_curve
from ragtune.reporting.summary import Summary
from ragtune.reporting.wording import package_text, rendered
from ragtune.scoring.compare import Comparison
from ragtune.scoring.controls import ControlFigures
from ragtune.scoring.metrics import log_key
from ragtune.scoring.paired import General
from ragtune.scoring.statistics import Figure

_WIDTHS = {"wide": 9.0, "narrow": 3.7}
"""Inches of a drawing: on a page, on a phone."""
_FILTERS = {
    "fixed": "Fixed",
    "broken": "Broken",
    "wrong": "Still wrong",
    "right": "Right both times",
    "refused": "Refused",
    "unanswerable": "Unanswerable",
    "synthetic": "Synthetic",
}


@dataclass(frozen=True)
class SetRow:
    """An evaluation set of the run, by the headline metric; figures are None where they are not known."""

    name: str
    source: str
    """`data.eval`."""
    n: int | None = None
    before: Figure | None = None
    after: Figure | None = None
    difference: Figure | None = None
    link: str | None = None
    """Its own report, from this page; None where there is none, or this is it."""
    shown: bool = False
    """Whether this page is of it."""
    problem: str = ""
    """Why it has no figures."""


@dataclass(frozen=True)
class HowFar:
    """How far a training is, or was when it ended."""

    step: int
    steps: int
    begun: str
    """When, by the clock of the machine that trains; so is `written`, the time of the page."""
    written: str
    left: float | None = None
    """Seconds, as far as that is known."""
    again: int | None = None
    """Seconds after which the page has changed; None where it won't."""
    ended: str = ""
    """How it ended, in words; empty while it is under way."""


@dataclass(frozen=True)
class Report:
    """Everything that the page shows.

    `comparison` is None while there are not both evaluations, `controls` and `general` if they were not asked.
    `log` has the rows of train_log.jsonl, `answers` the questions that were asked, `judges` what a judge made
    of the answers before and after, `sets` every evaluation set of the run if there are several, `builds` what
    `ragtune build` found of each split that it wrote. `how_far` is of a training that is under way, or that was
    the last to write the page.
    """

    recipe: Recipe
    summary: Summary
    data: DataReport
    comparison: Comparison | None
    controls: ControlFigures | None
    log: Sequence[Mapping[str, Any]]
    answers: Sequence[AnswerRow]
    general: General | None = None
    judges: Mapping[str, JudgedRun] = field(default_factory=dict)
    sets: Sequence[SetRow] = ()
    builds: Mapping[SplitName, Built] = field(default_factory=dict)
    how_far: HowFar | None = None


def write_report(path: Path, report: Report) -> None:
    """Write the report as one file that fetches nothing and runs one script, its own.

    The same values give the same bytes. Everything from the data is escaped. The file appears when it is
    whole.
    """
    summary, answers, script = report.summary, report.answers, package_text("report.js")
    listed, opened = islands(answers)
    page = rendered(
        "report.html.j2",
        **vars(report),
        recipe_yaml=dump_yaml(report.recipe.model_dump(mode="json")),
        metric=report.comparison["metric"] if report.comparison else report.recipe.evaluate.metric,
        plan=summary.get("plan") or summary.get("hardware") or {},
        peaks=summary.get("peak_gib") or {},
        **{key: summary.get(key) or {} for key in ("train", "merge", "gguf", "times", "versions")},
        outcomes=outcomes(answers),
        drawings=_drawings(report),
        has_eval_loss=any(row.get("eval_loss") is not None for row in report.log),
        looks=looks_of(report.log, log_key(report.recipe.evaluate.metric)),
        has_prompts=any(row.prompt is not None for row in answers),
        alternatives=[row for row in answers if row.alternatives],
        filters=_filters(answers),
        corpora=corpora(report.builds),
        verdicts=verdicts,
        JUDGED=ROWS,
        judge_cost=cost_of,
        reasons=REASONS,
        policy=_policy(script),
        # Beside the JSON and the drawings, the only markup that is taken as it is: the package's own files.
        style=Markup(package_text("report.css")),  # noqa: S704 - a file of this package, or a plot of ours
        script=Markup(script),  # noqa: S704 - a file of this package, or a plot of ours
        listed=listed,
        opened=opened,
    )
    with writing(path) as file:
        file.write(page)


def _drawings(report: Report) -> dict[str, dict[str, Markup]]:
    """Each drawing in two widths; Matplotlib has escaped the text in it."""
    names = ("loss", "looks", "gain", "controls", "calibration")
    drawn: dict[str, dict[str, Markup]] = {name: {} for name in names}
    confidence = report.comparison["confidence"] if report.comparison else {}
    looks = looks_of(report.log, log_key(report.recipe.evaluate.metric))
    for size, width in _WIDTHS.items():
        for name, svg in (
            ("loss", loss_curve(report.log, window=report.recipe.train.log_every, width=width)),
            ("looks", looks_chart(looks, width=width)),
            ("gain", report.comparison and gain_chart(report.comparison, width=width)),
            ("controls", report.controls and controls_chart(report.controls, width=width)),
            ("calibration", calibration_chart(confidence, width=width)),
        ):
            if svg:
                drawn[name][size] = Markup(svg)  # noqa: S704 - a file of this package, or a plot of ours
    return drawn


def _filters(answers: Sequence[AnswerRow]) -> list[tuple[str, str]]:
    """The filters that leave something, and their names; outcomes always, once there are any."""
    kinds = {kind for row in answers for kind in row.kinds}
    if any(row.outcome for row in answers):
        kinds |= outcomes(answers).keys()
    return [(kind, name) for kind, name in _FILTERS.items() if kind in kinds]


def _policy(script: str) -> str:
    """A content security policy under which this script runs, and nothing is fetched."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        f"script-src 'sha256-{digest}'"
    )
