"""Whether the processes of a run are all alive: each says so, and is looked after."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable
from typing import Protocol, cast

from torch._C._distributed_c10d import Store

from ragtune.base.errors import RagtuneError
from ragtune.base.screen.output import complain
from ragtune.distributed import limits
from ragtune.distributed.store import read

_GO_ON = (
    "What is finished is kept, and so is the last checkpoint: the same command goes on from there, also on "
    "another number of GPUs."
)


class LostError(RagtuneError):
    """A rank ended, or gave no sign of life."""


class OverError(LostError):
    """Rank 0 has ended the run, with an exit code."""

    def __init__(self, code: int) -> None:
        super().__init__("Rank 0 has ended.")
        self.exit_code = code


class Started(Protocol):
    """Ranks that this process started itself."""

    def ended(self) -> tuple[int, str] | None:
        """One that ended, and how."""

    def kill(self) -> None:
        """End them all, whatever they do."""


class Pulse:
    """A thread that says that this rank is alive, and looks at the others: rank 0 at all, they at rank 0.

    Args:
        connect: a connection to the store, of its own.
        rank: this one.
        size: of how many.
        started: the others, if rank 0 started them.
    """

    def __init__(
        self, connect: Callable[[], Store], rank: int, size: int, started: Started | None
    ) -> None:
        self.rank = rank
        self.lost: LostError | None = None
        self.working = False
        """Whether this rank is doing something that it can't end without the others."""
        self.writing: Callable[[], bool] = lambda: False
        """Tells whether this rank is writing what would be lost if its process ended."""
        self._connect = connect
        self._watched = range(1, size) if rank == 0 else range(1)
        self._started = started
        self._silent = limits.SILENT
        self._seen: dict[int, tuple[bytes, float]] = {}
        self._begun = self._well = time.monotonic()
        self._heard = math.inf
        """When the store last answered; for ever, until it is reached."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)
        self._thread.start()
        if rank:
            threading.Thread(target=self._end_if_cut_off, name="guard", daemon=True).start()

    def stop(self) -> None:
        """Say nothing any more, and look no more."""
        self._over.set()
        self._thread.join(limits.LEAVING)  # it may be asking a machine that is gone

    def suspect(self) -> None:
        """A connection broke: who gives no sign of life now is lost."""
        self._silent = min(self._silent, limits.BROKEN)

    def _run(self) -> None:
        try:
            store = self._connect()
            count = 0
            stopped = False
            while not stopped:
                count += 1
                self._heard = time.monotonic()
                store.set(f"alive/{self.rank}", str(count))
                self.lost = self.lost or self._look(store)
                self._end_if_stuck(store)
                stopped = self._over.wait(limits.BEAT)
        except (RagtuneError, RuntimeError):  # torch's errors of a store that is gone
            self._heard = math.inf
            while not self._over.wait(limits.BEAT):
                self.lost = self.lost or lost("rank 0", "its store can't be reached")
                self._end_if_stuck(None)

    def _look(self, store: Store) -> LostError | None:
        """Who is gone."""
        if self.rank and store.check(["over"]):
            return over(store)
        ended = self._started.ended() if self._started else None
        for rank in self._watched:
            if store.check([f"failed/{rank}"]):
                what, advice, where = cast("list[str]", read(store, f"failed/{rank}"))
                name = name_of(store, rank)
                error = LostError(f"{name[0].upper()}{name[1:]}: {what}", advice)
                error.add_note(where)  # --debug shows it
                return error
            if ended and ended[0] == rank:
                return lost(name_of(store, rank), ended[1])
            if how := self._is_silent(store, rank):
                return lost(name_of(store, rank), how)
        return None

    def _is_silent(self, store: Store, rank: int) -> str:
        """How a rank is silent; empty if it isn't."""
        now, key = time.monotonic(), f"alive/{rank}"
        if not store.check([key]):
            return f"it didn't come within {limits.COMING:.0f} s" * (
                now - self._begun > limits.COMING
            )
        count = store.get(key)
        before, since = self._seen.get(rank, (b"", now))
        if before != count:
            self._seen[rank] = count, now
            return ""
        silent = now - since
        return f"it gave no sign of life for {silent:.0f} s" * (silent > self._silent)

    def _end_if_stuck(self, store: Store | None) -> None:
        """End a process that waits in C++ for one that is lost: nothing else can end that."""
        if self.lost and self._started:
            self._started.kill()  # which breaks the connections that this rank waits for
        if self.lost is None or not (self.rank or self.working) or self.writing():
            self._well = time.monotonic()
        elif time.monotonic() - self._well > (limits.LEAVING if self.rank else limits.STUCK):
            if store is not None:
                with contextlib.suppress(RuntimeError):
                    store.set(f"bye/{self.rank}", "")
            if not self.rank:
                complain(f"Error: {self.lost.message}\n{self.lost.advice}\n")
            os._exit(self.lost.exit_code)

    def _end_if_cut_off(self) -> None:
        """End a process that rank 0's machine doesn't answer: on a link that is cut, torch waits for ever."""
        while self._thread.is_alive():
            time.sleep(limits.BEAT)
            if time.monotonic() - self._heard > limits.SILENT + limits.LEAVING:
                complain(f"Error: {lost('rank 0', 'its machine does not answer').message}\n")
                os._exit(1)


def over(store: Store) -> OverError:
    """How rank 0 ended the run, which it did."""
    return OverError(cast("int", read(store, "over")))


def name_of(store: Store, rank: int) -> str:
    """A rank, with its machine if it has said that: before anything else, so it is asked for last."""
    known = store.check([f"host/{rank}"])
    return f"rank {rank}" + (f" on {store.get(f'host/{rank}').decode()}" if known else "")


def lost(name: str, how: str) -> LostError:
    """A rank that is gone, and how."""
    return LostError(f"Lost {name}: {how}.", _GO_ON)
