"""The evaluation stage: ask, write the answers, score them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ragtune.answering.generate import Prediction, answer
from ragtune.answering.padded import Way
from ragtune.answering.server import ask_server
from ragtune.answering.serving import how_to_serve, served_name
from ragtune.base.console import note, progress
from ragtune.base.errors import RagtuneError
from ragtune.base.files import making_folder, write_json, write_jsonl
from ragtune.data.chat import Message
from ragtune.data.encode import EncodedPrompt, Encoder
from ragtune.data.example import Example
from ragtune.recipe.schema import Recipe
from ragtune.scoring.compare import compare
from ragtune.scoring.score import load_cut, load_predictions, metrics_of, score_answers


def encode_prompts(encoder: Encoder, examples: Sequence[Example]) -> list[tuple[str, list[int]]]:
    """The examples' (qid, prompt ids). Raises as `conversations` does."""
    return [(example.qid, prompt.ids) for example, prompt in _fitting(encoder, examples)]


def conversations(encoder: Encoder, examples: Sequence[Example]) -> list[tuple[str, list[Message]]]:
    """The examples' (qid, messages), cut as their encoded prompts are.

    Raises:
        RagtuneError: a question of the prepared data no longer fits (another tokenizer).
    """
    return [(e.qid, encoder.messages(e, prompt)) for e, prompt in _fitting(encoder, examples)]


def _fitting(
    encoder: Encoder, examples: Sequence[Example]
) -> Iterator[tuple[Example, EncodedPrompt]]:
    for example, prompt in zip(examples, encoder.prompts(examples), strict=True):
        if prompt is None:
            raise RagtuneError(
                f"The question {example.qid} no longer fits into the model's context.",
                "Run `ragtune prepare` again: the prepared data belong to another model.",
            )
        yield example, prompt


def ask(
    recipe: Recipe,
    model: Any,
    encoder: Encoder,
    prompts: Sequence[tuple[str, list[int]]],
    limits: tuple[int, int | None],
    partial: Path,
    title: str,
    on_way: Callable[[Way], None] = lambda _: None,
) -> list[Prediction]:
    """The model's answers, without what the chat template writes around one.

    `limits` are the questions, and their cached tokens, at a time; `on_way` is given how they are asked.
    """
    batch_size, cache_tokens = limits
    with progress(title, len(prompts)) as update:
        found = answer(
            model,
            encoder.tokenizer,
            prompts,
            stop_id=encoder.stop_id,
            max_new_tokens=recipe.evaluate.max_new_tokens,
            batch_size=batch_size,
            cache_tokens=cache_tokens,
            partial=partial,
            tick=lambda done: update(done, ""),
            on_way=on_way,
        )
    return [replace(one, prediction=encoder.turn.answer(one.prediction)) for one in found]


def ask_endpoint(
    recipe: Recipe,
    which: str,
    encoder: Encoder,
    examples: Sequence[Example],
    base: str,
    run: Path,
    partial: Path,
) -> list[Prediction]:
    """The answers of the recipe's server; `base` and `run` are for advice on how to serve."""
    asked = conversations(encoder, examples)
    name = served_name(recipe, which)
    note(f"Asking {recipe.evaluate.endpoint} for {name}")
    with progress(f"answering ({which})", len(asked)) as update:
        return ask_server(
            recipe.evaluate.endpoint or "",
            name,
            asked,
            max_new_tokens=recipe.evaluate.max_new_tokens,
            concurrency=recipe.evaluate.concurrency,
            template_arguments=recipe.prompt.template_arguments,
            partial=partial,
            advice=how_to_serve(recipe, which, base, run),
            tick=lambda done: update(done, ""),
        )


def write_evaluation(
    recipe: Recipe, folder: Path, predictions: Sequence[Prediction], examples: Sequence[Example]
) -> dict[str, Any]:
    """Write predictions.jsonl and metrics.json; return the latter.

    Args:
        recipe: how answers are scored.
        folder: appears when it is whole.
        predictions: the answers.
        examples: every question of the evaluation set, asked or not.
    """
    metrics = figures_of(recipe, predictions, examples)
    with making_folder(folder) as partial:
        write_jsonl(partial / "predictions.jsonl", (p.to_dict() for p in predictions))
        write_json(partial / "metrics.json", metrics)
    return metrics


def figures_of(
    recipe: Recipe, predictions: Sequence[Prediction], examples: Sequence[Example]
) -> dict[str, Any]:
    """The content of metrics.json; the arguments are those of `write_evaluation`."""
    cut = {p.qid for p in predictions if not p.stopped}
    scored = score_answers(recipe, examples, {p.qid: p.prediction for p in predictions}, cut=cut)
    selected = {e.qid for e in scored.chosen}
    chosen = [p for p in predictions if p.qid in selected]
    return {
        **metrics_of(scored),
        "asked": len(predictions),
        "stopped": sum(p.stopped for p in chosen),
        "cut": scored.cut,
        # A server does not say which tokens it wrote.
        "new_tokens": sum(len(p.token_ids) + p.stopped for p in chosen)
        if any(p.token_ids for p in predictions)
        else None,
    }


def compare_folders(
    recipe: Recipe, examples: Sequence[Example], before: Path, after: Path
) -> dict[str, Any]:
    """Before against after; `examples` is every question of the evaluation set.

    Raises:
        RagtuneError: the two were asked different questions.
    """
    old, new = load_predictions(before), load_predictions(after)
    if old.keys() != new.keys():
        raise RagtuneError(
            f"{before} and {after} answer different questions.",
            "Delete both folders and run the same command again.",
        )
    return compare(
        score_answers(recipe, examples, old, cut=load_cut(before)),
        score_answers(recipe, examples, new, cut=load_cut(after)),
    )


def show_answers(examples: Sequence[Example], answers: dict[str, str], count: int = 20) -> None:
    """Print the first answers beside the accepted ones, as the notebook did."""
    note(f"The first {min(count, len(answers))}: accepted answer  ←  the model's")
    for example in [e for e in examples if e.qid in answers][:count]:
        gold = example.answers[0] if example.answers else "(no answer)"
        given = " ".join(answers[example.qid].split())
        note(f"  {gold}  ←  {given[:80]}{'…' if len(given) > 80 else ''}")  # noqa: PLR2004
