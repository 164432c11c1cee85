"""The other processes of a run: which, when they start, and what they are told to do."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from typing import Self

import torch
from pydantic import JsonValue

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.screen.console import note
from ragtune.base.screen.progress import busy
from ragtune.base.stopping import stopping_for
from ragtune.base.text import one_or_many
from ragtune.base.threads import are_chosen
from ragtune.base.versions import versions
from ragtune.distributed.launch import launched
from ragtune.distributed.place import Place, take_place
from ragtune.distributed.pulse import lost
from ragtune.distributed.world import Device, World
from ragtune.model.hardware import Gpu, Hardware, choose_hardware, gpu_of
from ragtune.recipe.schema import Recipe
from ragtune.stages.early import followers_for, numbered


class Ranks:
    """The processes that share a run's work; they start when the first work is shared, or began early.

    Args:
        recipe: `devices` says which.

    Raises:
        UsageError: there are no such devices, or this process is none that leads.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._place = take_place()
        if self._place and self._place.rank:
            raise UsageError(
                f"This process is rank {self._place.rank} of a launcher, and not rank 0.",
                "Start `python -m ragtune run RECIPE` under it; from Python, without a launcher, ragtune "
                "starts the processes itself.",
            )
        self._devices = [0] if self._place else devices_of(recipe)
        self.size = count_of(recipe)
        self._followers = followers_for(recipe, self._devices)
        if torch.cuda.is_available():
            torch.cuda.set_device(self._devices[0])
        self._open = ExitStack()
        self.world: World | None = None
        """Once they have begun."""
        self._at_work = False
        """Whether the others were told anything that they are needed for."""

    def __enter__(self) -> Self:
        if self._place is None:  # a launcher sees to it for its own
            self._open.enter_context(share_of_cores(self.size))
        self._open.enter_context(stopping_for(self._require_those_to_come))
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()
        self.world = None

    def start(self) -> None:
        """Let the others begin, unless they have: it takes them as long as it took this process."""
        if self.size > 1 and self.world is None:
            note(f"{self.size} ranks share the work.")
            if self._place:
                self.world = _launched_world(self._place)  # whose ranks begin but once
            else:
                self.world = self._open.enter_context(launched(self._followers))

    def _require_those_to_come(self) -> None:
        """See that nobody is gone whom this process would only wait for; raises as `tell`.

        Once they are at work, sums and answers tell who is: what was made with them is written before.
        """
        if self._at_work:
            return
        if self.world:
            if self.world.pulse.lost:
                raise self.world.pulse.lost
        elif ended := self._followers.ended():
            raise lost(f"rank {ended[0]}", ended[1])

    def gpus(self) -> list[Gpu]:
        """The GPUs of all ranks; none of a CPU. Those of a launcher must be there to tell; raises as `tell`."""
        if self._place is None:
            return [gpu_of(one) for one in self._devices] if torch.cuda.is_available() else []
        self.start()
        told = [one["gpu"] for one in self._met() if one["gpu"]]
        return [Gpu(**one | {"capability": tuple(one["capability"])}) for one in told]

    @property
    def ready(self) -> bool:
        """Whether others who were started here would hear at once what they are told.

        Another machine might keep in mind of a shared disk what was not there yet.
        """
        return self._place is None and self.world is not None and self.world.all_here

    def tell(self, order: dict[str, JsonValue]) -> World | None:
        """Tell the others what to do, when they are there; returns the world to do it in.

        Raises:
            RagtuneError: one has other versions, or is gone.
        """
        self.start()
        if self.world:
            self._met()
            self._at_work = self._at_work or order["do"] != "prepare"
            self.world.agree(order)
        return self.world

    def _met(self) -> list[Device]:
        assert self.world is not None  # it was started, and has more than one rank
        with busy("waiting for the other ranks"):
            return self.world.meet(dict(versions()), own_device())


@contextmanager
def share_of_cores(ranks: int) -> Iterator[None]:
    """Within, a rank of so many on this machine computes on its share of the cores, if they compute there.

    With all of them for each, threads wait for others that have no core: a step took 20 to 30 times as long.
    """
    threads = torch.get_num_threads()
    if ranks > 1 and not are_chosen() and not torch.cuda.is_available():
        torch.set_num_threads(max(1, threads // ranks))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def own_device() -> Device:
    """What this rank computes on, for `World.meet`."""
    if torch.cuda.is_available():
        gpu = gpu_of(torch.cuda.current_device())
        return {"kind": "GPU", "sums": gpu.name, "gpu": dataclasses.asdict(gpu)}
    threads = one_or_many(torch.get_num_threads(), "thread")
    sums = f"{threads}, {torch.backends.cpu.get_cpu_capability()}"
    return {"kind": "CPU", "sums": sums, "gpu": None}


@cache
def _launched_world(place: Place) -> World:
    return World(place)


def dismiss(place: Place, code: int) -> None:
    """Let the ranks of a launcher end as rank 0 does, also where it had nothing for them to do."""
    with suppress(RagtuneError):  # one that can't be reached ends by itself
        _launched_world(place).dismiss(code)


def count_of(recipe: Recipe) -> int:
    """The processes that share a recipe's work."""
    place = take_place()
    return place.size if place else len(devices_of(recipe))


def hardware_of(recipe: Recipe, ranks: Ranks | None) -> Hardware:
    """The device and dtype for a recipe, by the GPUs of the ranks, or of those that there would be."""
    if ranks:
        return choose_hardware(recipe, gpus=ranks.gpus())
    # Below a launcher a process sees its own GPU alone.
    return choose_hardware(recipe, () if take_place() else devices_of(recipe))


def devices_of(recipe: Recipe) -> list[int]:
    """The GPUs of this machine that a recipe uses, by number; on a CPU the processes.

    Raises:
        UsageError: there are no such GPUs.
    """
    return numbered(recipe.devices, torch.cuda.device_count())


def require_same_weights(found: str, expected: str, name: str) -> None:
    """See that a base has the weights that rank 0 has, by their digests, before anything is answered.

    Raises:
        RagtuneError: it has others.
    """
    if found != expected:
        raise RagtuneError(
            f"The weights of {name} are not those that rank 0 has.",
            "Let every machine have the same files of the model. Then the same command goes on.",
        )
