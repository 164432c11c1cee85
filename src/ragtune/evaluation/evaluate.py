"""The evaluation stage: ask, write the answers, score them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ragtune.console import note, progress
from ragtune.data.encode import EncodedPrompt, Encoder
from ragtune.data.example import Example
from ragtune.errors import RagtuneError
from ragtune.evaluation.compare import compare
from ragtune.evaluation.endpoint import ask_server, how_to_serve, served_name
from ragtune.evaluation.generate import Prediction, answer
from ragtune.evaluation.metrics import score, summary
from ragtune.files import making_folder, read_jsonl, write_json, write_jsonl
from ragtune.recipe import Recipe


def encode_prompts(encoder: Encoder, examples: Sequence[Example]) -> list[tuple[str, list[int]]]:
    """The examples' (qid, prompt ids). Raises as `conversations` does."""
    return [(example.qid, prompt.ids) for example, prompt in _fitting(encoder, examples)]


def conversations(
    encoder: Encoder, examples: Sequence[Example]
) -> list[tuple[str, list[dict[str, str]]]]:
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
            partial=partial,
            advice=how_to_serve(recipe, which, base, run),
            tick=lambda done: update(done, ""),
        )


def write_evaluation(
    folder: Path, predictions: Sequence[Prediction], examples: Sequence[Example]
) -> dict[str, Any]:
    """Write predictions.jsonl and metrics.json; return the latter.

    The figures are over the selected questions, whatever else was asked.
    """
    with making_folder(folder) as partial:
        write_jsonl(partial / "predictions.jsonl", (p.to_dict() for p in predictions))
        chosen = [(p, e) for p, e in zip(predictions, examples, strict=True) if e.extra["selected"]]
        scores = score([p.prediction for p, _ in chosen], [e.answers for _, e in chosen])
        metrics = {
            **summary(scores),
            "asked": len(predictions),
            "stopped": sum(p.stopped for p, _ in chosen),
            # A server does not say which tokens it wrote.
            "new_tokens": sum(len(p.token_ids) + p.stopped for p, _ in chosen)
            if any(p.token_ids for p in predictions)
            else None,
        }
        write_json(partial / "metrics.json", metrics)
    return metrics


def load_predictions(folder: Path) -> dict[str, str]:
    """The answers of a finished evaluation, by qid."""
    return {row["qid"]: row["prediction"] for row in read_jsonl(folder / "predictions.jsonl")}


def compare_folders(
    recipe: Recipe, examples: Sequence[Example], before: Path, after: Path
) -> dict[str, Any]:
    """Before against after over the selected questions that both were asked.

    Raises:
        RagtuneError: the two were asked different questions.
    """
    old, new = load_predictions(before), load_predictions(after)
    if old.keys() != new.keys():
        raise RagtuneError(
            f"{before} and {after} answer different questions.",
            "Delete both folders and run the same command again.",
        )
    chosen = [e for e in examples if e.qid in old and e.extra["selected"]]
    golds = [e.answers for e in chosen]
    return compare(
        score([old[e.qid] for e in chosen], golds),
        score([new[e.qid] for e in chosen], golds),
        [(old[e.qid], new[e.qid]) for e in chosen],
        metric=recipe.evaluate.metric,
        seed=recipe.seed,
    )


def show_answers(examples: Sequence[Example], answers: dict[str, str], count: int = 20) -> None:
    """Print the first answers beside the accepted ones, as the notebook did."""
    note(f"The first {min(count, len(answers))}: accepted answer  ←  the model's")
    for example in [e for e in examples if e.qid in answers][:count]:
        gold = example.answers[0] if example.answers else "(no answer)"
        given = " ".join(answers[example.qid].split())
        note(f"  {gold}  ←  {given[:80]}{'…' if len(given) > 80 else ''}")  # noqa: PLR2004
