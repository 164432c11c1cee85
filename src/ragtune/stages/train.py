"""The stage that trains the adapter."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ragtune.distributed.world import World
from ragtune.stages.context import Context
from ragtune.stages.curve import Curve
from ragtune.stages.live import live_page
from ragtune.stages.meanwhile import asking
from ragtune.stages.order import checkpoints_of, proof_of
from ragtune.store.proof import Facts
from ragtune.training.train import Job, train


def adapter(context: Context, out: Path) -> Facts:
    """adapter/: weights, tokenizer, generation_config.json, train_log.jsonl."""
    curve = Curve(len(context.steps), context.recipe.train.log_every)
    with live_page(context) as page:

        def tell(step: int, log: Sequence[Mapping[str, float]]) -> None:
            page.tell(step, log)
            curve.tell(step, log)

        job = _job(context, out, tell)
        world = context.tell_ranks("train")
        model, result = train(context.take_base(), dataclasses.replace(job, world=world))
    context.set_tuned(model)
    data = proof_of(context.folder, "data")
    assert data is not None  # it is needed
    return {
        "train": dataclasses.asdict(result),
        "plan": context.plan.to_dict(),
        "prompts": data.facts["prompts"],
        "chosen_by": context.folder.evaluation.name,
    }


def follow_training(context: Context, world: World) -> None:
    """Train what another rank trains, on this one's share; nothing is written."""
    work = checkpoints_of(context.folder, context.recipe)
    job = Job(
        recipe=context.recipe.model_copy(
            update={"train": context.recipe.train.model_copy(update={"report_to": []})}
        ),
        hardware=context.hardware,
        encoder=context.encoder,
        plan=context.plan,
        steps=context.steps,
        questions=context.selected,
        base_name=context.source.name,
        folder=work,
        checkpoints=work,
        logs=work,
        asking=None,
        keep_plan=lambda _: None,
        tell=lambda *_: None,
        world=world,
    )
    model, _ = train(context.take_base(), job)
    context.set_tuned(model)


def _job(
    context: Context, out: Path, tell: Callable[[int, Sequence[Mapping[str, float]]], None]
) -> Job:
    work = checkpoints_of(context.folder, context.recipe)
    return Job(
        recipe=context.recipe,
        hardware=context.hardware,
        encoder=context.encoder,
        plan=context.plan,
        steps=context.steps,
        questions=context.selected,
        base_name=context.source.name,
        folder=out,
        checkpoints=work,
        logs=context.folder.logs / work.name,
        asking=asking(context, work),
        keep_plan=context.keep_plan,
        tell=tell,
    )
