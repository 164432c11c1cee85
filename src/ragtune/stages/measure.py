"""Measuring beside a run's own road: controls, checkpoints, answers from elsewhere, run against run."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragtune.base.console import note, warn
from ragtune.base.errors import UsageError
from ragtune.base.files import making_folder, read_json, read_jsonl, write_json, write_jsonl
from ragtune.data.example import Example, is_text
from ragtune.data.prepare import asked, load_examples, source_of
from ragtune.data.read import read_examples, records, shortened
from ragtune.data.select import rejection
from ragtune.recipe.load import load_recipe
from ragtune.recipe.schema import Recipe
from ragtune.scoring.compare import compare
from ragtune.scoring.score import Scored, load_cut, load_predictions, metrics_of, score_answers
from ragtune.stages.context import Workspace, alone
from ragtune.stages.run import Run
from ragtune.store.changes import input_changes
from ragtune.store.folder import RunDir

_LONGEST_QID = 200
"""Characters of a qid for which a similar one is looked for."""


@alone()
def controls(run: Run) -> dict[str, Any]:
    """Ask the same questions with other passages, before and (with an adapter) after tuning.

    The model is loaded once: for `before` its adapter is switched off. Writes controls/ and
    controls.json, and returns the latter.
    """
    from ragtune.scoring.controls import control_examples

    run.prepare()
    tuned = run.dir.adapter.exists()
    made: tuple[list[Example], dict[str, int]] | None = None
    examples = [e for e in run.examples("eval") if e.extra["selected"]]
    for which in ("before", "after") if tuned else ("before",):
        run.evaluate(which)
        folder = run.dir.path / "controls" / which
        if not folder.exists():
            made = made or control_examples(run.encoder, examples)
            variants, left_out = made
            if not run.remote:
                _ = run.tuned if tuned else run.base  # loading is a stage of its own
            with run.stage(f"controls_{which}", f"Controls {which} tuning"):
                partial = run.dir.work / f"controls.{which}.jsonl"
                found = run.ask(which, variants, partial, as_given=True)
                with making_folder(folder) as unfinished:
                    write_jsonl(unfinished / "predictions.jsonl", (p.to_dict() for p in found))
                    write_json(unfinished / "left_out.json", {"questions": left_out})
                run.dir.record(f"controls/{which}")
                partial.unlink()
    return _score_controls(run)


def _score_controls(run: Workspace) -> dict[str, Any]:
    """Score the answers in controls/; writes controls.json and returns it."""
    result = control_results(run)
    write_json(run.dir.controls, result)
    return result


def control_results(run: Workspace) -> dict[str, Any]:
    """The figures of the answers in controls/, scored as the recipe now says."""
    from ragtune.scoring.controls import AS_ASKED, control_figures, key

    answers: dict[str, dict[str, str]] = {}
    left_out: dict[str, int] = {}
    for which in ("before", "after"):
        folder = run.dir.path / "controls" / which
        if folder.exists() and run.dir.predictions(which).exists():
            plain = load_predictions(run.dir.predictions(which))
            answers[which] = {key(AS_ASKED, qid): text for qid, text in plain.items()}
            answers[which] |= load_predictions(folder)
            counted = folder / "left_out.json"
            left_out = read_json(counted)["questions"] if counted.exists() else {}
    examples = [e for e in run.examples("eval") if e.extra["selected"]]
    return control_figures(run.recipe, examples, answers, left_out)


def score_again(run: Workspace) -> None:
    """Score the answers that are there as the recipe now says; none is asked for again.

    Raises:
        UsageError: the questions are gone.
    """
    from ragtune.answering.evaluate import figures_of
    from ragtune.answering.generate import Prediction

    folders = [f for f in map(run.dir.path.__truediv__, run.dir.results()) if f.name != "data"]
    folders = [f for f in folders if (f / "metrics.json").exists()]
    merged = run.dir.read_state().get("merge")
    scored = folders or merged or run.dir.controls.exists()  # not if all of it was set aside
    if scored and not (run.dir.data / "report.json").exists():
        raise UsageError(
            f"{run.dir.data} is gone, and without it no answer can be scored in another way.",
            "Run `ragtune prepare` without changing evaluate.metric or evaluate.answers, then this again.",
        )
    run.dir.update(scoring=True)  # so that a kill in the middle leaves no mixture
    for folder in folders:
        name = str(folder.relative_to(run.dir.path))
        rows = [Prediction(**row) for row in read_jsonl(folder / "predictions.jsonl")]
        run.dir.unrecord(name)
        write_json(folder / "metrics.json", figures_of(run.recipe, rows, run.questions))
        run.dir.record(name)
        note(
            f"{name}: scored again by {run.recipe.evaluate.metric}, {run.recipe.evaluate.answers}."
        )
    if run.dir.controls.exists():
        _score_controls(run)
    if merged and merged.get("answers") != run.recipe.evaluate.answers:
        run.dir.forget("merge")  # its answers are not kept: it is asked again
    run.dir.claim(run.recipe, run.day)
    run.dir.pop("scoring")


@alone()
def evaluate_checkpoint(run: Run, step: int) -> dict[str, Any]:
    """Answer and score the questions with the adapter of a checkpoint: checkpoints/STEP/.

    Raises:
        UsageError: there is no whole checkpoint of that step.
    """
    from ragtune.answering.evaluate import ask, write_evaluation
    from ragtune.model.fast.fused import fuse
    from ragtune.model.lora import load_adapter
    from ragtune.training.checkpoint import is_whole

    if run.remote:
        raise UsageError(
            "A checkpoint can't be asked with evaluate.engine=openai.",
            "Serve it under a name of its own and set evaluate.served_after, in another run directory.",
        )
    run.prepare()
    folder = run.dir.path / "checkpoints" / str(step)
    if not (folder / "metrics.json").exists():
        checkpoint = run.dir.checkpoints / f"checkpoint-{step}"
        if not is_whole(checkpoint):
            there = sorted(
                int(p.name.rpartition("-")[2])
                for p in run.dir.checkpoints.glob("checkpoint-*")
                if is_whole(p)
            )
            raise UsageError(
                f"{run.dir.path} has no checkpoint of step {step}.",
                f"There are: {', '.join(map(str, there)) or 'none'}. train.save_every and "
                "train.keep_checkpoints say which are kept.",
            )
        # The adapter wraps the base in place, so that this is no base for others any more.
        model = load_adapter(run.fresh_base(), checkpoint).eval()
        fuse(model)
        with run.stage(f"checkpoint_{step}", f"Answers at step {step}"):
            partial = run.dir.work / f"checkpoints.{step}.jsonl"
            limits = (run.plan.evaluation_batch, run.plan.cache_tokens)
            title = f"answering (step {step})"
            keep = run.keep_way(f"checkpoint_{step}")
            found = ask(run.recipe, model, run.encoder, run.prompts, limits, partial, title, keep)
            write_evaluation(run.recipe, folder, found, run.questions)
            run.dir.record(f"checkpoints/{step}")
            partial.unlink()
    return read_json(folder / "metrics.json")


def score_file(recipe: Recipe, path: str, prepared: Path | None = None) -> dict[str, Any]:
    """Score predictions that were made elsewhere, as metrics.json does.

    Args:
        recipe: `data.eval`, and how answers are scored.
        path: records with `qid` and `prediction`, in any format that data are read from.
        prepared: the eval.jsonl of a run, if there is one; else `data.eval` is read.

    Raises:
        UsageError: a bad line, a qid that occurs twice or is no question of `data.eval`.
    """
    questions = load_examples(prepared) if prepared else _questions(recipe)
    known = {e.qid for e in questions}
    found: dict[str, str] = {}
    seen: dict[str, str] = {}
    for where, record in records(path):
        qid, text = _prediction(record, where)
        if qid in seen:
            raise UsageError(
                f"{where}: qid {shortened(qid)!r} was already used at {seen[qid]}.",
                "A question has one prediction: remove one of the two.",
            )
        if qid not in known:
            # Of long texts it would take hours.
            near = difflib.get_close_matches(qid, known, 1) if len(qid) <= _LONGEST_QID else []
            hint = f"Did you mean {near[0]!r}? " if near else ""
            raise UsageError(
                f"{where}: data.eval has no question {shortened(qid)!r}.",
                f"{hint}The predictions must be of {recipe.data.eval or 'data.source'}.",
            )
        seen[qid], found[qid] = where, text
    if not found:
        raise UsageError(f"{path} holds no prediction.", "Each line is {qid, prediction}.")
    wanted = {e.qid for e in asked(recipe, questions)}
    missing = [e.qid for e in questions if e.qid in wanted and e.qid not in found]
    if missing:
        warn(
            f"{len(missing):,} of {len(wanted):,} questions have no prediction and count as wrong: "
            f"{', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}"  # noqa: PLR2004
        )
    if more := len(found.keys() - wanted):
        note(
            f"{more:,} predictions are of questions that the recipe does not ask: they count among all."
        )
    return metrics_of(score_answers(recipe, questions, found, wanted=wanted))


def prepared_questions(recipe: Recipe, folder: Path) -> Path | None:
    """The prepared evaluation questions of a run over the same data; None if there are none."""
    prepared = folder / "data" / "eval.jsonl"
    if not prepared.exists():
        return None
    there = RunDir(folder)
    made_by = there.made_by()
    if made_by is None or made_by.data != recipe.data:
        return None
    # Of a file that has changed since, the file counts.
    return None if input_changes(folder, there.read_state().get("inputs", {}), recipe) else prepared


def _questions(recipe: Recipe) -> list[Example]:
    """The evaluation set with what is selected of it; lengths are not looked at, for want of a model."""
    found = []
    for example in read_examples(source_of(recipe.data, "eval"), "validation"):
        reason = rejection(example, recipe.data.max_passages)
        extra = (
            example.extra | {"selected": reason is None} | ({"reason": reason} if reason else {})
        )
        found.append(dataclasses.replace(example, extra=extra))
    return found


def _prediction(record: Any, where: str) -> tuple[str, str]:
    if not isinstance(record, dict):
        raise UsageError(f"{where}: no JSON object.", "Each line is {qid, prediction}.")
    for name in ("qid", "prediction"):
        if record.get(name) is None:
            raise UsageError(f"{where}: {name} is missing.", "Each line is {qid, prediction}.")
    qid, text = record["qid"], record["prediction"]
    if not isinstance(qid, (str, int)) or isinstance(qid, bool):
        raise UsageError(f"{where}: qid is neither a string nor a number.")
    if not isinstance(text, str):
        raise UsageError(f"{where}: prediction is no string.", "Write what the model answered.")
    if not is_text(text):
        raise UsageError(
            f"{where}: prediction holds half of a surrogate pair, which is no text.",
            "Write the file again as valid UTF-8.",
        )
    return str(qid), text


@dataclass(frozen=True)
class _Answers:
    """The answers in a folder, and the run that they belong to."""

    name: str
    recipe: Recipe
    questions: list[Example]
    predictions: dict[str, str]
    cut: set[str]


def compare_runs(paths: Sequence[Path]) -> dict[str, Any]:
    """Compare the answers of runs, or of checkpoints, with those of the first, question by question.

    Args:
        paths: run directories (their answers after tuning), or folders of a run that hold a
            predictions.jsonl (RUN/before, RUN/checkpoints/50).

    Returns:
        {metric, answers, n, runs: [{name, metrics, intervals}], comparisons: [{name, against, …}]},
        a comparison being as in comparison.json, the first in the place of `before`.

    Raises:
        UsageError: a folder without answers, or runs whose questions or answers differ.
    """
    everyone = [_answers(path) for path in paths]
    first = everyone[0]
    for one in everyone[1:]:
        _same_scoring(first, one)
    questions, asked = _common(everyone)
    scored = [
        score_answers(
            first.recipe, questions, {qid: one.predictions[qid] for qid in asked}, cut=one.cut
        )
        for one in everyone
    ]
    return {
        "metric": first.recipe.evaluate.metric,
        "answers": first.recipe.evaluate.answers,
        "n": len(scored[0].chosen),
        "runs": [_summary(one.name, s) for one, s in zip(everyone, scored, strict=True)],
        "comparisons": [
            {"name": one.name, "against": first.name, **compare(scored[0], s)}
            for one, s in zip(everyone[1:], scored[1:], strict=True)
        ],
    }


def _same_scoring(first: _Answers, other: _Answers) -> None:
    """Say where another run would be scored otherwise.

    Raises:
        UsageError: the two refuse in other words, so that no one text tells refusals.
    """
    mine, theirs = first.recipe, other.recipe
    if mine.data.refusal != theirs.data.refusal:
        raise UsageError(
            f"{first.name} refuses with {mine.data.refusal!r}, {other.name} with "
            f"{theirs.data.refusal!r}.",
            "Runs with different data.refusal can't be compared: neither text tells both's refusals.",
        )
    for key, own, others in (
        ("evaluate.metric", mine.evaluate.metric, theirs.evaluate.metric),
        ("evaluate.answers", mine.evaluate.answers, theirs.evaluate.answers),
        ("data.alternatives", mine.data.alternatives, theirs.data.alternatives),
    ):
        if own != others:
            note(f"{other.name} is scored as {first.name}, with {key}={own}; its own is {others}.")


def _summary(name: str, scored: Scored) -> dict[str, Any]:
    figures = metrics_of(scored)
    kept = {k: figures[k] for k in ("metrics", "intervals", "length")}
    return {"name": name, "cut": scored.cut, **kept}


def _answers(path: Path) -> _Answers:
    folder = path / "after" if (path / "recipe.yaml").is_file() else path
    run = path if folder != path else next(
        (p for p in path.resolve().parents if (p / "recipe.yaml").is_file()), None
    )  # fmt: skip
    if run is None or not (folder / "predictions.jsonl").is_file():
        raise UsageError(
            f"{path} holds no answers.",
            "Name a finished run, or a folder of one such as RUN/before or RUN/checkpoints/50.",
        )
    questions = run / "data" / "eval.jsonl"
    if not questions.exists() and re.fullmatch(r"old-\d+", run.name):
        questions = run.parent / "data" / "eval.jsonl"  # they were not set aside: they are the same
    if not questions.exists():
        raise UsageError(f"{run} has no data, so nobody knows what was asked.", "Name another run.")
    there = RunDir(run)
    there.see_unchanged("data", str(folder.resolve().relative_to(run.resolve())))
    return _Answers(
        str(path),
        there.made_by() or load_recipe(run / "recipe.yaml"),
        load_examples(questions),
        load_predictions(folder),
        load_cut(folder),
    )


def _common(everyone: Sequence[_Answers]) -> tuple[list[Example], list[str]]:
    """The questions of all evaluation sets, and the qids that all runs asked.

    A question counts as selected if it is in every run.

    Raises:
        UsageError: a question differs, or none was asked of all.
    """
    first, *others = everyone
    known = [{e.qid: e for e in one.questions} for one in others]
    found = []
    for example in first.questions:
        theirs = [k.get(example.qid) for k in known]
        for one, other in zip(others, theirs, strict=True):
            if other is not None and (other.question, other.answers) != (
                example.question,
                example.answers,
            ):
                raise UsageError(
                    f"{first.name} and {one.name} differ in the question {example.qid}.",
                    "Only runs over the same evaluation data can be compared.",
                )
        if all(other is not None for other in theirs):
            selected = all(e.extra["selected"] for e in (example, *theirs) if e is not None)
            found.append(dataclasses.replace(example, extra=example.extra | {"selected": selected}))
    asked = [e.qid for e in found if all(e.qid in one.predictions for one in everyone)]
    there = set(asked)
    if not any(e.extra["selected"] for e in found if e.qid in there):
        raise UsageError(
            "The runs have no selected question in common.",
            "Only runs over the same evaluation data can be compared.",
        )
    if left_out := len(first.predictions) - len(asked):
        note(f"{left_out:,} questions of {first.name} were not asked of all runs.")
    return found, asked
