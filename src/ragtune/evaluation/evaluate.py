"""The evaluation stage: ask, write the answers, score them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ragtune.console import note, progress, warn
from ragtune.data.encode import Encoder
from ragtune.data.example import Example
from ragtune.errors import RagtuneError, UsageError
from ragtune.evaluation.compare import compare
from ragtune.evaluation.controls import conditions, key
from ragtune.evaluation.generate import Prediction, answer
from ragtune.evaluation.score import load_predictions, metrics_of, score_answers
from ragtune.files import making_folder, write_json, write_jsonl
from ragtune.recipe import Recipe


def encode_prompts(encoder: Encoder, examples: Sequence[Example]) -> list[tuple[str, list[int]]]:
    """The examples' (qid, prompt ids).

    Raises:
        RagtuneError: a question of the prepared data no longer fits (another tokenizer).
    """
    prompts = []
    for example, prompt in zip(examples, encoder.prompts(examples), strict=True):
        if prompt is None:
            raise RagtuneError(
                f"The question {example.qid} no longer fits into the model's context.",
                "Run `ragtune prepare` again: the prepared data belong to another model.",
            )
        prompts.append((example.qid, prompt.ids))
    return prompts


def encode_controls(
    recipe: Recipe, encoder: Encoder, examples: Sequence[Example]
) -> list[tuple[str, list[int]]]:
    """The prompts of every control's questions, by `controls.key`."""
    prompts = []
    for name, (title, show) in conditions(recipe.data.max_passages).items():
        shown = [(e, passages) for e in examples if (passages := show(e)) is not None]
        try:
            encoded = encoder.prompts_of([e for e, _ in shown], [p for _, p in shown])
        except UsageError as error:  # the user's template may need a passage
            warn(f"Control left out: {title}. {error.message}")
            continue
        cut = 0
        for (example, _), prompt in zip(shown, encoded, strict=True):
            if prompt is not None:
                prompts.append((key(name, example.qid), prompt.ids))
                cut += bool(prompt.passages_dropped or prompt.characters_cut)
        if cut:
            warn(f"{title}: {cut:,} prompts were too long and lost passages or text.")
    return prompts


def ask(
    recipe: Recipe,
    model: Any,
    encoder: Encoder,
    prompts: Sequence[tuple[str, list[int]]],
    limits: tuple[int, int | None],
    partial: Path,
    title: str,
) -> list[Prediction]:
    """The model's answers; `limits` are the questions, and their cached tokens, at a time."""
    batch_size, cache_tokens = limits
    with progress(title, len(prompts)) as update:
        return answer(
            model,
            encoder.tokenizer,
            prompts,
            stop_id=encoder.stop_id,
            max_new_tokens=recipe.evaluate.max_new_tokens,
            batch_size=batch_size,
            cache_tokens=cache_tokens,
            partial=partial,
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
    scored = score_answers(recipe, examples, {p.qid: p.prediction for p in predictions})
    selected = {e.qid for e in scored.chosen}
    chosen = [p for p in predictions if p.qid in selected]
    with making_folder(folder) as partial:
        write_jsonl(partial / "predictions.jsonl", (p.to_dict() for p in predictions))
        metrics = {
            **metrics_of(scored),
            "asked": len(predictions),
            "stopped": sum(p.stopped for p in chosen),
            "new_tokens": sum(len(p.token_ids) + p.stopped for p in chosen),
        }
        write_json(partial / "metrics.json", metrics)
    return metrics


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
    return compare(score_answers(recipe, examples, old), score_answers(recipe, examples, new))


def show_answers(examples: Sequence[Example], answers: dict[str, str], count: int = 20) -> None:
    """Print the first answers beside the accepted ones, as the notebook did."""
    note(f"The first {min(count, len(answers))}: accepted answer  ←  the model's")
    for example in [e for e in examples if e.qid in answers][:count]:
        gold = example.answers[0] if example.answers else "(no answer)"
        given = " ".join(answers[example.qid].split())
        note(f"  {gold}  ←  {given[:80]}{'…' if len(given) > 80 else ''}")  # noqa: PLR2004
