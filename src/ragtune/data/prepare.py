"""Prepared data: read, selected, measured and written; and read again."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypedDict

from ragtune.base.errors import UsageError
from ragtune.base.files import read_json, read_jsonl, write_json, write_jsonl
from ragtune.base.screen.activity import BYTES
from ragtune.base.screen.console import note, warn
from ragtune.base.screen.progress import progress
from ragtune.base.stopping import stop_if_asked
from ragtune.base.text import one_or_many
from ragtune.data import aio
from ragtune.data.audit import AuditReport, in_order
from ragtune.data.auditor import Auditor
from ragtune.data.counts import ADVICE, SplitReport, refusal_too_long
from ragtune.data.encode import Encoder
from ragtune.data.example import Example, parse_example
from ragtune.data.formats.reading import AUTO, How
from ragtune.data.read import read_examples
from ragtune.data.select import is_asked_too
from ragtune.data.splits import EvaluationSplit, Row, Split, TrainingSplit
from ragtune.data.tokenizer import require_rows
from ragtune.recipe.data import Data
from ragtune.recipe.schema import Recipe

BATCH = 64
"""Records that are read and encoded at a time: enough for a tokenizer's threads on many cores."""


class DataReport(TypedDict):
    """What is told of the data, of both splits."""

    max_passages: int
    max_prompt_tokens: int
    stop_token: str
    messages: dict[str, bool]
    """The form that they have (`Form`)."""
    train: SplitReport
    eval: SplitReport
    audits: list[AuditReport]


def source_of(data: Data, split: str) -> str:
    """What a split is read from: the recipe's path, or the downloaded aio file."""
    named = data.train if split == "train" else data.eval
    if named is not None:
        return named
    with progress(f"downloading {split}", unit=BYTES) as update:
        return str(aio.fetch(split, lambda done, total: update(done, "", total)))


def how_of(data: Data, split: str) -> How:
    """How a split is read: as the recipe says, but for downloaded aio files."""
    named = data.train if split == "train" else data.eval
    return AUTO if named is None else How(data.format, {str(k): v for k, v in data.fields.items()})


def prepare_training(recipe: Recipe, encoder: Encoder, rows: int, folder: Path) -> Auditor:
    """Write train.jsonl and its report.json.

    Args:
        recipe: what is read, and how it is selected.
        encoder: for prompts and answers.
        rows: of the model's embedding; an id beyond them is refused.
        folder: where; it exists.

    Returns:
        What the questions are compared with; it tells what was found.

    Raises:
        UsageError: bad data, or nothing is selected.
    """
    tokenizer = encoder.tokenizer
    require_rows(tokenizer, [encoder.stop_id, tokenizer.pad_token_id or 0], rows, "The tokenizer")
    for form in encoder.form.words():
        note(f"The chat template: {form}.")
    if words := refusal_too_long(encoder):
        warn(f"{words}. {ADVICE}")
    auditor = Auditor(encoder, folder / "train.jsonl")
    source = source_of(recipe.data, "train")
    report = {
        "max_passages": recipe.data.max_passages,
        "max_prompt_tokens": encoder.max_prompt,
        "stop_token": tokenizer.convert_ids_to_tokens(encoder.stop_id),
        "messages": dataclasses.asdict(encoder.form),
        "train": _write(folder, TrainingSplit(recipe, encoder, auditor, rows, source)),
    }
    write_json(folder / "report.json", {**report, "audits": auditor.report("train")})
    return auditor


def known_training(encoder: Encoder, training: Path) -> Auditor:
    """What questions are compared with, of training data that are there already."""
    auditor = Auditor(encoder, training / "train.jsonl")
    auditor.know_training(load_examples(training / "train.jsonl"))
    return auditor


def prepare_questions(
    recipe: Recipe, encoder: Encoder, rows: int, folder: Path, auditor: Auditor
) -> None:
    """Write eval.jsonl and its report.json, and tell what the audits found.

    Args:
        recipe: what is read, and how it is selected.
        encoder: for prompts and answers.
        rows: of the model's embedding; an id beyond them is refused.
        folder: where; it exists.
        auditor: of the training data.

    Raises:
        UsageError: bad data, or nothing is selected.
    """
    source = source_of(recipe.data, "eval")
    counted = _write(folder, EvaluationSplit(recipe, encoder, auditor, rows, source))
    write_json(folder / "report.json", {"eval": counted, "audits": auditor.report("both", "eval")})
    auditor.tell()


def load_report(training: Path, questions: Path) -> DataReport:
    """What the two folders' reports say, in one."""
    first, second = (read_json(folder / "report.json") for folder in (training, questions))
    return {
        "max_passages": first["max_passages"],
        "max_prompt_tokens": first["max_prompt_tokens"],
        "stop_token": first["stop_token"],
        "messages": first["messages"],
        "train": first["train"],
        "eval": second["eval"],
        "audits": in_order([*first["audits"], *second["audits"]]),
    }


def load_examples(path: Path) -> list[Example]:
    """The examples of a prepared split."""
    return [
        parse_example(row, f"{path}:{number}") for number, row in enumerate(read_jsonl(path), 1)
    ]


def asked(recipe: Recipe, examples: list[Example]) -> list[Example]:
    """The evaluation questions that are asked, in the order of the file.

    Those are the selected ones; with a refusal also those that have no answer.
    """
    chosen = [
        e for e in examples if e.extra["selected"] or is_asked_too(recipe, e.extra.get("reason"))
    ]
    chosen = chosen[: recipe.evaluate.limit]
    if not any(e.extra["selected"] for e in chosen):
        raise UsageError(
            f"Of the first {one_or_many(len(chosen), 'question')} none is selected, so there is nothing to "
            "score.",
            "Raise evaluate.limit: the figures need questions with an answer in their passages.",
        )
    return chosen


def _write(folder: Path, split: Split) -> SplitReport:
    """Write a split's file and say what was counted.

    Raises:
        UsageError: nothing is selected.
    """
    write_jsonl(folder / f"{split.name}.jsonl", _rows(split))
    split.tell()
    counts = split.counts
    if not counts.selected:
        split.auditor.tell()
        raise UsageError(
            f"Nothing of {split.source} is selected: {counts.dropped_text()}.",
            _advice(counts.dropped),
        )
    return counts.report()


def _rows(split: Split) -> Iterator[Row]:
    counts = split.counts
    with progress(f"reading {split.name}", unit="records") as update:
        done = total = 0

        def tick(now: int, of: int) -> None:
            nonlocal done, total
            done, total = now, of

        def say(done: int) -> None:
            said = f"{counts.read:,} records, {counts.selected:,} selected"
            update(done, said, total, counts.read)

        how = how_of(split.recipe.data, split.name)
        for batch in _ahead(read_examples(split.source, split.hub_name, tick, how), BATCH):
            stop_if_asked()
            yield from split.chosen(batch)
            say(done)
        yield from split.rest()
        say(total or counts.read)


def _ahead(examples: Iterator[Example], size: int) -> Iterator[list[Example]]:
    """Yield lists of examples; a thread reads the next one while the caller works on this one.

    Unpacking there and encoding here leave the interpreter free, so the two share two cores.
    """

    def read() -> list[Example]:
        return list(itertools.islice(examples, size))

    with ThreadPoolExecutor(1, "read") as pool:
        following = pool.submit(read)
        while batch := following.result():
            following = pool.submit(read)
            yield batch


def _advice(dropped: Counter[str]) -> str:
    """What to do when nothing is selected, by the reason that most were dropped for."""
    (reason, _), *_ = dropped.most_common(1)
    if set(dropped) == {"no_answer"}:
        return "The figures need questions with an answer; those without one are asked beside them."
    if reason == "positive_cut":
        return (
            "Raise prompt.max_tokens, as far as the model reads, or lower data.max_passages. "
            "data.cut_positives says what else may become of such examples."
        )
    if reason.endswith("_too_long"):
        return "Raise prompt.max_tokens, or choose a model with a longer context."
    return "Raise data.max_passages, or look at answers and positive_passage_indices."
