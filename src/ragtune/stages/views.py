"""Figures, computed from the predictions whenever they are asked for, and written for people.

Nothing reads back what is written here: another metric, or other accepted answers, need no more than
the same command again.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from pydantic import JsonValue, TypeAdapter, ValidationError

from ragtune.answering.engine import encode_prompts
from ragtune.answering.prediction import read_predictions
from ragtune.base.commands import command_line
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.files import read_json, read_jsonl, sha256, write_json
from ragtune.base.screen.console import note, warn
from ragtune.data.encode import Encoder
from ragtune.data.prepare import DataReport, load_report
from ragtune.data.tokenizer import prepare_tokenizer
from ragtune.model.load import load_tokenizer
from ragtune.model.source import ModelSource
from ragtune.reporting.answers import answer_rows
from ragtune.reporting.html import Report, SetRow, write_report
from ragtune.reporting.judging import JudgedRun
from ragtune.scoring.compare import Comparison, compare_answers
from ragtune.scoring.controls import AS_ASKED, ControlFigures, control_figures, key
from ragtune.scoring.score import Answers, Metrics, metrics_of, score_answers
from ragtune.stages import general
from ragtune.stages.answer import ANSWERS
from ragtune.stages.built import builds_of
from ragtune.stages.context import Context
from ragtune.stages.holds import damaged_stages, still_fits
from ragtune.stages.order import proof_of
from ragtune.stages.summary import summary_of
from ragtune.store.changes import with_part
from ragtune.store.folder import RunFolder
from ragtune.store.sets import sets_there

METRICS = "metrics.json"
_SIDES = ("before", "after")


def answers_in(place: Path) -> Answers:
    """The answers in a stage's folder, to be scored."""
    return Answers.of(read_predictions(place / ANSWERS), str(place))


def texts_of(place: Path) -> Mapping[str, str]:
    """The same by qid; none where the stage isn't there."""
    return answers_in(place).texts if place.is_dir() else {}


def figures(context: Context, place: Path) -> Metrics:
    """The figures of the answers in a stage's folder."""
    return metrics_of(score_answers(context.recipe, context.questions, answers_in(place)))


def metrics(context: Context, place: Path) -> Metrics:
    """The same, and written beside the answers, too, where that can be."""
    found = figures(context, place)
    if context.read_only is None:
        write_json(place / METRICS, found)
    return found


def comparison(context: Context) -> Comparison | None:
    """Before against after; None without both.

    Raises:
        UsageError: there are no questions.
    """
    if not context.folder.questions.is_dir():
        raise UsageError(f"{context.folder.path} has no data yet.", "Run `ragtune run` first.")
    before, after = (context.folder.answers(which) for which in ("before", "after"))
    if not (before.is_dir() and after.is_dir()):
        return None
    return compare_answers(context.recipe, context.questions, answers_in(before), answers_in(after))


def controls(context: Context) -> ControlFigures | None:
    """The figures of the answers with other passages; None where there are none."""
    answers: dict[str, dict[str, str]] = {}
    left_out: dict[str, int] = {}
    for which in ("before", "after"):
        plain, other = (context.folder.answers(n) for n in (which, f"controls-{which}"))
        if plain.is_dir() and other.is_dir():
            answers[which] = {
                key(AS_ASKED, p.qid): p.prediction for p in read_predictions(plain / ANSWERS)
            }
            answers[which] |= {p.qid: p.prediction for p in read_predictions(other / ANSWERS)}
            left_out = read_json(other / "left_out.json")["questions"]
    return control_figures(context.recipe, context.selected, answers, left_out) if answers else None


def judges(context: Context) -> dict[str, JudgedRun]:
    """What a judge made of the answers that are there, by `before` and `after`."""
    found: dict[str, JudgedRun] = {}
    for which in _SIDES:
        path, answers = context.folder.judged(which), context.folder.answers(which) / ANSWERS
        if not (path.is_file() and answers.is_file()):
            continue
        try:
            one = TypeAdapter(JudgedRun).validate_python(read_json(path))
        except (RagtuneError, ValidationError):
            warn(f"{path} is damaged: the report leaves it out. Judge the answers again.")
            continue
        if one["sha256"] == sha256(answers):
            found[which] = one
    return found


def data_report(context: Context) -> DataReport:
    """What was read, and selected of it.

    Raises:
        UsageError: nothing was.
    """
    folder = context.folder
    if not (folder.data.is_dir() and folder.questions.is_dir()):
        raise UsageError(f"{folder.path} has no data yet.", "Run `ragtune run` first.")
    return load_report(folder.data, folder.questions)


def report(context: Context) -> Comparison | None:
    """Write report.html, and every figure that there is as JSON; returns the comparison.

    Nothing is written where that can't be.
    """
    if context.read_only:
        return comparison(context)
    folder, found = context.folder, gathered(context)
    for which in _SIDES:
        if folder.answers(which).is_dir():
            metrics(context, folder.answers(which))
    for path, value in (
        (folder.comparison, found.comparison),
        (folder.controls, found.controls),
        (folder.general, found.general),
    ):
        if value:
            write_json(path, value)
        else:
            path.unlink(missing_ok=True)
    write_report(folder.report, found)
    return found.comparison


def gathered(context: Context, *, prompts: bool = True) -> Report:
    """What the report shows of what there is by now; the prompts, too, unless they are left out.

    Raises:
        UsageError: there are no data.
    """
    folder = context.folder
    log = folder.adapter / "train_log.jsonl"
    return Report(
        recipe=context.recipe,
        summary=summary_of(context),
        data=data_report(context),
        comparison=comparison(context),
        controls=controls(context),
        general=general.figures(context),
        judges=judges(context),
        log=list(read_jsonl(log)) if log.exists() else [],
        answers=answer_rows(
            context.recipe, context.asked, texts_of(folder.answers("before")),
            texts_of(folder.answers("after")), prompt_texts(context) or {} if prompts else {},
        ),
        sets=set_rows(context),
        builds=builds_of(context),
    )  # fmt: skip


def set_rows(context: Context) -> list[SetRow]:
    """Every evaluation set that the run was asked, with its figures; none where there is only one."""
    sets = sets_there(context.folder.path)
    return [_set_row(context, *one) for one in sets.items()] if len(sets) > 1 else []


def _set_row(context: Context, name: str, asked: JsonValue) -> SetRow:
    here = context.folder
    if name == here.evaluation.name:
        return dataclasses.replace(_figures_of(context, name, asked), shown=True)
    folder = RunFolder(here.path, name)
    if broken := damaged_stages(folder):
        return SetRow(name, str(asked), problem=f"damaged ({', '.join(s.name for s in broken)})")
    known = [p for w in ("after", "before") if (p := proof_of(folder, w)) is not None]
    # How many questions it was asked, say, is its own affair.
    how = {k: v for k, v in known[0].recipe.items() if k.startswith("evaluate.")} if known else {}
    other = Context(with_part(context.recipe, how | {"data.eval": asked}), (), here.path)
    other.folder = folder
    row = _figures_of(other, name, asked)
    if folder.report.is_file():
        path = os.path.relpath(folder.report, here.report.parent)
        row = dataclasses.replace(row, link=quote(Path(path).as_posix()))
    return row


def _figures_of(context: Context, name: str, asked: JsonValue) -> SetRow:
    """The figures of a set by the headline, unless it was asked of an adapter that is no more."""
    folder, metric = context.folder, context.recipe.evaluate.metric
    row = SetRow(name, str(asked))
    if not still_fits(context):
        command = command_line("ragtune", "evaluate", folder.path, f"data.eval={asked}")
        return dataclasses.replace(row, problem=f"asked of what is there no more; again: {command}")
    if not folder.questions.is_dir():
        return row
    if (both := comparison(context)) is not None:
        before, after = (both["intervals"][which].get(metric) for which in _SIDES)
        difference = both["difference"].get(metric)
        return dataclasses.replace(
            row, n=both["n"], before=before, after=after, difference=difference
        )
    found = {w: figures(context, p) for w in _SIDES if (p := folder.answers(w)).is_dir()}
    sides = {which: one["intervals"].get(metric) for which, one in found.items()}
    n = next((one["n"] for one in found.values()), None)
    return dataclasses.replace(row, n=n, before=sides.get("before"), after=sides.get("after"))


def prompt_texts(context: Context) -> dict[str, str] | None:
    """The prompts of the questions that are asked, as the model reads them, by qid.

    They are made by the tokenizer that lies beside the adapter, so that nothing of the base model
    is needed any more. None where that is not there, or no longer fits the data.
    """
    try:
        encoder = context.__dict__.get("encoder") or _tuned_encoder(context)
        if encoder is None:
            return None
        prompts = encode_prompts(encoder, context.asked)
    except RagtuneError as error:
        note(f"The report shows no prompts: {error.message}")
        return None
    exact = {"clean_up_tokenization_spaces": False}
    return {qid: encoder.tokenizer.decode(ids, **exact) for qid, ids in prompts}


def _tuned_encoder(context: Context) -> Encoder | None:
    adapter = context.folder.adapter
    if not (adapter / "tokenizer_config.json").exists():
        return None
    tokenizer = load_tokenizer(ModelSource(str(adapter), None))
    longest = data_report(context)["max_prompt_tokens"] + context.recipe.evaluate.max_new_tokens
    return Encoder(
        prepare_tokenizer(tokenizer, context.recipe, context.day), context.recipe, longest
    )
