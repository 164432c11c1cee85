"""The stages that ask: before and after tuning, with other passages, and of a checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Literal

from peft import PeftModel
from pydantic import JsonValue
from transformers import PreTrainedModel

from ragtune.answering.endpoint import how_to_serve
from ragtune.answering.engine import PACKED, Engine, Way, encode_prompts
from ragtune.answering.local import Local, Share
from ragtune.answering.orders import answer_in_orders
from ragtune.answering.prediction import Prediction, write_predictions
from ragtune.answering.server import Server
from ragtune.answering.shared import Shared
from ragtune.base.errors import UsageError
from ragtune.base.files import write_json
from ragtune.base.screen.console import note
from ragtune.base.text import shortened
from ragtune.base.versions import versions
from ragtune.data.encode import Encoder
from ragtune.data.example import Example
from ragtune.distributed.world import World
from ragtune.model.hardware import plain
from ragtune.model.lora import refresh
from ragtune.model.plan import plan_answers
from ragtune.scoring.controls import control_examples
from ragtune.stages.context import Context
from ragtune.stages.order import checkpoints_of, proof_of
from ragtune.stages.twins import answered_on
from ragtune.stages.weights import load_weights
from ragtune.store.proof import Facts
from ragtune.store.seal import is_whole

Which = Literal["before", "after"]

ANSWERS = "predictions.jsonl"
_SHOWN = 20
"""Answers that are printed."""


def before(context: Context, out: Path) -> Facts:
    """eval/NAME/before/: predictions.jsonl."""
    return _asked(context, "before", out)


def after(context: Context, out: Path) -> Facts:
    """eval/NAME/after/: predictions.jsonl."""
    return _asked(context, "after", out)


def _asked(context: Context, which: Which, out: Path) -> Facts:
    found, facts = ask(context, which, context.encoder, context.asked, out)
    _show(context.asked, {p.qid: p.prediction for p in found})
    return facts


def controls_before(context: Context, out: Path) -> Facts:
    """eval/NAME/controls-before/: predictions.jsonl and left_out.json."""
    return _controls(context, "before", out)


def controls_after(context: Context, out: Path) -> Facts:
    """eval/NAME/controls-after/: the same after tuning."""
    return _controls(context, "after", out)


def _controls(context: Context, which: Which, out: Path) -> Facts:
    """The same questions with other passages, every one of which is shown."""
    variants, left_out = control_examples(context.encoder, context.selected)
    write_json(out / "left_out.json", {"questions": left_out})
    return ask(context, which, context.encoder.showing_all(), variants, out)[1]


def checkpoint(context: Context, out: Path, step: int) -> Facts:
    """eval/NAME/checkpoints/STEP/: predictions.jsonl of the model at that step.

    Raises:
        UsageError: there is no whole checkpoint of that step.
    """
    model = context.tuned_in(require_checkpoint(context, step))
    engine = _local(context, model, context.encoder, context.asked)
    engine.share = sharing(context, "checkpoint", step=step)
    title = f"answering (step {step})"
    partial = out.with_name("answers.jsonl")
    found = answer_in_orders(engine, context.encoder, context.asked, partial, title)
    write_predictions(out / ANSWERS, found)
    return {"asked": asdict(engine.way)} if engine.way else {}


def require_checkpoint(context: Context, step: int) -> Path:
    """The checkpoint of a step.

    Raises:
        UsageError: there is none that is whole, or a server answers.
    """
    if context.remote:
        raise UsageError(
            "A checkpoint can't be asked with evaluate.engine=openai.",
            "Serve it under a name of its own and set evaluate.served_after, in another run directory.",
        )
    folder = checkpoints_of(context.folder, context.recipe)
    checkpoint = folder / f"checkpoint-{step}"
    if not is_whole(checkpoint):
        names = [p.name for p in folder.glob("checkpoint-*") if is_whole(p)]
        steps = sorted(int(name.rpartition("-")[2]) for name in names)
        raise UsageError(
            f"{context.folder.path} has no checkpoint of step {step}.",
            f"There are: {', '.join(map(str, steps)) or 'none'}. train.save_every and "
            "train.keep_checkpoints say which are kept.",
        )
    return checkpoint


def ask(
    context: Context, which: Which, encoder: Encoder, examples: Sequence[Example], out: Path
) -> tuple[list[Prediction], Facts]:
    """Write the answers of the model `before` or `after` tuning; returns them, and how they were asked."""
    partial = out.with_name("answers.jsonl")
    title = f"answering ({which})"
    if context.remote:
        advice = how_to_serve(context.recipe, which, context.source.path, context.folder.path)
        engine: Engine = Server(context.recipe, which, advice)
        found = answer_in_orders(engine, encoder, examples, partial, title)
    else:
        with context.answering(which) as model:
            engine = _local(context, model, encoder, examples)
            engine.share = sharing(context, which)
            found = answer_in_orders(engine, encoder, examples, partial, title)
    write_predictions(out / ANSWERS, found)
    if context.remote:
        return found, {}
    facts: Facts = {"answered_on": answered_on(context)}
    return found, facts | {"asked": asdict(engine.way)} if engine.way else facts


def _local(
    context: Context, model: PreTrainedModel, encoder: Encoder, examples: Sequence[Example]
) -> Local:
    """An engine that asks as many questions at a time as planned or, of other prompts, as fit."""
    plan, longest = context.plan, context.recipe.evaluate.max_new_tokens
    if encoder is context.encoder:
        engine = Local(model, longest, plan.evaluation_batch, plan.cache_tokens)
        tell_way(context, engine)
        return engine
    lengths = [len(ids) for _, ids in encode_prompts(encoder, examples)]
    batch, cache = plan_answers(
        context.recipe, context.hardware, context.config, lengths,
        dequantized=plan.dequantized, shares=plan.shares,
    )  # fmt: skip
    return Local(model, longest, batch, cache)


def tell_way(context: Context, engine: Local) -> None:
    """Tell an engine how these questions were asked before tuning, where its own trial would find the same.

    An adapter, or its sum with the base, changes nothing of what is tried: which tokens see each other, and
    what a cache gives. On a CPU the trial takes as long as a tenth of the answers; and other ranks wait for it.
    """
    proof = proof_of(context.folder, "before")
    if proof is None or proof.versions != versions():
        return
    asked = proof.facts.get("asked")
    if asked and asked["how"] == PACKED and proof.facts.get("answered_on") == answered_on(context):
        engine.know(Way(PACKED, "as before tuning"), context.prompt_lengths)


_queues = count()


def sharing(context: Context, model: str, **more: JsonValue) -> Share | None:
    """Lets the other ranks answer with the same model, if there are others.

    Args:
        context: the run.
        model: before, after, checkpoint or merged.
        more: the step of a checkpoint.
    """
    if not context.has_ranks:
        return None

    def share(how: str) -> Shared:
        name = str(next(_queues))
        world = context.tell_ranks("answer", model=model, how=how, queue=name, **more)
        assert world is not None
        return Shared(world, name)

    return share


def follow(
    context: Context,
    world: World,
    order: Mapping[str, JsonValue],
    merged: PreTrainedModel | None = None,
) -> None:
    """Answer what another rank shares out; its answers go there, and nothing is written.

    `merged` is the merged model, where the order asks it.
    """
    shared, how = Shared(world, str(order["queue"])), str(order["how"])
    plan, longest = context.plan, context.recipe.evaluate.max_new_tokens
    encoder = context.encoder

    def answer(model: PreTrainedModel) -> None:
        engine = Local(model, longest, plan.evaluation_batch, plan.cache_tokens)
        engine.follow(shared, how, encoder)

    match order["model"]:
        case "before":
            with context.answering("before") as model:
                answer(model)
        case "after":
            if isinstance(model := context.tuned(), PeftModel):
                # Rank 0 may have chosen the best; the last all computed alike, if they compute so.
                if context.recipe.train.keep == "best" or not world.alike:
                    refresh(model, context.folder.adapter)
            elif context.recipe.train.keep == "best":
                context.release()
                model = context.tuned()
            answer(model)
        case "checkpoint":
            folder = checkpoints_of(context.folder, context.recipe) / f"checkpoint-{order['step']}"
            answer(context.tuned_in(folder))
        case _:
            assert merged is not None  # whoever follows keeps it between orders
            answer(merged)


def merged_model(context: Context) -> PreTrainedModel:
    """The merged model, which is not quantised, and answers on a machine without a GPU, too."""
    source = dataclasses.replace(context.source, path=str(context.folder.merged))
    return load_weights(context, source, context.hardware_for(plain(context.recipe)))


def _show(examples: Sequence[Example], answers: dict[str, str]) -> None:
    """Print the first answers beside the accepted ones, as the notebook did."""
    note(f"The first {min(_SHOWN, len(answers))}: accepted answer  ←  the model's")
    for example in [e for e in examples if e.qid in answers][:_SHOWN]:
        gold = example.answers[0] if example.answers else "(no answer)"
        note(f"  {gold}  ←  {shortened(' '.join(answers[example.qid].split()), 81)}")
