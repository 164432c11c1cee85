"""The stages of the data: training examples and questions, read, selected, measured, written."""

from __future__ import annotations

from pathlib import Path

from ragtune.base.files import read_json
from ragtune.base.screen.console import note
from ragtune.data.prepare import known_training, prepare_questions, prepare_training
from ragtune.stages.built import keep_built
from ragtune.stages.context import Context
from ragtune.store.proof import Facts
from ragtune.store.sets import set_name, sets_there


def training(context: Context, out: Path) -> Facts:
    """data/: train.jsonl and report.json, and build.json where the examples were built."""
    encoder = context.encoder  # with it a Hub model is in the cache
    context.pin()
    context.auditor = prepare_training(context.recipe, encoder, context.embedding_rows, out)
    keep_built(context.recipe.data, "train", out)
    return _facts(context, out, "train")


def questions(context: Context, out: Path) -> Facts:
    """eval/SET/questions/: eval.jsonl and report.json, and build.json where the examples were built."""
    name, taken = context.folder.evaluation.name, set_name(context.recipe)
    if name != taken:
        other = sets_there(context.folder.path).get(taken)
        note(f"This evaluation set lies in eval/{name}: eval/{taken} is of data.eval={other}.")
    # Another evaluation set is compared with training data that were there already.
    auditor = context.auditor or known_training(context.encoder, context.folder.data)
    auditor.training_lies_in(context.folder.data / "train.jsonl")
    rows = context.embedding_rows
    prepare_questions(context.recipe, context.encoder, rows, out, auditor)
    keep_built(context.recipe.data, "eval", out)
    return _facts(context, out, "eval")


def _facts(context: Context, out: Path, split: str) -> Facts:
    """What tells whether another `evaluate.max_new_tokens` would leave every prompt as it is."""
    part = read_json(out / "report.json")[split]
    dropped = {"question_too_long", "answer_too_long"} & part["dropped"].keys()
    whole = not part["truncated"]["examples"] and not dropped
    longest = part["prompt_tokens"].get("max", 0)
    room = context.encoder.max_prompt
    return {"prompts": {"room": room, "whole": whole, "longest": longest}}
