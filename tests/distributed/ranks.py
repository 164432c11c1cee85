"""Ranks that start at once: forks of the process that becomes rank 0, made before it does anything."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import IO, Any

from tests.distributed import faults as known

MOST = 3


class Spare:
    """A process that has everything imported, and waits to be a rank; a `subprocess.Popen` in small."""

    def __init__(self, others: Sequence[Spare]) -> None:
        self._channel, theirs = socket.socketpair()
        self.pid = os.fork()
        self._code: int | None = None
        if not self.pid:
            for one in (self, *others):
                one._channel.close()
            _be_a_rank(theirs)
        theirs.close()

    def begin(
        self, environment: Mapping[str, str], fault: Sequence[Any], said: IO[bytes]
    ) -> IO[bytes]:
        reads, writes = os.pipe()
        with self._channel, os.fdopen(reads) as told:
            socket.send_fds(self._channel, [b"."], [said.fileno(), told.fileno()])
            self._channel.sendall(json.dumps([dict(environment), fault]).encode())
        return os.fdopen(writes, "wb")

    def poll(self, how: int = os.WNOHANG) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self.pid, how)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def wait(self) -> int | None:
        return self.poll(0)

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def forked_ranks(faults: Mapping[str, Sequence[Any]]) -> None:
    """Let ranks that this process starts be forks, with a fault here and there."""
    import tempfile

    from ragtune.distributed import followers

    spares: dict[int, Spare] = {}
    for rank in range(1, MOST):
        spares[rank] = Spare([*spares.values()])

    def start(place: Any, module: str, *_: str) -> Any:
        assert module == "ragtune.stages.begin"
        said = tempfile.TemporaryFile()  # noqa: SIM115 - as the original
        spare = spares.pop(place.rank)  # none begins twice: those that began early are taken
        environment = os.environ | place.environment()
        hears = spare.begin(environment, faults.get(str(place.rank), ()), said)
        return followers.Follower(spare, hears, said)  # type: ignore[arg-type]

    followers.start = start
    _let_happen(faults.get("0", ()))


def _be_a_rank(channel: socket.socket) -> None:
    try:
        said, descriptors, _, _ = socket.recv_fds(channel, 1, 2)
        if not said:
            os._exit(0)  # rank 0 ended, and needed none
        os.setsid()
        for number in (1, 2):
            os.dup2(descriptors[0], number)
        os.dup2(descriptors[1], 0)
        for one in descriptors:
            os.close(one)
        text = b""
        while part := channel.recv(1 << 16):
            text += part
        environment, fault = json.loads(text)
        os.environ.clear()
        os.environ.update(environment)
        _let_happen(fault)
        from ragtune.stages.begin import main

        sys.argv = sys.argv[:1]
        main()
    except SystemExit as stop:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(stop.code or 0))
    except BaseException:  # noqa: BLE001 - it must not reach the code of the process that forked
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    os._exit(99)


def _let_happen(fault: Sequence[Any]) -> None:
    if fault:
        name, *given = fault
        getattr(known, name)(*given)
