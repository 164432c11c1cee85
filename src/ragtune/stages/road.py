"""How a stage is made: alone in the run directory, what it needs first, whole or not at all."""

from __future__ import annotations

import importlib
import shlex
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from ragtune.base.console import note, warn
from ragtune.base.disk import disk_errors, full_disk
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.lock import locked, require_held
from ragtune.base.processes import require_alone
from ragtune.base.stopping import stop_if_asked
from ragtune.base.versions import versions
from ragtune.model.hardware import free_gpu, gpu_peak, reset_gpu_peak
from ragtune.recipe.load import save_recipe
from ragtune.recipe.schema import Recipe
from ragtune.stages.context import Context
from ragtune.stages.order import (
    Stage,
    digests_of,
    made_of,
    place_of,
    reads_of,
    stage_named,
    stages_there,
    work_of,
)
from ragtune.stages.summary import write_summary
from ragtune.store.changes import Change, differing, part_of
from ragtune.store.folder import RunFolder
from ragtune.store.inputs import input_changes, read_inputs
from ragtune.store.proof import Facts, Proof, close, damage, read_proof, renew_inputs
from ragtune.store.seal import set_aside

StageFunction = Callable[..., Facts]
"""Given the context, an empty folder to fill, and the step of a checkpoint; returns what it found out
beside the files."""


@contextmanager
def working(context: Context, *, making: bool = True) -> Iterator[None]:
    """Alone in the run directory, which then holds only what is whole and of this recipe.

    Args:
        context: the run.
        making: whether stages may be made, so that the environment and the input files count.

    Raises:
        UsageError: another run is at work there, or something is no longer valid.
    """
    if making:
        require_alone()
    folder = context.folder
    with locked(folder.path):
        folder.require_ours()
        _settle(context, making=making)
        # Nothing is written before something is to be made, of this evaluation set.
        if folder.questions.is_dir():
            _claim(context)
        context.held = True
        try:
            yield
        finally:
            context.held = False


def make(context: Context, stage: Stage | str) -> Proof:
    """See that a stage is there: make it, and what it needs first, unless it is. Within `working`."""
    stage = stage_named(stage) if isinstance(stage, str) else stage
    folder, recipe = context.folder, context.recipe
    place = place_of(folder, stage)
    if (proof := read_proof(place)) is not None:
        if _fits(proof, digests_of(folder, stage, recipe)):
            return proof
        _retire_remade(context)
    for name in stage.needs:
        make(context, name)
    digests = digests_of(folder, stage, recipe)
    stop_if_asked()
    require_held()
    if not folder.summary.exists():
        _claim(context)
    if not (context.remote and stage.asks):
        context.load(stage.loads)
    context.say(stage.title)
    work = work_of(folder, stage, recipe)
    _tell_of_others(work, stage)
    read = read_inputs(recipe, stage.inputs)
    with _measured(stage.time, folder.path) as (times, peaks):
        made = work / "made"
        with disk_errors(made):
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir(parents=True)
        facts = _function(stage)(context, made, *([] if stage.step is None else [stage.step]))
        require_held()  # another machine may have taken over meanwhile
        inputs = read()
    proof = Proof(
        stage=stage.name,
        recipe=reads_of(folder, stage, recipe),
        needs=digests,
        inputs=inputs,
        date=context.day,
        commit=context.pin(),
        versions=versions(),
        times=_loading(context) | times,
        peak_gib=peaks,
        facts=facts,
    )
    proof = close(made, proof, place)
    if stage.name in ("data", "questions"):
        context.forget_data()
    if stage.name != "adapter":  # its checkpoints can still be asked
        shutil.rmtree(work, ignore_errors=True)
    if stage.name == "questions":
        _claim(context)
    else:
        write_summary(context)
    return proof


def _claim(context: Context) -> None:
    """Let the directory be that of this recipe's run."""
    folder = context.folder
    with disk_errors(folder.path):
        folder.path.mkdir(parents=True, exist_ok=True)
    write_summary(context)
    save_recipe(context.recipe, folder.recipe)


def changes(context: Context, *, making: bool, but: Collection[Stage] = ()) -> list[Change]:
    """What is otherwise than when the stages that are there were made, and which it makes invalid.

    Args:
        context: the run.
        making: whether the input files count as well.
        but: stages that don't count.
    """
    folder, recipe = context.folder, context.recipe
    there = {stage.name: stage for stage in stages_there(folder) if stage not in but}
    touched: dict[str, set[str]] = {}
    for name, stage in there.items():
        proof = read_proof(place_of(folder, stage))
        assert proof is not None
        now = part_of(recipe, stage.reads, stage.but)
        for key in differing(proof.recipe, now):
            if key == "evaluate.max_new_tokens" and not stage.asks and _same_prompts(proof, recipe):
                continue
            words = f"{key}: {proof.recipe.get(key)!r} there, {now[key]!r} now"
            touched.setdefault(words, set()).add(name)
        for words in input_changes(proof.inputs, recipe) if making else []:
            touched.setdefault(words, set()).add(name)
    every = list(there.values())
    return [Change(words, _with_later(every, names, recipe)) for words, names in touched.items()]


def _with_later(stages: list[Stage], names: set[str], recipe: Recipe) -> tuple[str, ...]:
    """The stages of these names, and those that were made from them, in the order of the road."""
    found = set(names)
    for stage in stages:  # what depends on one comes later
        if found & set(made_of(stage, recipe)):
            found.add(stage.name)
    return tuple(stage.name for stage in stages if stage.name in found)


def _fits(proof: Proof, digests: dict[str, str]) -> bool:
    """Whether a stage was made of what is there; what is not there says nothing."""
    return all(proof.needs.get(name) == digest for name, digest in digests.items())


def _retire_remade(context: Context) -> None:
    """Set aside what was made from something that was made again since, and came out otherwise."""
    folder, recipe = context.folder, context.recipe
    there = stages_there(folder)
    odd = set()
    for stage in there:
        proof = read_proof(place_of(folder, stage))
        if proof is not None and not _fits(proof, digests_of(folder, stage, recipe)):
            odd.add(stage.name)
    gone = _with_later(there, odd, recipe)
    if gone:
        warn("What these were made from was made again, and differs.")
        _retire(folder, [stage for stage in there if stage.name in gone])


def require_unchanged(context: Context, *, making: bool, but: Collection[Stage] = ()) -> None:
    """Raise unless all that is there holds; the arguments are those of `changes`.

    Raises:
        UsageError: it says which stages are no longer valid, and why.
    """
    context.folder.require_ours()
    found = changes(context, making=making, but=but)
    if found:
        listed = [f"{one.words}: no longer valid: {', '.join(one.stages)}" for one in found]
        path = context.folder.path
        raise UsageError(
            f"{path} holds results of another recipe, or of other files:\n  " + "\n  ".join(listed),
            "With --redo (of run, prepare, train, evaluate and merge) these stages are set aside in "
            f"{path}/old-N and made again. Or give this run its own directory: name=ANOTHER "
            "on the command line, or --run-dir.",
        )


def require_whole(context: Context) -> None:
    """Raise unless every stage is as it was when it was finished; nothing is set aside.

    Raises:
        RagtuneError: one is damaged.
    """
    folder = context.folder
    folder.require_ours()
    for stage, problem in damaged_stages(folder).items():
        raise RagtuneError(
            f"{place_of(folder, stage)} is damaged: {problem}.",
            f"`ragtune run {shlex.quote(str(folder.path))}` sets it aside, and makes it again.",
        )


def damaged_stages(folder: RunFolder) -> dict[Stage, str]:
    """The stages that are not as they were when they were finished, and in which way."""
    found = {stage: damage(place_of(folder, stage)) for stage in stages_there(folder)}
    return {stage: problem for stage, problem in found.items() if problem}


def _settle(context: Context, *, making: bool) -> None:
    """Set aside what is damaged and, with `redo`, what is no longer valid."""
    folder = context.folder
    for stage in stages_there(folder):
        place = place_of(folder, stage)
        if problem := damage(place, renew=True):
            set_aside(place, problem)
        elif making:
            renew_inputs(place, context.recipe)
    _retire_remade(context)
    if not context.redo:
        require_unchanged(context, making=making)
        return
    invalid = {name for one in changes(context, making=making) for name in one.stages}
    _retire(folder, [stage for stage in stages_there(folder) if stage.name in invalid])


def _retire(folder: RunFolder, stages: list[Stage]) -> None:
    """Move what stages made into old-1, old-2 and so on, with a copy of recipe and summary."""
    if not stages:
        return
    numbers = [int(p.name[4:]) for p in folder.path.glob("old-*") if p.name[4:].isdigit()]
    old = folder.path / f"old-{max(numbers, default=0) + 1}"
    with disk_errors(old):
        old.mkdir()
        for path in (folder.recipe, folder.summary):
            if path.exists():
                shutil.copyfile(path, old / path.name)
        # The last first: what is left after a kill is still made of what it says.
        for stage in reversed(stages):
            place = place_of(folder, stage)
            target = old / place.relative_to(folder.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            place.replace(target)
        for view in (folder.comparison, folder.controls, folder.report):
            view.unlink(missing_ok=True)
    names = ", ".join(stage.name for stage in stages)
    warn(f"Set aside in {old}: {names}. Delete it when you don't need it.")


def _same_prompts(proof: Proof, recipe: Recipe) -> bool:
    """Whether another room for answers leaves every prompt as it was: none was cut, nor would be."""
    then = proof.recipe["evaluate.max_new_tokens"]
    if "prompts" not in proof.facts or not isinstance(then, int):
        return False
    facts = proof.facts["prompts"]
    room = facts["room"] + then - recipe.evaluate.max_new_tokens
    asks_others = recipe.evaluate.questions == "all" or recipe.data.refusal is not None
    return not asks_others and facts["whole"] and facts["longest"] <= room


def _loading(context: Context) -> dict[str, float]:
    """The seconds that models took to load since the last stage."""
    seconds, context.loading_seconds = context.loading_seconds, 0.0
    return {"load": round(seconds, 2)} if seconds else {}


@contextmanager
def _measured(name: str, folder: Path) -> Iterator[tuple[dict[str, float], dict[str, float]]]:
    """The seconds and the peak of GPU memory (GiB) of what happens within, under `name`."""
    times: dict[str, float] = {}
    peaks: dict[str, float] = {}
    start = time.monotonic()
    free_gpu()
    reset_gpu_peak()
    with full_disk(folder):
        yield times, peaks
    times[name] = round(time.monotonic() - start, 2)
    peak = gpu_peak()
    if peak is not None:
        peaks[name] = round(peak / 2**30, 2)


def _tell_of_others(work: Path, stage: Stage) -> None:
    """Say that there is unfinished work of the same stage for something else."""
    stem, _, key = work.name.rpartition("-")
    begun = work.parent.glob(f"{stem}-{'?' * len(key)}")  # merged-KEY, and not merged-answers-KEY
    others = [p.name for p in begun if p != work and any(p.iterdir())]
    if others:
        note(
            f"{work.parent} holds unfinished work of another recipe or other data ({', '.join(others)}): "
            f"it is not used for this {stage.name}. Delete it when you don't need it."
        )


def _function(stage: Stage) -> StageFunction:
    module, _, name = stage.make.partition(":")
    function: StageFunction = getattr(importlib.import_module(f"ragtune.stages.{module}"), name)
    return function
