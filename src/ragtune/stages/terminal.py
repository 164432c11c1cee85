"""What the commands print for people: pages, tables, errors."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.screen.console import console, note, to_stderr
from ragtune.base.screen.progress import busy
from ragtune.base.text import one_or_many
from ragtune.building.figures import FILES, Built
from ragtune.building.retrieval.compare import verdicts
from ragtune.data.example import Example
from ragtune.data.read import locate, read_examples
from ragtune.reporting.building import (
    comparison_table,
    figures_table,
    show_figures,
    show_question,
)
from ragtune.reporting.terminal import (
    controls_table,
    differences_table,
    logs_table,
    metrics_table,
    runs_table,
)
from ragtune.scoring.compare import Runs
from ragtune.scoring.paired import Logs
from ragtune.scoring.threshold import require_reached, thresholds
from ragtune.stages.check.findings import Finding, Findings, no_recipe
from ragtune.stages.check.findings import show as show_page
from ragtune.stages.logs import are_logs, compare_logs
from ragtune.stages.runs import compare_runs
from ragtune.stages.target import find_recipe, require_run

__all__ = ["are_logs", "busy", "compare_logs", "compare_runs", "console", "controls_table", "logs_tables",
           "metrics_table", "require_predictions", "require_reached", "require_run", "runs_tables", "set_of",
           "show_built", "show_findings", "show_questions", "thresholds", "to_stderr", "unread"]  # fmt: skip


def runs_tables(result: Runs) -> Group:
    """Runs against the first of them, and where their recipes differ."""
    return Group(*filter(None, (runs_table(result), differences_table(result))))


def logs_tables(result: Logs) -> Group:
    """Logs of other tools against the first of them, a table a task."""
    every = result["comparisons"]
    return Group(*(logs_table(one, task) for one in every for task in one["tasks"]))


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


def require_predictions(path: Path | None) -> None:
    """Require a file of predictions, if one is named, to be there or to be of the Hub; raises as `locate`."""
    if path is not None:
        locate(str(path))


def unread(
    target: str, overrides: Sequence[str] = (), run_dir: str | Path | None = None
) -> Findings:
    """What a check finds where it gets no further than the recipe; nothing where that can be read."""
    try:
        find_recipe(target, overrides, run_dir)
    except RagtuneError as error:
        return no_recipe(error)
    return Findings(())


def show_findings(found: Sequence[Mapping[str, Any]]) -> None:
    """Print the page of what `ragtune.check` returned."""
    show_page([Finding(**one) for one in found])
    if failures := sum(one["level"] == "fail" for one in found):
        note(
            "The run would fail: "
            f"{one_or_many(failures, f'of {len(found)} findings says', f'of {len(found)} findings say')} so."
        )


def show_built(built: Built) -> None:
    """Print what a build found."""
    console.print(figures_table(built.figures))
    show_figures(built.figures)
    if built.compared:
        console.print(comparison_table(built.compared))
        for line in verdicts(built.compared):
            note(line)


def show_written(folder: Path, language: str) -> None:
    """Print where the examples of a build are, and what a recipe needs for them."""
    train, evaluation = (folder / name for name in FILES.values())
    note(f"Written: {train} and {evaluation}, for a recipe's data.train and data.eval")
    if language == "ja":
        note("For Japanese there are prompt.preset: aio and evaluate.metric: aio_em: set both.")


def show_questions(folder: Path, count: int) -> None:
    """Print some questions of a build: what was retrieved for them, which passages are positive, and why."""
    for side, name in FILES.items():
        examples = read_examples(str(folder / name), side)
        for example in itertools.islice(
            examples, count - count // 2 if side == "train" else count // 2
        ):
            show_question(example, _why(example))


def _why(example: Example) -> dict[int, list[str]]:
    """Why passages are positive, by their index."""
    reasons = (
        ("answer_passage_indices", "an answer stands in it"),
        ("gold_passage_indices", "the question names it"),
    )
    return {
        i: [words for key, words in reasons if i in example.extra.get(key, ())]
        for i in example.positive_passage_indices
    }
