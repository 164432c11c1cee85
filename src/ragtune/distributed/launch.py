"""The other processes of a run on one machine: started here, watched, and gone when it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import IO

from ragtune.base.text import shortened
from ragtune.distributed.place import VISIBLE, Place, asked_to_tell, seen
from ragtune.distributed.store import serve
from ragtune.distributed.world import World

_HERE = "127.0.0.1"
_LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
"""gloo would ask what this machine's name stands for, which may be nothing that it has."""
_LINES, _LONGEST = 3, 600
"""Of what a process said before it ended."""


@contextlib.contextmanager
def launched(devices: Sequence[int], module: str, *arguments: str) -> Iterator[World]:
    """A process beside this one, which is rank 0, for each device but the first; they run a Python module.

    torch's own launcher makes a child of every rank, this one too, and takes over the signals: a notebook
    couldn't be rank 0, and Ctrl-C would reach the ranks one by one.

    Yields:
        The world of rank 0. The others have nothing to lose: they are killed when it is left.
    """
    place = Place(0, len(devices), devices[0], _HERE, 0)
    server = serve(place)
    place = replace(place, port=server.port)
    followers = _Followers()
    before = {name: os.environ.get(name) for name in _LOOPBACK}
    os.environ |= _LOOPBACK
    try:
        for rank, device in enumerate(devices[1:], 1):
            followers.start(replace(place, rank=rank, local_rank=device), module, *arguments)
        world = World(place, server, followers)
        try:
            yield world
        finally:
            followers.kill()
            world.close()
    finally:
        followers.kill()
        followers.bury()
        for name, value in before.items():
            os.environ.pop(name)
            os.environ |= {name: value} if value is not None else {}


@dataclass(frozen=True)
class Follower:
    """A process, and what it says."""

    process: subprocess.Popen[bytes]
    said: IO[bytes]


class _Followers:
    """Ranks 1, 2 and so on."""

    def __init__(self) -> None:
        self._all: list[Follower] = []

    def start(self, place: Place, module: str, *arguments: str) -> None:
        """Start the next one."""
        self._all.append(start(place, module, *arguments))

    def ended(self) -> tuple[int, str] | None:
        """The first that ended, and how."""
        for rank, follower in enumerate(self._all, 1):
            if (code := follower.process.poll()) is None:
                continue
            if code == -9:  # noqa: PLR2004 - SIGKILL, which Windows has no name for: from outside: it had no time to say anything
                return rank, "it was killed by SIGKILL"
            how = f"it was killed by {signal.Signals(-code).name}" if code < 0 else ""
            follower.said.seek(0)
            last = follower.said.read().decode("utf-8", "replace").strip().splitlines()[-_LINES:]
            words = f"{how or f'it ended with exit code {code}'}: {' / '.join(last)}"
            return rank, shortened(words, _LONGEST)
        return None

    def kill(self) -> None:
        """End them all, whatever they do."""
        for follower in self._all:
            follower.process.kill()

    def bury(self) -> None:
        """Leave nothing of them, when they were killed."""
        for follower in self._all:
            follower.process.wait()
            follower.said.close()


def start(place: Place, module: str, *arguments: str) -> Follower:
    """Start a rank on this machine, in a session of its own: Ctrl-C reaches rank 0 alone."""
    said = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
    to: IO[bytes] | int = 2 if asked_to_tell() else said
    process = subprocess.Popen(  # noqa: S603 - Python itself, and a module of ours
        [sys.executable, "-P", "-m", module, *arguments],
        # Before it starts: libraries look for GPUs while they are imported.
        env=os.environ | place.environment() | _LOOPBACK | {VISIBLE: seen(place.local_rank)},
        stdin=subprocess.DEVNULL, stdout=to, stderr=to, start_new_session=True,
    )  # fmt: skip
    return Follower(process, said)
