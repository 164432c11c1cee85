"""The stages that write the tuned model in bfloat16, adapter merged, and ask it questions again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ragtune.answering.local import Local
from ragtune.answering.orders import answer_in_orders
from ragtune.answering.prediction import Prediction, read_predictions, write_predictions
from ragtune.base.screen.console import note
from ragtune.base.text import one_or_many
from ragtune.data.example import Example
from ragtune.data.select import drawn
from ragtune.model.hardware import plain
from ragtune.model.merge import merge
from ragtune.model.plan import plan_answers
from ragtune.model.quantized import without_quantization
from ragtune.scoring.reasked import asked_first, changed_in, settled
from ragtune.scoring.score import Answers
from ragtune.stages.answer import ANSWERS, merged_model, sharing, tell_way
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
    """eval/NAME/merged/: predictions.jsonl of the merged model, to some of the questions or to all."""
    context.release()
    recipe, config = plain(context.recipe), without_quantization(context.config)
    batch, cache = plan_answers(
        recipe, context.hardware_for(recipe), config, context.prompt_lengths,
        dequantized=False, shares=context.plan.shares,
    )  # fmt: skip
    engine = Local(merged_model(context), recipe.evaluate.max_new_tokens, batch, cache)
    if _computes_alike(context):
        tell_way(context, engine)
    engine.share = sharing(context, "merged")
    write_predictions(
        out / ANSWERS, _as_many_as_needed(context, engine, out.with_name("answers.jsonl"))
    )
    return {"asked": asdict(engine.way)} if engine.way else {}


def _computes_alike(context: Context) -> bool:
    """Whether the tuned model's weights were in the form of the merged ones: another one rounds otherwise."""
    recipe, config = context.recipe, context.config
    return (
        recipe.model.quantization is None
        and recipe.evaluate.products is None
        and without_quantization(config) is config
    )


def _as_many_as_needed(context: Context, engine: Local, partial: Path) -> list[Prediction]:
    """The merged model's answers to questions drawn by the seed; to all, if those leave open what it is."""
    own = Answers.of(read_predictions(context.folder.answers("after") / ANSWERS))
    lot = f"merged:{context.recipe.seed}"
    first = drawn(context.asked, asked_first(len(context.asked)), lot)
    qids = {example.qid for example in first}
    rest = [example for example in context.asked if example.qid not in qids]

    def ask(examples: Sequence[Example]) -> list[Prediction]:
        title = "answering (merged)"
        return answer_in_orders(engine, context.encoder, examples, partial, title)

    if rest:
        note(f"Of {len(context.asked):,} questions {len(first):,} are asked, drawn by the seed.")
    found = ask(first)
    again = Answers.of(found)
    if rest and not settled(own, again):
        note(
            f"{one_or_many(changed_in(own, again), 'answer')} changed: the other "
            f"{one_or_many(len(rest), 'is', 'are')} asked, too."
        )
        found += ask(rest)
    places = {example.qid: place for place, example in enumerate(context.asked)}
    return sorted(found, key=lambda one: places[one.qid])
