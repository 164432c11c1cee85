"""What a sweep's runs get of the machine, and what it settles once for all of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial

import torch

from ragtune.base.disk import existing_parent
from ragtune.base.errors import RagtuneError
from ragtune.base.screen.console import note, warn
from ragtune.base.text import size_of
from ragtune.base.threads import are_chosen, cores
from ragtune.distributed.place import VISIBLE, seen
from ragtune.model.cpu_dtype import is_measured, settle
from ragtune.model.load import load_config
from ragtune.model.memory import Estimate
from ragtune.model.plan import estimate_of
from ragtune.model.source import resolve
from ragtune.recipe.schema import Recipe
from ragtune.stages.check.capacity import training_parts
from ragtune.stages.context import Context
from ragtune.stages.ranks import devices_of, hardware_of
from ragtune.stages.sweep.folder import SweepFolder
from ragtune.store.changes import part_of
from ragtune.store.proof import fingerprint

_BESIDE = 1.0
"""GiB that a process takes of a GPU beside torch's own: its context, the libraries."""
_SPARE = 0.9
_FOR_TERMINALS = ("FORCE_COLOR", "TTY_COMPATIBLE")
"""Variables by which rich takes whatever it writes to for a terminal."""
_MUCH = 2**30
"""Bytes of which it is worth saying that they may be deleted."""


def gpus_of(recipe: Recipe) -> list[int]:
    """The GPUs that a sweep's runs are shared out to; none on a CPU.

    Raises:
        UsageError: the recipe's `devices` are not there.
    """
    devices = devices_of(recipe)
    return devices if torch.cuda.is_available() else []


def environment(gpu: int | None, at_a_time: int) -> dict[str, str]:
    """What a run is started with.

    Args:
        gpu: the only one that it is to see, by its number among those that this process sees; None on a CPU.
        at_a_time: runs that share the cores.
    """
    # What it writes goes into a log, whose lines are neither coloured nor broken.
    found = {name: value for name, value in os.environ.items() if name not in _FOR_TERMINALS}
    if gpu is not None:
        found[VISIBLE] = seen(gpu)
    if at_a_time > 1 and not are_chosen():  # else each would take all cores
        found["OMP_NUM_THREADS"] = str(max(1, cores() // at_a_time))
    return found


def fitting(summaries: Sequence[dict[str, object]]) -> int:
    """Runs that fit on one GPU together by what is known of some: one on a CPU, or where nothing is known.

    Args:
        summaries: their run.json.
    """
    rooms, needs = dict[str, float](), list[float]()
    for one in summaries:
        plan, peaks = one.get("plan"), one.get("peak_gib")
        memory = plan.get("memory") if isinstance(plan, dict) else None
        if (
            isinstance(plan, dict)
            and isinstance(memory, dict)
            and memory
            and isinstance(peaks, dict)
        ):
            # One that was planned beside others found less free than the GPU has for all of them.
            device = str(plan.get("device"))
            rooms[device] = max(memory["available"], rooms.get(device, 0.0))
            # What a training took is measured when it ends, and not where it waits.
            needs += (
                [*peaks.values()] if "train" in peaks else [*peaks.values(), memory["training"]]
            )
    if not needs:
        return 1
    most = int(_SPARE * min(rooms.values()) / (max(needs) + _BESIDE))
    return max(1, min(most, cores()))


def settle_dtypes(where: SweepFolder, recipes: Iterable[Recipe]) -> None:
    """Choose the dtype of every model whose dtype is measured, once for all runs of the sweep.

    Each run would measure for itself, beside others, and figures of two dtypes would stand in one table.
    """
    for recipe in recipes:
        hardware = hardware_of(recipe, None)
        if not is_measured(hardware, recipe) or where.dtype_of(recipe.model):
            continue
        config = partial(load_config, resolve(recipe.model))
        chosen = settle(hardware, recipe, config, None)
        where.keep_dtype(recipe.model, chosen.dtype_name)
        note(f"All runs of {recipe.model.id}: {chosen.dtype_name} ({chosen.reason}).")


def say_disk(where: SweepFolder, points: Iterable[tuple[Recipe, Sequence[str]]]) -> None:
    """Say so if what all runs are to write doesn't fit. Those that are stopped early write less.

    Args:
        where: the sweep.
        points: the recipe of each one's runs, and those that have not come to their end.
    """
    needed, known = 0.0, dict[str, Estimate]()
    for recipe, runs in points:
        # What keeps a point from being looked at keeps it from being trained; its run says why.
        with suppress(RagtuneError):
            if runs:
                run = Context(recipe, (), where.runs / runs[0])
                key = fingerprint(part_of(recipe, ("model.", "lora.", "tuning")))
                if key not in known:  # it takes a second of a large model
                    known[key] = estimate_of(recipe, run.hardware, run.config)
                needed += len(runs) * sum(training_parts(run, known[key]).values())
    free = shutil.disk_usage(existing_parent(where.path)).free
    if needed > free:
        warn(
            f"All runs together take up to {size_of(needed)} of disk (checkpoints and what is tuned), and "
            f"{size_of(free)} are free at {where.path}. Choose another place with --folder, set "
            "train.keep_checkpoints=1, or try fewer values or seeds."
        )


def say_left(where: SweepFolder, runs: Iterable[str]) -> None:
    """Say so if much lies in the checkpoints of runs that were stopped early.

    They stay: without them a wider grid, or --whole, would have to train the same steps again.
    """
    works = [where.runs / run / "work" for run in runs]
    left = sum(file.stat().st_size for one in works for file in one.rglob("*") if file.is_file())
    if left >= _MUCH:
        note(
            f"The checkpoints of runs that were stopped early take {size_of(left)} (work/ in their folders). A "
            "wider grid, or --whole, goes on from them. Delete them when you don't need that."
        )
