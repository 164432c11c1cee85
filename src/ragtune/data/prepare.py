"""The data stage: read, select, measure, write."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ragtune.base.console import note, progress, warn
from ragtune.base.errors import UsageError
from ragtune.base.files import making_folder, read_jsonl, write_json, write_jsonl
from ragtune.data import aio
from ragtune.data.audit import Audits, Selected
from ragtune.data.counts import Counts, dropped_text
from ragtune.data.encode import EncodedPrompt, Encoder
from ragtune.data.example import Example, parse_example
from ragtune.data.read import read_examples
from ragtune.data.select import loses_positives, rejection
from ragtune.data.too_long import ADVICE, refusal_too_long, shortest_accepted
from ragtune.data.unanswerable import draw, wanted, without_positives
from ragtune.data.vocabulary import see_ids
from ragtune.recipe.schema import Data, Recipe

BATCH = 16
"""Records that are read and encoded at a time; more of them were no quicker, and need memory."""

_SPARE = "spare"
"""Instead of a reason: not selected, but it may be trained as one that is to be refused."""


def source_of(data: Data, split: str) -> str:
    """What a split is read from: the recipe's path, or the downloaded aio file."""
    named = data.train if split == "train" else data.eval
    if named is not None:
        return named
    with progress(f"downloading {split}", None) as update:
        return str(aio.fetch(split, lambda done, total: update(done, "", total)))


def prepare(
    recipe: Recipe,
    encoder: Encoder,
    folder: Path,
    on_done: Callable[[], None] = lambda: None,
    rows: int = sys.maxsize,
) -> dict[str, Any]:
    """Write train.jsonl, eval.jsonl and report.json into a folder that appears when it is whole.

    Args:
        recipe: what is read, and how it is selected.
        encoder: for prompts and answers.
        folder: where.
        on_done: is called before the folder has its name.
        rows: of the model's embedding; an id beyond them is refused.

    Returns:
        What report.json holds.

    Raises:
        UsageError: bad data, or a split of which nothing is selected.
    """
    tokenizer = encoder.tokenizer
    see_ids(tokenizer, [encoder.stop_id, tokenizer.pad_token_id or 0], rows, "The tokenizer")
    with making_folder(folder) as partial:
        report: dict[str, Any] = {
            "max_passages": recipe.data.max_passages,
            "max_prompt_tokens": encoder.max_prompt,
            "stop_token": tokenizer.convert_ids_to_tokens(encoder.stop_id),
            "messages": dataclasses.asdict(encoder.form),
        }
        for form in encoder.form.words():
            note(f"The chat template: {form}.")
        audits = Audits(encoder, partial / "train.jsonl")
        if words := refusal_too_long(encoder):
            warn(f"{words}. {ADVICE}")
        for split, hub_split in (("train", "train"), ("eval", "validation")):
            source = source_of(recipe.data, split)
            counts = Counts(split, source, recipe, rows)
            lines = _rows(recipe, encoder, source, split, hub_split, counts, audits)
            write_jsonl(partial / f"{split}.jsonl", lines)
            report[split] = counts.report()
            counts.tell()
            if split == "train":
                _check_share(recipe.data, report[split])
            if not counts.selected:
                audits.tell()
                raise UsageError(
                    f"Nothing of {source} is selected: {dropped_text(counts.dropped)}.",
                    _advice(counts.dropped),
                )
        report["audits"] = audits.report()
        audits.tell()
        write_json(partial / "report.json", report)
        on_done()
    return report


def _rows(
    recipe: Recipe,
    encoder: Encoder,
    source: str,
    split: str,
    hub_split: str,
    counts: Counts,
    audits: Audits,
) -> Iterator[dict[str, Any]]:
    with progress(f"reading {split}", None) as update:
        done = total = 0

        def tick(now: int, of: int) -> None:
            nonlocal done, total
            done, total = now, of

        for batch in _ahead(read_examples(source, hub_split, tick), BATCH):
            yield from _chosen(recipe, encoder, split, batch, counts, audits)
            update(done, f"{counts.read:,} records, {counts.selected:,} selected", total)
        yield from _refusals(recipe, counts, audits)
        update(
            total or counts.read,
            f"{counts.read:,} records, {counts.selected:,} selected",
            total,
        )


def _chosen(
    recipe: Recipe,
    encoder: Encoder,
    split: str,
    batch: list[Example],
    counts: Counts,
    audits: Audits,
) -> Iterator[dict[str, Any]]:
    """The rows that a split's file gets of a batch."""
    reasons = [rejection(example, recipe.data.max_passages) for example in batch]
    for example in batch:
        audits.read(split, example)
    if split == "train" and recipe.data.unanswerable:
        batch, reasons = _hide_answers(recipe, batch, reasons, counts)
    # Of the evaluation split, a question that is not selected may be asked all the same.
    measured = [
        e for e, r in zip(batch, reasons, strict=True) if split == "eval" or r in (None, _SPARE)
    ]
    prompts = dict(zip((e.qid for e in measured), _prompts(encoder, measured), strict=True))
    selected = [e for e, r in zip(batch, reasons, strict=True) if r in (None, _SPARE)]
    targets = dict(zip((e.qid for e in selected), encoder.targets(selected), strict=True))
    _see_ids(encoder, prompts, targets, counts.rows)
    if split == "eval":  # what is trained of them says nothing of what is accepted
        answers = dict(zip(targets, shortest_accepted(encoder, selected), strict=True))
    else:
        answers = {qid: len(ids) - 1 for qid, ids in targets.items()}
    chosen: list[Selected] = []  # and what else is asked of the evaluation set
    for read, dropped in zip(batch, reasons, strict=True):
        counts.read += 1
        counts.computed += read.positives_computed
        prompt = prompts.get(read.qid)
        example, reason = read, dropped
        if prompt is not None and reason is None and positives_cut(encoder, read, prompt):
            example, reason = counts.without_positive(read)
            if not example.answers:
                targets[example.qid] = encoder.target(example)
                answers[example.qid] = len(targets[example.qid]) - 1
        if reason in (None, _SPARE):
            completion = targets[example.qid]
            if prompt is None:
                reason = "question_too_long"
            elif split == "train" and len(prompt.ids) + len(completion) > encoder.context:
                reason = "answer_too_long"
            elif reason == _SPARE:
                number = draw("real", recipe.seed, example.qid)
                short = example.first_passages(recipe.data.max_passages)
                counts.spare.append((number, short, prompt, completion))
                continue
            else:
                counts.select(example, prompt, completion, answers[example.qid])
                chosen.append(Selected(example, prompt, completion))
                counts.special_text += encoder.holds_special_text(example)
        elif split == "eval" and prompt is None:
            reason = "question_too_long"  # not even evaluate.questions: all can ask it
        elif split == "eval" and prompt is not None and _asked_too(recipe, reason):
            chosen.append(Selected(example, prompt, []))
        if reason:
            counts.dropped[reason] += 1
        if split == "eval":
            # Every question is kept, with all its passages: they are the denominator.
            yield _question(encoder, example, prompt, reason)
        elif reason is None:
            yield example.first_passages(recipe.data.max_passages).to_dict()
    audits.add(split, chosen)


def _see_ids(
    encoder: Encoder,
    prompts: dict[str, EncodedPrompt | None],
    targets: dict[str, list[int]],
    rows: int,
) -> None:
    """See that the model has a row for all that is read and trained, by qid."""
    for qid, prompt in prompts.items():
        ids = (prompt.ids if prompt else []) + targets.get(qid, [])
        see_ids(encoder.tokenizer, ids, rows, f"Question {qid}")


def positives_cut(encoder: Encoder, example: Example, prompt: EncodedPrompt) -> bool:
    """Whether the prompt was cut, and of the example's positives nothing is left in it."""
    cut = prompt.passages_dropped or prompt.characters_cut
    if not cut or not example.positive_passage_indices:
        return False
    return loses_positives(example, encoder.kept(example, prompt))


def _question(
    encoder: Encoder, example: Example, prompt: EncodedPrompt | None, reason: str | None
) -> dict[str, Any]:
    """The row of an evaluation question: whether it is selected, why not, and what a cut prompt shows."""
    left = None
    if prompt is not None and (prompt.passages_dropped or prompt.characters_cut):
        left = [[index, len(text)] for index, text in encoder.kept(example, prompt)]
    row = example.to_dict() | {"selected": reason is None, "reason": reason, "left_in_prompt": left}
    return {k: v for k, v in row.items() if v is not None or k not in ("reason", "left_in_prompt")}


def _prompts(encoder: Encoder, examples: list[Example]) -> list[EncodedPrompt | None]:
    """The examples' prompts; a template that fails is named with the record that it fails for."""
    try:
        return encoder.prompts(examples)
    except UsageError:
        for example in examples:
            try:
                encoder.prompt(example)
            except UsageError as error:
                raise UsageError(f"Question {example.qid}: {error.message}", error.advice) from None
        raise


def _hide_answers(
    recipe: Recipe, batch: list[Example], reasons: list[str | None], counts: Counts
) -> tuple[list[Example], list[str | None]]:
    """Make unanswerable examples of some that are selected, or set those without an answer aside.

    The share holds over all batches so far, to one example; which of a batch, the seed draws.
    """
    data = recipe.data
    if data.unanswerable_from == "real":
        return batch, [_SPARE if r == "no_answer" else r for r in reasons]
    selected = [i for i, reason in enumerate(reasons) if reason is None]
    counts.seen += len(selected)
    hidden = {i: without_positives(batch[i], data) for i in selected}
    can = [i for i in selected if hidden[i] is not None]
    can.sort(key=lambda i: draw("removed", recipe.seed, batch[i].qid))
    taken = set(can[: max(0, round(data.unanswerable * counts.seen) - counts.hidden)])
    counts.hidden += len(taken)
    found = [(i in taken and hidden[i]) or example for i, example in enumerate(batch)]
    return found, reasons


def _refusals(recipe: Recipe, counts: Counts, audits: Audits) -> Iterator[dict[str, Any]]:
    """The rows of as many of the spare examples as the recipe wants, drawn by the seed."""
    # Those whose positives were cut away may be refused already.
    refused = counts.unanswerable
    count = max(0, wanted(counts.selected - refused, recipe.data.unanswerable) - refused)
    counts.spare.sort(key=lambda spare: (spare[0], spare[1].qid))
    counts.dropped["no_answer"] += max(0, len(counts.spare) - count)
    taken = counts.spare[:count]
    for _, example, prompt, completion in taken:
        counts.select(example, prompt, completion, len(completion) - 1)
        yield example.to_dict()
    audits.add("train", [Selected(example, prompt, ids) for _, example, prompt, ids in taken])
    counts.spare.clear()


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


def _check_share(data: Data, report: dict[str, Any]) -> None:
    """Say it if the share of unanswerable examples is not what the recipe asks for."""
    if report["selected"] and report["unanswerable"] < 0.9 * data.unanswerable * report["selected"]:
        more = (
            "there are no more records with `answers: []`"
            if data.unanswerable_from == "real"
            else "of the others every passage holds an answer"
        )
        warn(
            f"data.unanswerable asks for {data.unanswerable:.1%}, and "
            f"{report['unanswerable'] / report['selected']:.1%} were found: {more}."
        )


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


def load_examples(path: Path) -> list[Example]:
    """The examples of a prepared split."""
    return [
        parse_example(row, f"{path}:{number}") for number, row in enumerate(read_jsonl(path), 1)
    ]


def _asked_too(recipe: Recipe, reason: str | None) -> bool:
    """Whether a question that is not selected, for this reason, is asked all the same."""
    if reason is None or reason == "question_too_long":
        return False
    refused = recipe.data.refusal is not None and reason == "no_answer"
    return recipe.evaluate.questions == "all" or refused


def asked(recipe: Recipe, examples: list[Example]) -> list[Example]:
    """The evaluation questions that are asked, in the order of the file.

    Those are the selected ones; with a refusal also those that have no answer.
    """
    chosen = [
        e for e in examples if e.extra["selected"] or _asked_too(recipe, e.extra.get("reason"))
    ]
    chosen = chosen[: recipe.evaluate.limit]
    if not any(e.extra["selected"] for e in chosen):
        raise UsageError(
            f"None of the first {len(chosen)} questions is selected, so there is nothing to score.",
            "Raise evaluate.limit: the figures need questions with an answer in their passages.",
        )
    return chosen
