"""The stages that write the tuned model in bfloat16, adapter merged, and ask it the same questions."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from ragtune.answering.local import Local
from ragtune.answering.prediction import write_predictions
from ragtune.base.screen.console import note
from ragtune.model.hardware import choose_hardware, plain
from ragtune.model.merge import merge
from ragtune.model.plan import plan_answers
from ragtune.model.quantized import without_quantization
from ragtune.stages.answer import ANSWERS, merged_model, sharing
from ragtune.stages.context import Context
from ragtune.store.proof import Facts


def model(context: Context, out: Path) -> Facts:
    """merged/: the tuned model in bfloat16, with the adapter in it, and the tokenizer."""
    context.release()  # the tuned model's memory is needed
    merge(context.source, context.folder.adapter, context.encoder, out)
    if context.remote:
        note(f"Merged: {context.folder.merged}")
    return {}


def answers(context: Context, out: Path) -> Facts:
    """eval/NAME/merged/: predictions.jsonl of the merged model."""
    context.release()
    recipe = plain(context.recipe)
    hardware = choose_hardware(recipe)
    batch, cache = plan_answers(
        recipe, hardware, without_quantization(context.config), context.prompt_lengths,
        dequantized=False, shares=context.plan.shares,
    )  # fmt: skip
    engine = Local(merged_model(context), recipe.evaluate.max_new_tokens, batch, cache)
    engine.share = sharing(context, "merged")
    partial = out.with_name("answers.jsonl")
    found = engine.answer(context.encoder, context.asked, partial, "answering (merged)")
    write_predictions(out / ANSWERS, found)
    return {"asked": asdict(engine.way)} if engine.way else {}
