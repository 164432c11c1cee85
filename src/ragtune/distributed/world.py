"""The processes of a run: rank 0, which leads, and the others, which follow.

Rank 0 is the run: it reads, decides, writes and prints. The others do what it tells them, through a store
that it keeps (torch's TCPStore; everything in it is JSON); sums go through torch.distributed's process group.
As in every collective, who leads and who follows must make the same calls in the same order.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NoReturn, Protocol, cast

import torch
from pydantic import JsonValue
from torch import Tensor
from torch import distributed as dist
from torch._C._distributed_c10d import PrefixStore, TCPStore

from ragtune.base.errors import RagtuneError
from ragtune.base.stopping import stop_if_asked
from ragtune.distributed import limits
from ragtune.distributed.place import Place
from ragtune.distributed.pulse import LostError, OverError, Pulse, Started, lost, name_of, over
from ragtune.distributed.store import come, connect, delete, own, read, serve, write

_BROKEN = ("gloo", "NCCL")
"""Who says in an error that is none of torch.distributed's own that a connection broke."""


_FILES = (
    "Let every machine have the same files, and the same versions of ragtune, torch, transformers and peft. "
    "Then the same command goes on."
)
Device = dict[str, Any]
"""What a rank computes on, as JSON: its `kind`, what its `sums` depend on, and what else counts elsewhere."""


class Resting(Protocol):
    """Lets a rank be part of what others do with a model (`ragtune.distributed.sharded`)."""

    def rest(self) -> None:
        """Until no rank does anything."""


class World:
    """The processes of a run, as one of them sees them.

    Args:
        place: this one's.
        server: the store, if it is here already.
        started: the other ranks, if this process starts them.
        patience: seconds in which rank 0 has to be there.

    Raises:
        UsageError: rank 0's port is taken, its store can't be reached, or it is another run's.
    """

    def __init__(
        self,
        place: Place,
        server: TCPStore | None = None,
        started: Started | None = None,
        *,
        patience: float = limits.REACH,
    ) -> None:
        self.rank, self.size = place.rank, place.size
        if place.rank == 0 and not place.hosted:
            self._store = own(place, server or serve(place))
        else:
            self._store = connect(place, patience)
        come(place, self._store)  # before a sign of life, which would be taken for the other's
        self._told = 0
        self._kept: list[str] = []
        """What was told, and may still be read."""
        self._devices: list[Device] = []
        self._saving = False
        self.passes: Resting | None = None
        """Of a model whose weights are spread over the ranks, while there is one."""
        self.pulse = Pulse(lambda: connect(place, patience), self.rank, self.size, started)
        with self._reached():  # before anything that others may hear of: what ends a rank names it
            self._store.set(f"host/{self.rank}", socket.gethostname())

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def agree(self, value: JsonValue = None) -> JsonValue:
        """What rank 0 gives, on every rank.

        Raises:
            LostError: somebody is gone, or rank 0 has ended the run.
            Stopped: a signal came.
        """
        self.rest()
        self._told += 1
        key = f"told/{self._told}"
        if self.leads:
            self._require_all()
            self.put(key, value)
            self._kept.append(key)
            return value
        return self.take(key)

    def gather(self, value: JsonValue) -> list[JsonValue]:
        """What every rank gives, by rank, on rank 0; elsewhere nothing. Raises as `agree`."""
        self.rest()
        self._told += 1
        if not self.leads:
            self.put(f"said/{self._told}/{self.rank}", value)
            return []
        others = range(1, self.size)
        said = [self.take(f"said/{self._told}/{rank}", forget=True) for rank in others]
        for key in self._kept:  # who has said this has read it
            self.forget(key)
        self._kept.clear()
        return [value, *said]

    def meet(self, versions: JsonValue, device: Device) -> list[Device]:
        """What all ranks compute on, when every one is there, with the same versions. Raises as `require_same`.

        Args:
            versions: of this rank.
            device: of this rank.
        """
        if not self._devices:
            self.require_same(versions, "The versions")
            self.require_same(device["kind"], "The kind of device", "See `nvidia-smi` there.")
            found = self.agree(self.gather(device))  # type: ignore[arg-type]
            self._devices = cast("list[Device]", found)
        return self._devices

    @property
    def all_here(self) -> bool:
        """On rank 0, whether every rank has begun to `meet`: nobody is waited for there."""
        others = range(1, self.size)
        return bool(self._devices) or all(self.has(f"said/1/{rank}") for rank in others)

    @property
    def alike(self) -> bool:
        """Whether all ranks compute the same, to the bit."""
        return len({one["sums"] for one in self._devices}) == 1

    def require_same(self, value: JsonValue, what: str, advice: str = _FILES) -> None:
        """See that every rank has the same of something.

        Raises:
            RagtuneError: one has not.
            LostError: somebody is gone.
        """
        odd = [rank for rank, one in enumerate(self.gather(value)) if one != value]
        if told := self.agree(odd):  # type: ignore[arg-type]
            named = ", ".join(self.name_of(rank) for rank in told)  # type: ignore[union-attr, arg-type]
            raise RagtuneError(
                f"{what} on {named}: not what rank 0 has.",
                advice,
            )

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Within, a stop that was asked for waits: a checkpoint is what it asks for."""
        self._saving = True
        try:
            yield
        finally:
            self._saving = False

    def put(self, key: str, value: JsonValue) -> None:
        """Leave something for others."""
        with self._reached():
            write(self._store, key, value)

    def take(self, key: str, *, forget: bool = False) -> JsonValue:
        """What somebody left under a key; waits for it. Raises as `agree`.

        Args:
            key: what it is called.
            forget: whether nobody else will ask for it.
        """
        pause = limits.SHORTEST
        while not self.has(key):
            self._require_all()
            time.sleep(pause)
            pause = min(2 * pause, limits.LONGEST)
        with self._reached():
            value = read(self._store, key)
        if forget:
            self.forget(key)
        return value

    def forget(self, key: str) -> None:
        """Take away what is left under a key, which nobody else will ask for."""
        with self._reached():
            delete(self._store, key)

    def has(self, key: str) -> bool:
        """Whether somebody left something under a key."""
        with self._reached():
            return bool(self._store.check([key]))

    def next(self, key: str) -> int:
        """A number that no other rank gets, from 0. Raises as `agree`."""
        self._require_all()
        with self._reached():
            return int(self._store.add(key, 1)) - 1

    def share(self, passes: Resting | None) -> None:
        """Have a model whose weights are spread over the ranks, or none any more."""
        self.passes = passes
        self.pulse.working = passes is not None  # who is lost then leaves a pass without an end

    def rest(self) -> None:
        """Wait until no rank makes a pass any more, where a model is spread: every rank is part of each."""
        if self.passes:
            self.passes.rest()

    def await_all(self) -> None:
        """Wait until every rank has come here. Raises as `agree`."""
        self.gather(True)
        self.agree()

    def await_end(self) -> NoReturn:
        """Wait until rank 0 ends the run: were this rank gone before, its launcher would end rank 0, too.

        Raises:
            LostError: it has ended, or is gone.
        """
        with self.saving():
            raise OverError(cast("int", self.take("over")))

    def join(self) -> None:
        """Make the process group, for sums; once. Every rank calls it. Raises as `agree`."""
        self.await_all()  # nobody waits in C++ for one who will not come
        if dist.is_initialized():
            return
        with self.together():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
                store=PrefixStore("group", self._store),
                rank=self.rank,
                world_size=self.size,
                timeout=timedelta(seconds=limits.COLLECTIVE),
            )
            # NCCL meets at the first sum, through the store: here, where all are, and with their own time.
            self._store.set_timeout(timedelta(seconds=limits.COLLECTIVE))
            if torch.cuda.is_available():
                dist.all_reduce(torch.zeros(1, device="cuda"))

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag whether it is set on any rank."""
        self.rest()
        found = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return tuple(bool(one) for one in found.tolist())

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all ranks."""
        self.rest()
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Within, a failure that comes of somebody's being gone says who it was.

        Raises:
            LostError: somebody is gone.
        """
        before, self.pulse.working = self.pulse.working, True
        try:
            yield
        except RuntimeError as error:
            # gloo and NCCL know only that a connection broke.
            told = isinstance(error, dist.DistError) or any(one in str(error) for one in _BROKEN)
            if not told:
                raise
            raise self._why() from error
        finally:
            self.pulse.working = before

    def name_of(self, rank: int) -> str:
        """A rank, with its machine."""
        return name_of(self._store, rank)

    def fail(self, error: RagtuneError, where: str = "") -> None:
        """Leave word why this rank ends, and wait until rank 0 has heard: its launcher would end it, too."""
        self.put(f"failed/{self.rank}", [error.message, error.advice, where])
        self._leave()
        self._await_lost()

    def dismiss(self, code: int) -> None:
        """Let the other ranks end, with an exit code: also those that are yet to come."""
        self._leave()
        self.put("over", code)
        self.pulse.suspect()
        waiting, begun = set(range(1, self.size)), time.monotonic()
        while waiting and time.monotonic() - begun < (
            limits.LEAVING if self.pulse.lost else limits.REACH
        ):
            waiting = {rank for rank in waiting if not self.has(f"bye/{rank}")}
            time.sleep(limits.SHORTEST)

    def close(self) -> None:
        """Nothing is told or heard any more."""
        if not self.leads:
            with contextlib.suppress(RuntimeError, LostError):
                self.put(f"bye/{self.rank}", True)
        self.pulse.stop()
        self._leave()

    def _leave(self) -> None:
        """Leave the process group, so that nobody waits there for this rank."""
        if not dist.is_initialized():
            return
        if torch.cuda.is_available():  # NCCL's other end waits for all ranks
            dist.distributed_c10d._abort_process_group()  # noqa: SLF001 - no public way
        else:
            dist.destroy_process_group()

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        """Within, what can't be reached is the store."""
        try:
            yield
        except dist.DistError as error:
            raise self._why() from error

    def _require_all(self) -> None:
        if not self._saving:
            stop_if_asked()  # which is why others may be gone
        if self.pulse.lost:
            raise self.pulse.lost
        if not self.leads and self.has("over"):
            raise over(self._store)

    def _why(self) -> LostError:
        """Who is gone, now that a connection broke."""
        self.pulse.suspect()
        self._await_lost()
        return self.pulse.lost or lost("a rank", "its connection broke")

    def _await_lost(self) -> None:
        until = time.monotonic() + limits.KNOWN
        while self.pulse.lost is None and time.monotonic() < until:
            time.sleep(limits.LONGEST)
