"""How a stage is made: alone in the run directory, what it needs first, whole or not at all."""

from __future__ import annotations

import gc
import importlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ragtune.base.disk import ReadOnlyError, disk_errors, full_disk
from ragtune.base.errors import RagtuneError
from ragtune.base.files import later, remove
from ragtune.base.garbage import sparing_the_old
from ragtune.base.lock import locked, refusal, require_held
from ragtune.base.processes import require_own_settings
from ragtune.base.screen.console import note, warn
from ragtune.base.screen.progress import busy
from ragtune.base.stopping import stop_if_asked
from ragtune.base.versions import read_again, versions
from ragtune.base.windows import rename
from ragtune.model.hardware import free_gpu, gpu_peak, reset_gpu_peak
from ragtune.recipe.load import save
from ragtune.stages.context import Context
from ragtune.stages.holds import changes, fits, require_unchanged, require_whole, with_later
from ragtune.stages.order import (
    Stage,
    digests_of,
    place_of,
    reads_of,
    stage_named,
    stages_there,
    work_of,
)
from ragtune.stages.ranks import Ranks
from ragtune.stages.summary import write_summary
from ragtune.stages.twins import find_twin
from ragtune.store.folder import RunFolder
from ragtune.store.inputs import read_inputs
from ragtune.store.proof import Facts, Proof, close, damage, read_proof, renew_inputs
from ragtune.store.seal import set_aside
from ragtune.store.sets import own_set

StageFunction = Callable[..., Facts]
"""Given the context, an empty folder to fill, and the step of a checkpoint; returns what it found out
beside the files."""


@contextmanager
def working(context: Context, *, making: bool = True, keeping: bool = True) -> Iterator[None]:
    """Alone in the run directory, which then holds only what is whole and of this recipe.

    Args:
        context: the run.
        making: whether stages may be made, so that the environment and the input files count.
        keeping: whether the recipe is kept as that of the run, also where its adapter stands.

    Raises:
        UsageError: another run is at work there, or something is no longer valid.
    """
    if making:
        require_own_settings()
        read_again()
        later(versions)  # a slow disk takes half a second, which whoever asks first would wait for
    folder = context.folder
    folder.require_ours()  # also of the lock
    with sparing_the_old(), _alone(context), Ranks(context.recipe) as context.ranks:
        if context.read_only:
            require_whole(context)
            require_unchanged(context, making=making)
            yield
            return
        _settle(context, making=making)
        if keeping:  # what has no adapter any more is taken over
            folder.is_own = own_set(folder.path) in (None, folder.evaluation.name)
        # Nothing is written before something is to be made, of this evaluation set.
        if folder.questions.is_dir():
            _claim(context, keeping=keeping or not folder.adapter.is_dir())
        context.held = True
        try:
            yield
        finally:
            context.held = False


@contextmanager
def _alone(context: Context) -> Iterator[None]:
    """The directory's lock; where it can't be written, nobody is at work, and what is finished can be read.

    Raises:
        UsageError: another run is at work there.
        ReadOnlyError: there is nothing to read, either.
    """
    with ExitStack() as held:
        try:
            held.enter_context(locked(context.folder.path))
        except ReadOnlyError as error:
            if not stages_there(context.folder):
                raise
            if other := refusal(context.folder.path):
                raise other from error
            context.read_only = error
            note(
                f"{context.folder.path} can't be written: what is finished there is read, without a lock."
            )
        yield


def make(context: Context, stage: Stage | str) -> Proof:
    """See that a stage is there: make it, and what it needs first, unless it is. Within `working`."""
    stage = stage_named(stage) if isinstance(stage, str) else stage
    folder, recipe = context.folder, context.recipe
    place = place_of(folder, stage)
    proof = read_proof(place)
    if proof is not None and fits(proof, digests_of(folder, stage, recipe)):
        return proof
    if context.read_only:
        raise RagtuneError(
            f"{place} is not finished, and can't be made. {context.read_only.message}",
            f"Copy {folder.path} to where you may write, and name the copy.",
        )
    if proof is not None:
        _retire_remade(context)
    if context.ranks and stage.loads and not (context.remote and stage.asks):
        context.ranks.start()  # which takes them as long as what is needed first
    for name in stage.needs:
        make(context, name)
    proof = _made(context, stage, place)
    if stage.name in ("data", "questions"):
        context.forget_data()
    if stage.name == "questions":
        _claim(context)
    else:
        write_summary(context)
    return proof


def _made(context: Context, stage: Stage, place: Path) -> Proof:
    """Make a stage, whose needs are there."""
    folder, recipe = context.folder, context.recipe
    digests = digests_of(folder, stage, recipe)
    stop_if_asked()
    require_held()
    if not folder.summary.exists():
        _claim(context)
    if stage.name in ("data", "questions"):
        context.let_ranks_prepare(data=False)
    twin = find_twin(context, stage, digests)
    if twin is None and not (context.remote and stage.asks):
        with busy("planning and loading"):
            context.load(stage.loads, training=stage.name == "adapter")
    context.say(stage.title)
    work = work_of(folder, stage, recipe)
    _tell_of_others(work, stage)
    read = read_inputs(recipe, stage.inputs)
    with busy(stage.title), _measured(stage, folder.path) as (times, peaks):
        made = work / "made"
        with disk_errors(made):
            remove(made)
            made.mkdir(parents=True)
        if twin is not None:
            facts = twin.take(made)
        else:
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
    if stage.name != "adapter":  # its checkpoints can still be asked
        shutil.rmtree(work, ignore_errors=True)
    return proof


def _claim(context: Context, *, keeping: bool = True) -> None:
    """Let the directory be that of this recipe's run: but for a set that its adapter is asked besides."""
    folder = context.folder
    with disk_errors(folder.path):
        folder.path.mkdir(parents=True, exist_ok=True)
    write_summary(context)
    if (keeping and folder.is_own) or not folder.recipe.exists():
        save(context.recipe, folder.recipe)


def _retire_remade(context: Context) -> None:
    """Set aside what was made from something that was made again since, and came out otherwise."""
    folder, recipe = context.folder, context.recipe
    there = stages_there(folder)
    odd = set()
    for stage in there:
        proof = read_proof(place_of(folder, stage))
        if proof is not None and not fits(proof, digests_of(folder, stage, recipe)):
            odd.add(stage.name)
    gone = with_later(there, odd, recipe)
    if gone:
        warn("What these were made from was made again, and differs.")
        _retire(folder, [stage for stage in there if stage.name in gone])


def _settle(context: Context, *, making: bool) -> None:
    """Set aside what is damaged and, with `redo`, what is no longer valid."""
    folder = context.folder
    for stage in stages_there(folder):
        place = place_of(folder, stage)
        if problem := damage(place, renew=True):
            set_aside(place, problem)
            folder.judged(stage.name).unlink(missing_ok=True)
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
            rename(place, target)
        for view in (folder.comparison, folder.controls, folder.general, folder.report):
            view.unlink(missing_ok=True)
        for stage in stages:
            folder.judged(stage.name).unlink(missing_ok=True)
    names = ", ".join(stage.name for stage in stages)
    warn(f"Set aside in {old}: {names}. Delete it when you don't need it.")


def _loading(context: Context) -> dict[str, float]:
    """The seconds that models took to load since the last stage."""
    seconds, context.loading_seconds = context.loading_seconds, 0.0
    return {"load": round(seconds, 2)} if seconds else {}


@contextmanager
def _measured(stage: Stage, folder: Path) -> Iterator[tuple[dict[str, float], dict[str, float]]]:
    """The seconds and the peak of GPU memory (GiB) of what happens within, under the stage's name for times."""
    times: dict[str, float] = {}
    peaks: dict[str, float] = {}
    start = time.monotonic()
    if stage.asks:
        gc.collect()  # torch keeps what training left: to map it anew for answers takes half a second
    else:
        free_gpu()
    reset_gpu_peak()
    with full_disk(folder):
        yield times, peaks
    times[stage.time] = round(time.monotonic() - start, 2)
    peak = gpu_peak()
    if peak is not None:
        peaks[stage.time] = round(peak / 2**30, 2)


def _tell_of_others(work: Path, stage: Stage) -> None:
    """Say that there is unfinished work of the same stage for something else."""
    stem, _, key = work.name.rpartition("-")
    begun = work.parent.glob(f"{stem}-{'?' * len(key)}")  # merged-KEY, and not merged-answers-KEY
    others = [p.name for p in begun if p != work and any(q.is_file() for q in p.rglob("*"))]
    if others:
        note(
            f"{work.parent} holds unfinished work of another recipe or other data ({', '.join(others)}): "
            f"it is not used for this {stage.name}. Delete it when you don't need it."
        )


def _function(stage: Stage) -> StageFunction:
    module, _, name = stage.make.partition(":")
    function: StageFunction = getattr(importlib.import_module(f"ragtune.stages.{module}"), name)
    return function
