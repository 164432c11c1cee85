"""The processes beside rank 0 on its machine: started, told where to meet it, watched, and gone when it ends.

It loads no torch: they can begin while rank 0 is still importing, as they are.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Self

from ragtune.base.text import shortened
from ragtune.distributed.place import VISIBLE, Place, asked_to_tell, seen

HERE = "127.0.0.1"
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
"""gloo would ask what this machine's name stands for, which may be nothing that it has."""
_LINES, _LONGEST = 3, 600
"""Of what a process said before it ended."""


@dataclass(frozen=True)
class Follower:
    """A process, what it hears, and what it says."""

    process: subprocess.Popen[bytes]
    hears: IO[bytes]
    said: IO[bytes]


class Followers:
    """Ranks 1, 2 and so on: a process for each device but the first, which is rank 0's.

    They have nothing to lose: they are killed when this is left.

    Args:
        devices: by number.
        module: of Python, which they run. It waits for a line of standard input, the port of rank 0's store;
            without one it ends: rank 0 is gone.
        arguments: of the module.
    """

    def __init__(self, devices: Sequence[int], module: str, *arguments: str) -> None:
        self.devices, self.command = [*devices], [module, *arguments]
        self._all: list[Follower] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        for follower in self._all:
            follower.process.wait()
            follower.hears.close()
            follower.said.close()
        self._all.clear()

    def begin(self) -> None:
        """Start those that have not begun already."""
        size = len(self.devices)
        for rank, device in enumerate(self.devices[1:], 1):
            if len(self._all) < rank:
                self._all.append(start(Place(rank, size, device, HERE, 0), *self.command))

    def tell(self, port: int) -> None:
        """Say where rank 0's store is; one that is gone can't hear it, which `ended` finds."""
        for follower in self._all:
            with contextlib.suppress(OSError), follower.hears:
                follower.hears.write(b"%d\n" % port)

    def ended(self) -> tuple[int, str] | None:
        """The first that ended, and how."""
        for rank, follower in enumerate(self._all, 1):
            if (code := follower.process.poll()) is None:
                continue
            if code == -9:  # noqa: PLR2004 - SIGKILL, which Windows has no name for: from outside: it had no time to say anything
                return rank, "it was killed by SIGKILL"
            how = f"it ended with exit code {code}"
            if code < 0:
                how = f"it was killed by {signal.Signals(-code).name}"
            follower.said.seek(0)
            last = follower.said.read().decode("utf-8", "replace").strip().splitlines()[-_LINES:]
            words = ": ".join(filter(None, (how, " / ".join(last))))
            return rank, shortened(words, _LONGEST)
        return None

    def kill(self) -> None:
        """End them all, whatever they do."""
        for follower in self._all:
            follower.process.kill()


def start(place: Place, module: str, *arguments: str) -> Follower:
    """Start a rank on this machine, in a session of its own: Ctrl-C reaches rank 0 alone."""
    said = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
    to: IO[bytes] | int = 2 if asked_to_tell() else said
    process = subprocess.Popen(  # noqa: S603 - Python itself, and a module of ours
        [sys.executable, "-P", "-m", module, *arguments],
        # Before it starts: libraries look for GPUs while they are imported.
        env=os.environ | place.environment() | LOOPBACK | {VISIBLE: seen(place.local_rank)},
        stdin=subprocess.PIPE, stdout=to, stderr=to, start_new_session=True,
    )  # fmt: skip
    assert process.stdin is not None  # it is a pipe
    return Follower(process, process.stdin, said)


_early: list[Followers] = []


@contextlib.contextmanager
def early(devices: Sequence[int], module: str, *arguments: str) -> Iterator[None]:
    """Let such processes begin; within, `followers_of` finds them. Who isn't taken ends, without a word."""
    with Followers(devices, module, *arguments) as followers:
        _early.append(followers)
        try:
            with contextlib.suppress(OSError):  # a system that refuses: who needs them asks again
                followers.begin()
            yield
        finally:
            _early.clear()


def followers_of(devices: Sequence[int], module: str, *arguments: str) -> Followers:
    """Those that began early if they are just these, else others that have yet to begin: then the first end."""
    wanted = Followers(devices, module, *arguments)
    while _early:
        found = _early.pop()
        if (found.devices, found.command) == (wanted.devices, wanted.command):
            return found
        with found:
            pass
    return wanted
