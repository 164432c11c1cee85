"""What a run needs from outside: environment, recipe, the data's files, trackers, a server, the Hub."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter, deque
from dataclasses import dataclass, replace
from pathlib import Path

from ragtune.answering.endpoint import check_server
from ragtune.answering.harness import require_tasks
from ragtune.base.errors import UsageError
from ragtune.base.files import sha256
from ragtune.base.processes import require_own_settings
from ragtune.base.text import one_or_many
from ragtune.base.web.network import hub_is_offline
from ragtune.data import aio
from ragtune.data.example import Example
from ragtune.data.prepare import how_of, source_of
from ragtune.data.read import locate, read_examples
from ragtune.data.select import nearly_positive, rejection
from ragtune.distributed.place import take_place
from ragtune.publish.hub import check_access, require_name
from ragtune.recipe.data import Data
from ragtune.stages.check.directory import answered_before, general_asked, prepared
from ragtune.stages.check.findings import Level, Look
from ragtune.training.arguments import require_arguments
from ragtune.training.trackers import require_trackers

WHOLE = 16 * 2**20
"""Bytes of a file up to which every record is read; of larger ones, and of Hub datasets, the first LOOK."""
LOOK = 100
_SHOWN = 100
"""Selected examples of a split that are encoded."""
_MANY_EPOCHS = 20
_NEAR = {
    "inside_words": "inside a word (eyes, for the answer yes)",
    "other_forms": "in another width, case or spacing",
}
"""How an answer may stand in a passage that is no positive."""
_HUB_SPLITS = {"train": "train", "eval": "validation"}


def environment(look: Look) -> None:
    take_place()
    require_own_settings()
    look.say("nothing in it changes the training behind the recipe")


def recipe(look: Look) -> None:
    require_arguments(look.run.recipe)
    train = look.run.recipe.train
    if train.steps:
        long = one_or_many(train.steps, "step")
    else:
        long = "1 epoch" if train.epochs == 1 else f"{train.epochs:g} epochs"
    look.say(f"{look.run.recipe.name}: {long} of {one_or_many(train.batch_size, 'sample')}")


def data(look: Look, split: str) -> None:
    """Whether a split can be read, how much of it is selected, and what its file's sha256 is."""
    run, data = look.run, look.run.recipe.data
    if prepared(run):
        look.say("prepared already")
        return
    named = data.train if split == "train" else data.eval
    if named is None and not run.held and not aio.is_there(split):
        look.say(f"{aio.FILES[split]} will be downloaded, and looked at then")
        return
    source = source_of(data, split)  # a run downloads it now: it needs it anyway
    files = locate(source, _HUB_SPLITS[split])
    found = _read(source, files, split, data)
    for kind, words in _NEAR.items():
        if found.near[kind]:
            look.warn(
                one_or_many(found.near[kind], "record is", "records are")
                + f" left out whose answer stands there only {words}",
                "Correct the answers, or name the passages in positive_passage_indices.",
            )
    if found.whole and not found.chosen:
        raise UsageError(
            f"Nothing of {source} would be selected ({one_or_many(found.read, 'record')}).",
            "Each question needs an answer that stands in one of its first data.max_passages passages.",
        )
    look.examples[split] = found.selected
    if found.whole:
        look.chosen[split] = found.chosen
    words = f"{source}; {found.words}"
    if files:
        look.fingerprints[split] = _fingerprint(files)
        words += f"; sha256 {look.fingerprints[split][:12]}"
    look.say(words)


@dataclass(frozen=True)
class _Records:
    """What was seen of a split by reading its records, or the first of them."""

    read: int
    chosen: int
    """How many of them are selected."""
    selected: list[Example]
    """The first of these."""
    near: Counter[str]
    """Those without a positive only for their answer's form, by how the answer stands there."""
    whole: bool
    """Whether none is left."""
    words: str


def _fingerprint(files: list[Path]) -> str:
    """The sha256 of a file; of several that of theirs."""
    every = [sha256(file) for file in files]
    return every[0] if len(every) == 1 else hashlib.sha256("".join(every).encode()).hexdigest()


def _read(source: str, files: list[Path], split: str, data: Data) -> _Records:
    every = bool(files) and sum(file.stat().st_size for file in files) <= WHOLE
    position = deque([(0, 0)], maxlen=1)
    said: list[str] = []
    how = replace(how_of(data, split), say=said.append)
    records = read_examples(source, _HUB_SPLITS[split], lambda *now: position.append(now), how)
    selected: list[Example] = []
    near: Counter[str] = Counter()
    read = chosen = 0
    for example in itertools.islice(records, None if every else LOOK):
        read += 1
        reason = rejection(example, data.max_passages)
        if reason in ("no_positive", "positive_too_low"):
            near.update(nearly_positive(example, data.max_passages).keys())
        if reason is None:
            chosen += 1
            selected += [example] if chosen <= _SHOWN else []
    whole = every or read < LOOK
    words = one_or_many(
        chosen, f"of {read:,} records is selected", f"of {read:,} records are selected"
    )
    if not whole:
        done, total = position[0]
        of = f", of about {round(read * total / done):,}" if done and total else ""
        words = f"of the first {read} records {one_or_many(chosen, 'is', 'are')} selected{of}"
    return _Records(
        read,
        chosen,
        selected,
        near,
        whole,
        "; ".join([*(line.removesuffix(".") for line in said), words]),
    )


def epochs(look: Look) -> None:
    """Whether the examples are trained too often."""
    train, count = look.run.recipe.train, look.chosen.get("train")
    if not count:
        return
    times = train.epochs or (train.steps or 0) * train.batch_size / count
    if times > _MANY_EPOCHS:
        look.warn(
            f"each of {one_or_many(count, 'example')} is trained {times:.0f} times",
            "So few examples are learnt by heart: lower train.steps, or bring more.",
        )


def apart(look: Look) -> None:
    """Whether training and evaluation are apart."""
    prints = look.fingerprints
    if "train" in prints and prints["train"] == prints.get("eval"):
        look.warn(
            "training and evaluation are the same file",
            "The figures would say how well answers were learnt by heart: set data.eval to other questions.",
        )


def trackers(look: Look) -> None:
    if names := look.run.recipe.train.report_to:
        require_trackers(names)
        look.say(", ".join(names))


def server(look: Look) -> None:
    if look.run.remote:
        words, warnings = check_server(look.run.recipe, needed=not answered_before(look.run))
        look.say(words)
        for warning in warnings:
            look.warn(warning)


def general(look: Look) -> None:
    """Whether the general tasks can be loaded with their data, before anything is trained."""
    settings = look.run.recipe.evaluate
    if not settings.general:
        return
    if general_asked(look.run):
        look.say("asked already")
        return
    for name, tasks in require_tasks(settings).items():
        counts = [len(task.eval_docs) for task in tasks["tasks"].values()]
        asked = sum(min(count, settings.general_limit or count) for count in counts)
        parts = f" in {len(counts):,} tasks" if len(counts) > 1 else ""
        look.say(f"{name}: {asked:,} of {one_or_many(sum(counts), 'document')}{parts}")


def hub(look: Look) -> None:
    publish = look.run.recipe.publish
    if not publish.repo:
        return
    require_name(publish.repo)
    if hub_is_offline():
        look.warn("not asked: offline", f"Whether {publish.repo} can be written is unknown.")
        return
    access = check_access(publish.repo, private=publish.private)
    level: Level = "warning" if access.doubt else "ok"
    look.say(access.doubt or access.words, level, access.advice)
