"""What can be found out of the data before anything costs time."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ragtune.base.errors import UsageError
from ragtune.base.files import sha256
from ragtune.data.counts import on_cut, what_becomes
from ragtune.data.prepare import positives_cut
from ragtune.data.read import locate
from ragtune.data.select import nearly_positive, rejection
from ragtune.data.too_long import ADVICE, TooLong, refusal_too_long, shortest_accepted

if TYPE_CHECKING:
    from ragtune.data.example import Example
    from ragtune.stages.check.findings import Look

WHOLE = 16 * 2**20
"""Bytes of a file up to which every record is read; of larger ones, and of Hub datasets, the first LOOK."""
LOOK = 100
_SHOWN = 100
"""Selected examples of a split that are encoded."""
_MANY_EPOCHS = 20


def split(look: Look, split: str) -> None:
    """See that a split can be read, how much of it is selected, and what its file's sha256 is."""
    from ragtune.data import aio
    from ragtune.data.prepare import source_of
    from ragtune.data.read import read_examples

    run, name = look.run, f"data.{split}"
    if (run.dir.data / "report.json").exists():
        look.say(name, "prepared already")
        return
    named = run.recipe.data.train if split == "train" else run.recipe.data.eval
    if named is None and not run.settled and not aio.is_there(split):
        look.say(name, f"{aio.FILES[split]} will be downloaded, and looked at then")
        return
    # A run downloads it now: it needs it anyway.
    source = named if named is not None else source_of(run.recipe.data, split)
    path = locate(source)
    every = path is not None and path.stat().st_size <= WHOLE
    read, total, where = 0, 0, (0, 0)

    def tick(done: int, of: int) -> None:
        nonlocal where
        where = (done, of)

    reasons: dict[str | None, int] = {}
    selected: list[Example] = []
    near: Counter[str] = Counter()
    for example in read_examples(source, "train" if split == "train" else "validation", tick):
        read += 1
        reason = rejection(example, run.recipe.data.max_passages)
        reasons[reason] = reasons.get(reason, 0) + 1
        if reason in ("no_positive", "positive_too_low"):
            near.update(nearly_positive(example, run.recipe.data.max_passages).keys())
        if reason is None and len(selected) < _SHOWN:
            selected.append(example)
        if read == LOOK and not every:
            total = round(read * where[1] / where[0]) if where[0] and where[1] else 0
            break
    chosen = reasons.get(None, 0)
    whole = not total and (every or read < LOOK)
    _nearly(look, name, near)
    if not chosen and whole:
        raise UsageError(
            f"Nothing of {source} would be selected ({read} records).",
            "Each question needs an answer that stands in one of its first data.max_passages passages.",
        )
    look.examples[split] = selected
    if whole and chosen == len(selected):
        look.whole.add(split)
    words = f"{source}; " + (
        f"{chosen:,} of {read:,} records are selected"
        if whole
        else f"of the first {read} records {chosen} are selected"
        + (f", of about {total:,}" if total else "")
    )
    if path is not None:
        look.fingerprints[split] = sha256(path)
        words += f"; sha256 {look.fingerprints[split][:12]}"
    look.say(name, words)
    if whole and split == "train":
        _epochs(look, chosen)


def _nearly(look: Look, name: str, near: Counter[str]) -> None:
    """Say how many records have no positive only for their answer's form."""
    for kind, words in (
        ("inside_words", "inside a word (eyes, for the answer yes)"),
        ("other_forms", "in another width, case or spacing"),
    ):
        if near[kind]:
            look.say(
                name, f"{near[kind]:,} records are left out whose answer stands there only {words}", "warning",
                "Correct the answers, or name the passages in positive_passage_indices.",
            )  # fmt: skip


def _epochs(look: Look, chosen: int) -> None:
    train = look.run.recipe.train
    epochs = train.epochs or (train.steps or 0) * train.batch_size / chosen
    if epochs > _MANY_EPOCHS:
        look.say(
            "training", f"each of {chosen:,} examples is trained {epochs:.0f} times", "warning",
            "So few examples are learnt by heart: lower train.steps, or bring more.",
        )  # fmt: skip


def apart(look: Look) -> None:
    prints = look.fingerprints
    if "train" in prints and prints["train"] == prints.get("eval"):
        look.say(
            "data", "training and evaluation are the same file", "warning",
            "The figures would say how well answers were learnt by heart: set data.eval to other questions.",
        )  # fmt: skip


def truncation(look: Look) -> None:
    for split, examples in look.examples.items():
        look.prompts[split] = look.run.encoder.prompts(examples)
        _positives(look, split)
    prompts = [prompt for split in look.prompts.values() for prompt in split]
    if not prompts:
        return
    cut = sum(p is None or bool(p.passages_dropped or p.characters_cut) for p in prompts)
    if cut:
        look.say(
            "truncation", f"{cut:,} of {len(prompts):,} prompts lose passages or text", "warning",
            f"Prompts may have {look.run.encoder.max_prompt:,} tokens: lower data.max_passages, or raise "
            "prompt.max_tokens as far as the model reads.",
        )  # fmt: skip
    else:
        look.say("truncation", f"none of {len(prompts):,} prompts is cut")


def _positives(look: Look, split: str) -> None:
    """Of how many prompts every passage with an answer is cut away."""
    run, examples = look.run, look.examples[split]
    lost = [
        example.qid
        for example, prompt in zip(examples, look.prompts[split], strict=True)
        if prompt is not None and positives_cut(run.encoder, example, prompt)
    ]
    if not lost:
        return
    words = (
        f"{split}: {len(lost):,} of {len(examples):,} prompts lose every passage with an answer: "
        f"{what_becomes(split, run.recipe.data)} (data.cut_positives)"
    )
    advice = (
        "Raise prompt.max_tokens as far as the model reads, or lower data.max_passages; what else may "
        "become of them, data.cut_positives says."
    )
    left_out = on_cut(split, run.recipe.data) == "drop"
    if left_out and len(lost) == len(examples) and split in look.whole:
        raise UsageError(f"{words}. Nothing would be selected.", advice)
    look.say("truncation", words, "warning", advice)


def answers(look: Look) -> None:
    """How many answers are longer than what the model may write."""
    run = look.run
    limit = run.recipe.evaluate.max_new_tokens
    looked, long = 0, False
    for split, examples in _selected(look).items():
        counted = TooLong(limit)
        lengths = (
            [len(ids) - 1 for ids in run.encoder.targets(examples)]
            if split == "train"
            else shortest_accepted(run.encoder, examples)
        )
        for example, tokens in zip(examples, lengths, strict=True):
            counted.add(example.qid, tokens)
        looked += counted.of
        if counted.count:
            long = True
            look.say("answers", f"{split}: {counted.words(split)}", "warning", ADVICE)
    if words := refusal_too_long(run.encoder):
        look.say("answers", words, "warning", ADVICE)
    elif looked and not long:
        look.say("answers", f"none of {looked:,} has more than {limit:,} tokens")


def _selected(look: Look) -> dict[str, list[Example]]:
    """The selected examples of each split: of prepared data all, else those that were looked at."""
    run = look.run
    if not (run.dir.data / "report.json").exists():
        return look.examples
    questions = [e for e in run.questions if e.extra["selected"]]
    return {"train": run.examples("train"), "eval": questions}
