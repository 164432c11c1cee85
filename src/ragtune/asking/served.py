"""What is served is asked again: a sample of the evaluation questions, against the run's own answers."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from ragtune.answering.engine import fitting
from ragtune.answering.prediction import read_predictions
from ragtune.answering.server import Server
from ragtune.base.commands import command_line
from ragtune.base.errors import UsageError
from ragtune.base.files import write_json
from ragtune.base.screen.console import console, note, warn
from ragtune.base.text import shortened
from ragtune.data.example import Example
from ragtune.reporting.terminal import runs_table
from ragtune.scoring.compare import Runs, against_first
from ragtune.scoring.score import Answers, Scored, score_answers
from ragtune.stages.answer import ANSWERS
from ragtune.stages.context import Context
from ragtune.stages.road import working
from ragtune.stages.terminal import differs
from ragtune.store.changes import with_part

_SHOWN = 3
"""Answers of the two sides that are printed."""


@dataclass(frozen=True)
class Served:
    """A server that has the tuned model."""

    endpoint: str
    name: str
    """What it calls it."""
    engine: str = "the server"
    """In words."""
    key_from: str = "OPENAI_API_KEY"
    """The environment variable with its key, if it has one."""


def ask_again(context: Context, served: Served, count: int) -> Runs:
    """Ask a sample of the evaluation questions through a server, and compare with the run's own answers.

    Prints what changed, and writes it into the evaluation set's folder as served.json.

    Args:
        context: the run.
        served: the server.
        count: how many questions; all, if there are no more.

    Returns:
        The run's own figures over these questions, the server's, and one against the other.

    Raises:
        UsageError: the run has no answers after tuning, or the server doesn't have the model.
        RagtuneError: the server can't be reached, or fails.
    """
    with working(context, making=False, keeping=False):
        own = own_answers(context)
        asked = sample(context, own, count)
        answers, counted = _ask(context, served, asked)
        both = [
            score_answers(context.recipe, context.questions, one)
            for one in (_of(own, asked), answers)
        ]
        names = (str(context.folder.path), f"by {served.engine}")
        runs = against_first([*zip(names, both, strict=True)], {})
        if context.read_only is None:
            more = {
                "engine": served.engine,
                "endpoint": served.endpoint,
                "served_as": served.name,
                "of": len(own.texts),
                "other_prompts": counted,
            }
            write_json(context.folder.served, {**more, **runs})
    _say(runs, both, counted)
    return runs


def sample(context: Context, own: Answers, count: int) -> list[Example]:
    """Questions, drawn by the seed: of those that the run answered right as large a share as of the others.

    In the order in which they were asked.
    """
    scored = score_answers(context.recipe, context.questions, own)
    values = scored.values[context.recipe.evaluate.metric]
    strata: dict[bool, list[Example]] = {True: [], False: []}
    for example, value in zip(scored.chosen, values, strict=True):
        strata[value == 1].append(example)
    total = len(scored.chosen)
    wanted = min(count, total)
    right = round(wanted * len(strata[True]) / total) if total else 0
    draw = random.Random(context.recipe.seed)
    taken = {
        e.qid
        for side, number in ((True, right), (False, wanted - right))
        for e in draw.sample(strata[side], number)
    }
    return [example for example in scored.chosen if example.qid in taken]


def own_answers(context: Context) -> Answers:
    """The run's own answers after tuning.

    Raises:
        UsageError: there are none.
    """
    place = context.folder.answers("after")
    if not place.is_dir():
        raise UsageError(
            f"{context.folder.path} has no answers after tuning with which the server's could be compared.",
            f"Ask it first: {command_line('ragtune', 'evaluate', context.folder.path)}",
        )
    return Answers.of(read_predictions(place / ANSWERS), str(place))


def _of(answers: Answers, asked: Sequence[Example]) -> Answers:
    """Of some answers those to these questions."""
    qids = {e.qid for e in asked}
    texts = {qid: text for qid, text in answers.texts.items() if qid in qids}
    return Answers(texts, set(answers.cut or ()) & qids, None, answers.name)


def _ask(context: Context, served: Served, asked: Sequence[Example]) -> tuple[Answers, int]:
    """The server's answers, and to how many of the questions it counted other tokens than were trained."""
    there: dict[str, JsonValue] = {
        "evaluate.engine": "openai",
        "evaluate.endpoint": served.endpoint,
        "evaluate.served_after": served.name,
    }
    recipe = with_part(context.recipe, there)
    advice = "Give --name the name under which the server has the tuned model."
    server = Server(recipe, "after", advice, served.key_from)
    # Nothing of an earlier time is gone on with: the server may be another one.
    with tempfile.TemporaryDirectory() as folder:
        found = server.answer(
            context.encoder, asked, Path(folder) / "answers.jsonl", "answering (served)"
        )
    shown = context.recipe.data.max_passages
    lengths = {
        e.qid: len(prompt.ids)
        for e, prompt in fitting(context.encoder, asked)
        if not context.encoder.control.written_out(e, shown)
    }
    counted = sum(
        usage.prompt != lengths[qid] for qid, usage in server.usage.items() if qid in lengths
    )
    return Answers.of(found, served.endpoint), counted


def _say(runs: Runs, both: Sequence[Scored], counted: int) -> None:
    console.print(runs_table(runs))
    compared = runs["comparisons"][0]
    own, theirs = both
    changed = [
        (e.question, a or "", b or "")
        for e, a, b in zip(own.chosen, own.texts, theirs.texts, strict=True)
        if a != b
    ]
    note(f"{compared['changed']} of {runs['n']} answers differ from the run's own.")
    for question, *answers in changed[:_SHOWN]:
        first, second = (shortened(" ".join(one.split()), 60) or "(nothing)" for one in answers)
        note(f"  {shortened(question, 60)}: {first} → {second}")
    if counted:
        warn(
            f"The server counts other tokens in {counted} of {runs['n']} prompts than were trained: its chat "
            "template, or its tokenizer, is another one."
        )
    _verdict(runs)


def _verdict(runs: Runs) -> None:
    """Say whether the server scores as the run did, by the paired interval."""
    figure = runs["comparisons"][0]["difference"][runs["metric"]]
    value, low, high = (f"{100 * figure[part]:+.1f}" for part in ("value", "low", "high"))
    span = f"{runs['metric']} {value} (95 % interval {low} … {high})"
    if differs(runs):
        warn(
            f"What is served is not what was measured: {span}. Look at its chat template, stop token, dtype "
            "and quantization."
        )
    else:
        note(f"By these {runs['n']} questions it scores as the run did: {span}.")
