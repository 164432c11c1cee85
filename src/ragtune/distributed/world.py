"""The processes of a run: rank 0, which leads, and the others, which follow.

Rank 0 is the run: it reads, decides, writes and prints. The others do what it tells them, through a store
that it keeps (torch's TCPStore; everything in it is JSON); sums go through torch.distributed's process group.
As in every collective, who leads and who follows must make the same calls in the same order.
"""

from __future__ import annotations

import contextlib
import json
import time
import zlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Protocol

import torch
from pydantic import JsonValue
from torch import Tensor
from torch import distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.stopping import stop_if_asked
from ragtune.distributed.place import Place
from ragtune.distributed.pulse import LostError, Pulse, Started, lost, over

_SHORTEST, _LONGEST = 0.002, 0.2
"""Seconds between two looks for what another rank has to say."""
PATIENCE = 120.0
"""Seconds in which rank 0 has to be there, when another one comes."""
_LONG = timedelta(days=7)
"""A collective's limit: who is late is not lost, and who is lost `Pulse` finds."""
_KNOWN = 15.0
"""Seconds in which it becomes known who is gone, when a connection broke."""
_LATE, _GRACE = 120.0, 5.0
"""Seconds in which every rank hears that the run is over; the same where one is lost."""


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
        UsageError: rank 0's port is taken, or its store can't be reached.
    """

    def __init__(
        self,
        place: Place,
        server: TCPStore | None = None,
        started: Started | None = None,
        *,
        patience: float = PATIENCE,
    ) -> None:
        self.rank, self.size = place.rank, place.size
        self._place = place
        self._patience = timedelta(seconds=patience)
        if place.rank == 0 and not place.hosted:
            self._store = self._own(server or serve(place))
        else:
            self._store = self._connect()
        self._told = 0
        self._met = False
        self.passes: Resting | None = None
        """Of a model whose weights are spread over the ranks, while there is one."""
        self.pulse = Pulse(self._connect, self.rank, self.size, started)

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
            return value
        return self.take(key)

    def gather(self, value: JsonValue) -> list[JsonValue]:
        """What every rank gives, by rank, on rank 0; elsewhere nothing. Raises as `agree`."""
        self.rest()
        self._told += 1
        if not self.leads:
            self.put(f"said/{self._told}/{self.rank}", value)
            return []
        return [value, *(self.take(f"said/{self._told}/{rank}") for rank in range(1, self.size))]

    def meet(self, versions: JsonValue) -> None:
        """Wait, the first time, until every rank is there, with the same versions. Raises as `require_same`."""
        if not self._met:
            self.require_same(versions, "The versions")
            self._met = True

    def require_same(self, value: JsonValue, what: str) -> None:
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
                "Let every machine have the same files, and the same versions of ragtune, torch, "
                "transformers and peft. Then the same command goes on.",
            )

    def put(self, key: str, value: JsonValue) -> None:
        """Leave something for others."""
        packed = zlib.compress(json.dumps(value).encode())  # the store takes 8 MB at most
        with self._reached():
            self._store.set(key, packed)  # type: ignore[arg-type]  # it takes bytes

    def take(self, key: str) -> JsonValue:
        """What somebody left under a key; waits for it. Raises as `agree`."""
        pause = _SHORTEST
        while not self.has(key):
            stop_if_asked()  # which is why others may be gone
            self._require_all()
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST)
        with self._reached():
            return json.loads(zlib.decompress(self._store.get(key)))  # type: ignore[no-any-return]

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

    def join(self) -> None:
        """Make the process group, for sums; once. Every rank calls it. Raises as `agree`."""
        self.gather(True)  # nobody waits in C++ for one who will not come
        self.agree()
        if dist.is_initialized():
            return
        with self.together():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
                store=PrefixStore("group", self._store),
                rank=self.rank,
                world_size=self.size,
                timeout=_LONG,
            )
            # NCCL meets at the first sum, through the store: here, where all are, and with their own time.
            self._store.set_timeout(_LONG)
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
            if not isinstance(error, dist.DistError) and "gloo" not in str(error):
                raise
            raise self._why() from error
        finally:
            self.pulse.working = before

    def name_of(self, rank: int) -> str:
        """A rank, with its machine."""
        return f"rank {rank} on {self._store.get(f'host/{rank}').decode()}"

    def fail(self, error: RagtuneError, where: str = "") -> None:
        """Leave word why this rank ends, and wait until rank 0 has heard: its launcher would end it, too."""
        self.put(f"failed/{self.rank}", [error.message, error.advice, where])
        self._leave()
        until = time.monotonic() + _KNOWN
        while self.pulse.lost is None and time.monotonic() < until:
            time.sleep(_LONGEST)

    def dismiss(self, code: int) -> None:
        """Let the other ranks end, with an exit code: also those that are yet to come."""
        self._leave()
        self.put("over", code)
        self.pulse.suspect()
        waiting, begun = set(range(1, self.size)), time.monotonic()
        while waiting and time.monotonic() - begun < (_GRACE if self.pulse.lost else _LATE):
            waiting = {rank for rank in waiting if not self.has(f"bye/{rank}")}
            time.sleep(_SHORTEST)

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

    def _connect(self) -> Store:
        place = self._place
        try:
            store = TCPStore(place.address, place.port, is_master=False, timeout=self._patience)
        except RuntimeError as error:
            raise UsageError(
                f"Rank {place.rank} can't reach rank 0 at {place.address}:{place.port}.",
                "See that MASTER_ADDR names the first machine as the others reach it, that its firewall lets "
                "MASTER_PORT through, and that every rank was started.",
            ) from error
        return self._own(store)

    def _own(self, store: TCPStore) -> Store:
        """Of a store what this attempt leaves there."""
        return PrefixStore(f"ragtune/{self._place.attempt}", store)

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        """Within, what can't be reached is the store."""
        try:
            yield
        except dist.DistError as error:
            raise self._why() from error

    def _require_all(self) -> None:
        if self.pulse.lost:
            raise self.pulse.lost
        if not self.leads and self.has("over"):
            raise over(self._store)

    def _why(self) -> LostError:
        """Who is gone, now that a connection broke."""
        self.pulse.suspect()
        until = time.monotonic() + _KNOWN
        while self.pulse.lost is None and time.monotonic() < until:
            time.sleep(0.05)
        return self.pulse.lost or lost("a rank", "its connection broke")


def serve(place: Place) -> TCPStore:
    """The store that the ranks share; port 0 for one that is free.

    Raises:
        UsageError: the port is taken.
    """
    try:
        return TCPStore(place.address, place.port, is_master=True, wait_for_workers=False)
    except RuntimeError as error:
        raise UsageError(
            f"Port {place.port} of {place.address} can't be had: {str(error).splitlines()[0]}",
            "Another program uses it, perhaps another run: choose another MASTER_PORT (torchrun: "
            "--master-port).",
        ) from error
