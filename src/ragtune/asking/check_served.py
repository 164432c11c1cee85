"""What is served is asked again: a sample of the evaluation questions, against the run's own answers."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from ragtune.answering.connection import check_address
from ragtune.answering.engine import fitting
from ragtune.answering.prediction import read_predictions
from ragtune.answering.server import Server
from ragtune.base.commands import command_line
from ragtune.base.errors import UsageError
from ragtune.base.files import write_json
from ragtune.base.screen.console import note, warn
from ragtune.base.text import shortened
from ragtune.data.example import Example
from ragtune.reporting.terminal import say_asked_again
from ragtune.scoring.reasked import Reasked, is_other, reasked
from ragtune.scoring.score import Answers, score_answers
from ragtune.stages.answer import ANSWERS
from ragtune.stages.context import Context
from ragtune.stages.road import working
from ragtune.store.changes import with_part

_SHOWN = 3
"""Answers of the two sides that are printed."""


@dataclass(frozen=True)
class RunningServer:
    """A server that has the tuned model."""

    endpoint: str
    name: str
    """What it calls it."""
    engine: str = "the server"
    """In words."""
    key_from: str = "OPENAI_API_KEY"
    """The environment variable with its key, if it has one."""


def ask_again(context: Context, served: RunningServer, count: int) -> Reasked:
    """Ask a sample of the evaluation questions through a server, and compare with the run's own answers.

    Prints what changed, and writes it into the evaluation set's folder as served.json.

    Args:
        context: the run.
        served: the server.
        count: how many questions; all, if there are no more.

    Returns:
        What its answers are against the run's own.

    Raises:
        UsageError: the run has no answers after tuning, or the server doesn't have the model.
        RagtuneError: the server can't be reached, or fails.
    """
    check_address(served.endpoint, "")
    with working(context, making=False, keeping=False):
        own = own_answers(context)
        asked = sample(context, own, count)
        answers, counted = _ask(context, served, asked)
        found = reasked(context.recipe, context.questions, own, answers, freely=True)
        if context.read_only is None:
            more = {
                "engine": served.engine,
                "endpoint": served.endpoint,
                "served_as": served.name,
                "other_prompts": counted,
            }
            write_json(context.folder.served, {**more, **found})
    say_asked_again("What is served", found)
    if is_other(found):
        note("Look at its chat template, stop token, dtype and quantization.")
    _show_changed(asked, own, answers)
    if counted:
        warn(
            f"The server counts other tokens in {counted} of {len(asked)} prompts than were trained: its chat "
            "template, or its tokenizer, is another one."
        )
    return found


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


def _ask(context: Context, served: RunningServer, asked: Sequence[Example]) -> tuple[Answers, int]:
    """The server's answers, and to how many of the questions it counted other tokens than were trained."""
    there: dict[str, JsonValue] = {
        "evaluate.engine": "openai",
        "evaluate.copy": False,
        "evaluate.refuse_below": None,
        "evaluate.endpoint": served.endpoint,
        "evaluate.served_after": served.name,
    }
    recipe = with_part(context.recipe, there)
    advice = "Give --name the name under which the server has the tuned model, and --endpoint its address."
    server = Server(recipe, "after", advice, served.key_from, section="")
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


def _show_changed(asked: Sequence[Example], own: Answers, again: Answers) -> None:
    changed = [e for e in asked if own.texts[e.qid] != again.texts[e.qid]]
    for example in changed[:_SHOWN]:
        first, second = (
            shortened(" ".join(side.texts[example.qid].split()), 60) or "(nothing)"
            for side in (own, again)
        )
        note(f"  {shortened(example.question, 60)}: {first} → {second}")
