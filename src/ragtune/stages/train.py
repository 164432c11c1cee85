"""The stage that trains the adapter, or the whole model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from ragtune.distributed.world import World
from ragtune.model.full import require_plain
from ragtune.model.quantized import quantization_of
from ragtune.stages.context import Context
from ragtune.stages.curve import Curve
from ragtune.stages.live import live_page
from ragtune.stages.meanwhile import asking
from ragtune.stages.order import checkpoints_of, proof_of
from ragtune.store.proof import Facts
from ragtune.training.train import Job, train


def adapter(context: Context, out: Path) -> Facts:
    """adapter/: weights (with tuning: full all of them), tokenizer, generation_config.json, train_log.jsonl."""
    if context.recipe.full:
        require_plain(quantization_of(context.config, context.hardware.device))
    curve = Curve(len(context.steps), context.recipe.train.log_every)
    with live_page(context) as page:

        def tell(step: int, log: Sequence[Mapping[str, float]]) -> None:
            page.tell(step, log)
            curve.tell(step, log)

        job = _job(context)
        job = dataclasses.replace(
            job,
            folder=out,
            logs=context.folder.logs / job.checkpoints.name,
            asking=asking(context, job.checkpoints),
            keep_plan=context.keep_plan,
            tell=tell,
            world=context.tell_ranks("train"),
        )
        model, result = train(context.take_base(training=True), job)
    context.set_tuned(model)
    data = proof_of(context.folder, "data")
    assert data is not None  # it is needed
    return {
        "train": dataclasses.asdict(result),
        "plan": context.plan.to_dict(),
        "prompts": data.facts["prompts"],
        "base": context.source.name,
        "chosen_by": context.folder.evaluation.name,
    }


def follow_training(context: Context, world: World) -> None:
    """Train what another rank trains, on this one's share; nothing is written."""
    silent = context.recipe.train.model_copy(update={"report_to": []})
    recipe = context.recipe.model_copy(update={"train": silent})
    job = dataclasses.replace(_job(context), recipe=recipe, world=world)
    model, _ = train(context.take_base(training=True), job)
    context.set_tuned(model)


def _job(context: Context) -> Job:
    """What is trained, of which nothing is told or kept beside the checkpoints."""
    work = checkpoints_of(context.folder, context.recipe)
    return Job(
        recipe=context.recipe,
        hardware=context.hardware,
        encoder=context.encoder,
        plan=context.plan,
        steps=context.steps,
        questions=context.selected,
        pause=context.pause,
        base_name=context.source.name,
        folder=work,
        checkpoints=work,
        logs=work,
        asking=None,
        keep_plan=lambda _: None,
        tell=lambda *_: None,
    )
