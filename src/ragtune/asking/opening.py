"""What a reader is made of: the directory of a run, or what `push` published of one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ragtune.asking.model import Model
from ragtune.asking.published import download, open_published
from ragtune.asking.source import RECIPE, require_there
from ragtune.base.commands import command_line
from ragtune.base.errors import UsageError
from ragtune.base.lock import refusal
from ragtune.model.hardware import answering_alone
from ragtune.publish.settings import SETTINGS
from ragtune.stages.context import Context
from ragtune.stages.holds import require_whole_stage
from ragtune.stages.order import stage_named
from ragtune.store.changes import differing, part_of
from ragtune.store.proof import read_proof

_FREE = ("model.dtype", "model.quantization", "model.trust_remote_code", "evaluate.")
"""What may be otherwise than in training: it changes how is computed, and no prompt."""


def open_source(source: str | Path, overrides: Sequence[str]) -> Model:
    """The model that a run tuned, or that was published.

    Raises:
        UsageError: there is none, it isn't tuned yet, or it was tuned with another recipe.
        RagtuneError: it is damaged.
    """
    name, path = str(source), require_there(source)
    if path.is_file() or (path / RECIPE).is_file():
        return _run(path, overrides)
    if (path / SETTINGS).is_file():
        return open_published(path, path.resolve().name, overrides)
    if path.exists():
        raise UsageError(
            f"{path} is no run: it holds no {RECIPE}.",
            f"Name the directory of the run, {path.parent}."
            if (path.parent / RECIPE).is_file()
            else "Name the directory of a run, such as runs/NAME, or what `ragtune push` sent.",
        )
    return open_published(download(name), name, overrides)


def _run(path: Path, overrides: Sequence[str]) -> Model:
    context = Context(path, overrides)
    folder = context.folder
    if not folder.recipe.is_file():
        raise UsageError(
            f"{folder.path} is not tuned yet.",
            f"Tune it first: {command_line('ragtune', 'run', path)}",
        )
    folder.require_ours()
    if not context.remote:
        _require_tuned(context)
        context.hardware = context.hardware_for(answering_alone(context.recipe))
    if context.remote or not context.recipe.full:
        return Model(context, context.recipe.name, None if context.remote else folder.adapter)
    # Its tokenizer is the base's, made as in training, before the tuned model stands in its place.
    _ = context.encoder
    context.source = dataclasses.replace(context.source, path=str(folder.adapter))
    return Model(context, context.recipe.name, None)


def _require_tuned(context: Context) -> None:
    folder, path = context.folder.adapter, context.folder.path
    if not folder.is_dir():
        if other := refusal(path):
            raise UsageError(
                f"{path} is not tuned yet, and a run is at work there. {other.message}",
                "Ask when it is done.",
            )
        raise UsageError(
            f"{path} is not tuned yet.", f"Tune it first: {command_line('ragtune', 'run', path)}"
        )
    stage = stage_named("adapter")
    require_whole_stage(context, stage)
    proof = read_proof(folder)
    assert proof is not None
    now = part_of(context.recipe, stage.reads, stage.but)
    others = [key for key in differing(proof.recipe, now) if not key.startswith(_FREE)]
    if others:
        words = (f"{key}: {proof.recipe.get(key)!r} there, {now.get(key)!r} now" for key in others)
        raise UsageError(
            f"{path} was tuned with another recipe:\n  " + "\n  ".join(words),
            "Ask it as it was tuned: of its recipe, model.dtype, model.quantization and what stands below "
            "evaluate may be changed.",
        )
    _require_base(context.recipe.model.id, path, fetched=proof.commit is not None)


def _require_base(name: str, path: Path, *, fetched: bool) -> None:
    """Require the file or folder that a run was tuned from: a run that was copied comes without it."""
    base = Path(name).expanduser()
    if fetched or name.startswith("package:") or base.exists():
        return
    where = base if base.is_absolute() else Path.cwd() / base
    elsewhere = "" if base.is_absolute() else ", or ask from the folder in which the run was made"
    raise UsageError(
        f"{path} was tuned from the model in {name}, and {where} does not exist.",
        f"Put the model there{elsewhere}.",
    )
