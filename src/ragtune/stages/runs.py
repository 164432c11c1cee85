"""Runs against each other: the answers of several, question by question."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from ragtune.answering.prediction import read_predictions
from ragtune.base.commands import command_line
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.screen.console import note
from ragtune.base.text import one_or_many
from ragtune.data.example import Example
from ragtune.data.prepare import load_examples
from ragtune.recipe.load import did_you_mean, load_recipe
from ragtune.recipe.schema import Recipe
from ragtune.scoring.compare import Runs, against_first
from ragtune.scoring.score import Answers, Scored, score_answers
from ragtune.store.changes import value_of, with_part
from ragtune.store.folder import RunFolder
from ragtune.store.proof import Proof, damage, read_proof
from ragtune.store.sets import find_set, own_set


@dataclass(frozen=True)
class _Answers:
    """The answers in a folder, and the run that they belong to."""

    name: str
    recipe: Recipe
    """What the answers were made with: the copy in the directory may have changed since."""
    proof: Proof
    questions: list[Example]
    predictions: dict[str, str]
    cut: set[str]
    probabilities: dict[str, float]
    unsure: set[str]


def compare_runs(paths: Sequence[Path], data_eval: str | None = None) -> Runs:
    """Compare the answers of runs, or of checkpoints, with those of the first, question by question.

    Args:
        paths: run directories (their answers after tuning), or folders of a run that hold a
            predictions.jsonl (RUN/eval/NAME/before).
        data_eval: the evaluation set of the run directories; by default each one's own.

    Raises:
        UsageError: a folder without answers, or runs whose questions or answers differ.
    """
    everyone = [_answers(path, data_eval) for path in paths]
    first = everyone[0]
    for one in everyone[1:]:
        _same_scoring(first, one)
    questions, asked = _common(everyone)
    scored = [_scored(one, first.recipe, questions, asked) for one in everyone]
    names = [one.name for one in everyone]
    return against_first([*zip(names, scored, strict=True)], _differing(everyone))


def _scored(
    one: _Answers, recipe: Recipe, questions: Sequence[Example], asked: Sequence[str]
) -> Scored:
    """A run's answers to these questions, scored as the recipe says."""
    # What stands around its answers is its own affair. What citations name are places in its own prompts,
    # which may show other passages.
    prompt = one.recipe.prompt
    own = with_part(recipe, {"prompt.citations": prompt.citations, "prompt.quote": prompt.quote})
    texts = {q: one.predictions[q] for q in asked}
    unsure = one.unsure.intersection(asked)
    answers = Answers(texts, one.cut, probabilities=one.probabilities, unsure=unsure)
    return dataclasses.replace(score_answers(own, questions, answers), citations=None, quotes=None)


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


def _differing(everyone: Sequence[_Answers]) -> dict[str, list[JsonValue]]:
    """The keys whose values the answers were not all made with, and each one's value.

    What only some of them depend on (answers before tuning know of no adapter) is no difference.
    """
    proofs = [one.proof for one in everyone]
    alike = len({re.sub(r"\d+", "", proof.stage) for proof in proofs}) == 1
    every = list(dict.fromkeys(key for proof in proofs for key in proof.recipe))
    # Of the same stage one that lacks a key is older: it had the default.
    known = [k for k in every if alike or all(k in proof.recipe for proof in proofs)]
    found = {key: [value_of(proof.recipe, key) for proof in proofs] for key in known}
    return {key: values for key, values in found.items() if any(v != values[0] for v in values)}


def _answers(path: Path, data_eval: str | None) -> _Answers:
    run = next((p for p in (path, *path.resolve().parents) if (p / "recipe.yaml").is_file()), None)
    if run is None:
        raise _no_answers(path)
    recipe = load_recipe(run / "recipe.yaml")
    folder = path
    if run == path:
        other = data_eval and with_part(recipe, {"data.eval": data_eval})
        name = find_set(run, other, named=True) if other else own_set(run) or find_set(run, recipe)
        folder = RunFolder(run, name).answers("after")
    questions = folder.parent / "questions"
    if folder.parent.name == "checkpoints" and folder.resolve().parents[2].name == "eval":
        questions = folder.parents[1] / "questions"
    if not (folder / "predictions.jsonl").is_file():
        raise _no_answers(path, data_eval if run == path else None)
    if not questions.is_dir() and re.fullmatch(r"old-\d+", run.name):
        # They were not set aside: they are the same.
        questions = run.resolve().parent / questions.resolve().relative_to(run.resolve())
    if not questions.is_dir():
        raise UsageError(f"{run} has no data, so nobody knows what was asked.", "Name another run.")
    for one in (questions, folder):
        if problem := damage(one):
            raise RagtuneError(
                f"{one} is damaged: {problem}.",
                f"`{command_line('ragtune', 'run', run)}` sets it aside, and makes it again.",
            )
    predictions = read_predictions(folder / "predictions.jsonl")
    proof = read_proof(folder)
    assert proof is not None  # else it were damaged
    return _Answers(
        str(path),
        with_part(recipe, proof.recipe),
        proof,
        load_examples(questions / "eval.jsonl"),
        {p.qid: p.prediction for p in predictions},
        {p.qid for p in predictions if not p.stopped},
        {p.qid: p.probability for p in predictions if p.probability is not None},
        {p.qid for p in predictions if p.unsure},
    )


def _no_answers(path: Path, data_eval: str | None = None) -> UsageError:
    if data_eval:
        return UsageError(
            f"{path} holds no answers after tuning to {data_eval}.",
            f"Ask it: {command_line('ragtune', 'evaluate', path, f'data.eval={data_eval}')}",
        )
    wrong = (
        "holds no answers after tuning."
        if path.exists()
        else f"does not exist.{did_you_mean(path)}"
    )
    return UsageError(
        f"{path} {wrong}",
        "Name a finished run, or a folder of one such as RUN/eval/NAME/before or "
        "RUN/eval/NAME/checkpoints/50.",
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
            "Only runs over the same evaluation data can be compared: data.eval=FILE names a set of both, "
            "which `ragtune evaluate RUN data.eval=FILE` asks.",
        )
    if left_out := len(first.predictions) - len(asked):
        note(
            f"{one_or_many(left_out, f'question of {first.name} was', f'questions of {first.name} were')} not "
            "asked of all runs."
        )
    return found, asked
