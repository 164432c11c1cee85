"""Scoring predictions that were made elsewhere."""

from __future__ import annotations

import dataclasses
import difflib
from pathlib import Path

from ragtune.base.errors import UsageError
from ragtune.base.screen.console import note, warn
from ragtune.base.text import one_or_many, shortened
from ragtune.data.example import Example, is_text
from ragtune.data.prepare import asked, how_of, load_examples, source_of
from ragtune.data.read import read_examples, records
from ragtune.data.select import rejection
from ragtune.recipe.schema import Recipe
from ragtune.scoring.score import Answers, Metrics, metrics_of, score_answers
from ragtune.store.changes import differing, part_of
from ragtune.store.folder import RunFolder
from ragtune.store.inputs import input_changes
from ragtune.store.proof import damage, read_proof
from ragtune.store.sets import find_set

_LONGEST_QID = 200
"""Characters of a qid for which a similar one is looked for."""
_NAMED = 5


def score_file(recipe: Recipe, path: str, run_dir: Path) -> Metrics:
    """Score predictions that were made elsewhere, as metrics.json does.

    Args:
        recipe: `data.eval`, and how answers are scored.
        path: records with `qid` and `prediction`, in any format that data are read from.
        run_dir: whose prepared questions are taken if they are of this recipe; else `data.eval` is read.

    Raises:
        UsageError: a bad line, a qid that occurs twice or is no question of `data.eval`.
    """
    questions = _prepared(recipe, run_dir) or _questions(recipe)
    found = _read(recipe, path, {e.qid for e in questions})
    wanted = {e.qid for e in asked(recipe, questions)}
    missing = [e.qid for e in questions if e.qid in wanted and e.qid not in found]
    if missing:
        more = " …" if len(missing) > _NAMED else ""
        warn(
            one_or_many(
                len(missing),
                f"of {len(wanted):,} questions has no prediction and counts",
                f"of {len(wanted):,} questions have no prediction and count",
            )
            + f" as wrong: {', '.join(missing[:_NAMED])}{more}"
        )
    if more_than_asked := len(found.keys() - wanted):
        note(
            one_or_many(
                more_than_asked,
                "prediction is of a question that the recipe does not ask: it counts",
                "predictions are of questions that the recipe does not ask: they count",
            )
            + " among all."
        )
    return metrics_of(score_answers(recipe, questions, Answers(found), wanted=wanted))


def _read(recipe: Recipe, path: str, known: set[str]) -> dict[str, str]:
    """The predictions in a file, by qid."""
    found: dict[str, str] = {}
    seen: dict[str, str] = {}
    for where, record in records(path):
        qid, text = prediction_of(record, where)
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
    return found


def _prepared(recipe: Recipe, run_dir: Path) -> list[Example] | None:
    """The prepared questions of a run over the same data; None if there are none."""
    folder = RunFolder(run_dir, find_set(run_dir, recipe)).questions
    if damage(folder) is not None or (proof := read_proof(folder)) is None:
        return None
    # Of a file that has changed since, the file counts.
    changed = differing(proof.recipe, part_of(recipe, ("data.",), ("data.eval",))) or input_changes(
        {k: v for k, v in proof.inputs.items() if k == "data.eval"}, recipe
    )
    return None if changed else load_examples(folder / "eval.jsonl")


def _questions(recipe: Recipe) -> list[Example]:
    """The evaluation set with what is selected of it; lengths are not looked at, for want of a model."""
    found = []
    for example in read_examples(
        source_of(recipe.data, "eval"), "validation", how=how_of(recipe.data, "eval")
    ):
        reason = rejection(example, recipe.data.max_passages)
        extra = (
            example.extra | {"selected": reason is None} | ({"reason": reason} if reason else {})
        )
        found.append(dataclasses.replace(example, extra=extra))
    return found


def prediction_of(record: object, where: str) -> tuple[str, str]:
    """The qid and the text of a record with a prediction. Raises UsageError: it is none."""
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
