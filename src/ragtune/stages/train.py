"""The stage that trains the adapter."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ragtune.stages.context import Context
from ragtune.stages.order import checkpoints_of, proof_of
from ragtune.store.proof import Facts
from ragtune.training.train import Job, train


def adapter(context: Context, out: Path) -> Facts:
    """adapter/: weights, tokenizer, generation_config.json, train_log.jsonl."""
    work = checkpoints_of(context.folder, context.recipe)
    job = Job(
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
        keep_plan=context.keep_plan,
    )
    model, result = train(context.take_base(), job)
    context.set_tuned(model)
    data = proof_of(context.folder, "data")
    assert data is not None  # it is needed
    return {
        "train": dataclasses.asdict(result),
        "plan": context.plan.to_dict(),
        "prompts": data.facts["prompts"],
        "chosen_by": context.folder.evaluation.name,
    }
