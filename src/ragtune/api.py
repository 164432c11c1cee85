"""Every stage as a function of a recipe (a path, a mapping, a Recipe) or of a run directory."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.stages.context import Target, find_recipe
from ragtune.stages.run import Run


def run(
    target: Target, *overrides: str, run_dir: str | Path | None = None, redo: bool = False
) -> dict[str, Any]:
    """Do everything, from data to report and, if the recipe names a repository, to the Hub.

    Args:
        target: a recipe (path, mapping or Recipe) or a run directory.
        overrides: `section.key=value` changes to it.
        run_dir: where the run lies; runs/NAME by default.
        redo: set aside what a changed recipe or file makes invalid, and make it again.

    Returns:
        The comparison, as in comparison.json.

    Raises:
        UsageError: the recipe or the data must be changed.
        RagtuneError: something failed; its message says what to do.
    """
    return Run(target, list(overrides), run_dir, redo=redo).run()


def check(
    target: Target, *overrides: str, run_dir: str | Path | None = None
) -> list[dict[str, str]]:
    """Find out, before anything costs time, whether a run would work.

    Returns:
        The findings, {name, level, message, advice, excerpt}; with a `level` of `fail` the run would
        fail. `excerpt` has (kind, text) pairs: `prompt`, `opening` and `trained`.
    """
    from ragtune.stages.check.findings import Finding, look

    try:
        found = look(Run(target, list(overrides), run_dir)).findings
    except RagtuneError as error:  # without a recipe there is nothing else to look at
        found = [Finding("recipe", "fail", error.message, error.advice)]
    return [dataclasses.asdict(finding) for finding in found]


def prepare(
    target: Target, *overrides: str, run_dir: str | Path | None = None, redo: bool = False
) -> dict[str, Any]:
    """Read and select the data; returns data/report.json. Raises as `run` does."""
    return Run(target, list(overrides), run_dir, redo=redo).prepare()


def train(
    target: Target, *overrides: str, run_dir: str | Path | None = None, redo: bool = False
) -> dict[str, Any]:
    """Train the adapter; returns what it took. Raises as `run` does."""
    return Run(target, list(overrides), run_dir, redo=redo).train()


def evaluate(
    target: Target,
    *overrides: str,
    run_dir: str | Path | None = None,
    base: bool = False,
    checkpoint: int | None = None,
    predictions: str | Path | None = None,
    redo: bool = False,
) -> dict[str, Any]:
    """Answer and score the questions: with the adapter if there is one, else (or with `base`) without.

    Args:
        target: a recipe or a run directory.
        overrides: changes to the recipe.
        run_dir: where the run lies.
        base: without the adapter.
        checkpoint: with the adapter of this step instead.
        predictions: a file of {qid, prediction} lines: it is scored, and nothing is asked.
        redo: as for `run`.

    Returns:
        As metrics.json. Raises as `run` does.
    """
    from ragtune.stages import measure
    from ragtune.stages.measure import prepared_questions

    if predictions is not None:
        recipe, folder = find_recipe(target, list(overrides), run_dir)
        return measure.score_file(recipe, str(predictions), prepared_questions(recipe, folder))
    one = Run(target, list(overrides), run_dir, redo=redo)
    if checkpoint is not None:
        return measure.evaluate_checkpoint(one, checkpoint)
    return one.evaluate("before") if base else one.evaluate_latest()


def controls(
    target: Target, *overrides: str, run_dir: str | Path | None = None, redo: bool = False
) -> dict[str, Any]:
    """Ask the questions with other passages, before and after tuning; returns controls.json.

    Raises as `run` does.
    """
    from ragtune.stages import measure

    one = Run(target, list(overrides), run_dir, redo=redo)
    result = measure.controls(one)
    one.report(again=True)
    return result


def compare_runs(*runs: str | Path) -> dict[str, Any]:
    """Compare the answers of runs, or of folders of answers in them, with those of the first.

    Raises:
        UsageError: a folder without answers, or different questions.
    """
    from ragtune.stages import measure

    return measure.compare_runs([Path(run) for run in runs])


def compare(target: Target, *overrides: str, run_dir: str | Path | None = None) -> dict[str, Any]:
    """Compare before with after; returns comparison.json. Raises as `run` does."""
    one = Run(target, list(overrides), run_dir)
    sides = (one.dir.predictions(which) for which in ("before", "after"))
    # Damaged answers are noticed, and set aside, only by the report.
    found = one.report() if all((side / "metrics.json").exists() for side in sides) else {}
    if not found:
        raise UsageError(
            f"{one.dir.path} has no answers before and after tuning to compare.",
            "Run `ragtune run` first.",
        )
    return found


def report(target: Target, *overrides: str, run_dir: str | Path | None = None) -> Path:
    """Write the report of what there is; returns its path. Raises as `run` does."""
    one = Run(target, list(overrides), run_dir)
    one.report()
    return one.dir.report


def merge(
    target: Target, *overrides: str, run_dir: str | Path | None = None, redo: bool = False
) -> dict[str, Any]:
    """Merge the adapter into the base; returns the number of answers that changed, and the score."""
    return Run(target, list(overrides), run_dir, redo=redo).merge()


def push(
    target: Target,
    *overrides: str,
    run_dir: str | Path | None = None,
    dry_run: bool = False,
) -> str:
    """Publish the result on the Hub; returns the repository's address. Raises as `run` does.

    With `dry_run` it is only shown what would go: nobody is asked, nothing is written.
    """
    return Run(target, list(overrides), run_dir).push(dry_run=dry_run)
