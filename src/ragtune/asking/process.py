"""A server's process: it ends with the command that started it, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from types import FrameType
from typing import IO, Self
from urllib.parse import urlsplit

import psutil

from ragtune.base.errors import UsageError
from ragtune.base.screen.output import passing_on
from ragtune.base.stopping import finishing, stop_if_asked
from ragtune.base.threads import as_chosen

_GRACE = 20.0
"""Seconds in which a server that was told to end does so by itself."""
_KILLED = 5.0
"""Seconds in which what was killed is gone."""
_SHORTLY = 0.1
_LAST_WORDS = 1.0
_HUNG_UP = getattr(signal, "SIGHUP", None)
"""The terminal was closed. Windows has none."""
_WATCHER = (
    "import sys, psutil; server = psutil.Process(int(sys.stdin.readline())); sys.stdin.read(); "
    "[one.kill() for one in [*server.children(recursive=True), server]]"
)
"""Ends a server when the pipe to it is closed: by the system, where the command was killed."""


class Process:
    """A server that runs; a context manager, with whose end it ends.

    It is in a process group of its own, so that Ctrl-C reaches it once, through this one. What it says is
    passed on, escaped: vLLM, say, logs a model's chat template.

    Args:
        words: the command.
        environment: what it gets beside this process's.
    """

    def __init__(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        self.words = words
        self._environment = {**as_chosen(os.environ), "PYTHONUNBUFFERED": "1", **environment}
        self._seen: list[psutil.Process] = []
        """What it had started when it was looked at last: nobody's children, if it is killed."""

    def __enter__(self) -> Self:
        with (
            contextlib.ExitStack() as within,
            finishing(),
        ):  # a signal between would lose track of it
            within.enter_context(_ends_with_terminal())
            watched = within.enter_context(_watcher())
            self._child = subprocess.Popen(  # noqa: S603 - the engine that is installed, with arguments of ours
                self.words,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                process_group=0 if os.name == "posix" else None,
            )
            assert self._child.stdout is not None
            assert self._child.stderr is not None
            self._said = passing_on(self._child.stdout, self._child.stderr)
            watched.write(b"%d\n" % self._child.pid)
            self._with = within.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with self._with:
            self.end()

    def is_ready(self, endpoint: str) -> bool:
        """Wait until it answers; whether it does, and hasn't ended."""
        while self._child.poll() is None:
            stop_if_asked()
            ready = _answers(endpoint)
            self._seen = _tree(self._child.pid) or self._seen
            if ready:
                return True
            time.sleep(_SHORTLY)
        return False

    def wait(self) -> int:
        """Its exit code, once it has ended; as a shell says it, where a signal ended it."""
        while (code := self._child.poll()) is None:
            stop_if_asked()  # also when nobody reads any more what it says
            time.sleep(_SHORTLY)
        self._hear_out()
        return 128 - code if code < 0 else code

    def end(self) -> None:
        """End it and all that it started: asked to first, then made to."""
        left = [*self._seen, *_tree(self._child.pid)]
        try:
            if self._child.poll() is None:
                self._child.terminate()
                self._child.wait(_GRACE)
        except subprocess.TimeoutExpired:
            pass
        finally:  # Ctrl-C again: no longer waited for
            left = [*left, *_tree(self._child.pid)]
            _kill(left)
            if os.name == "posix":
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()
            end = time.monotonic() + _KILLED
            while any(map(_runs, left)) and time.monotonic() < end:
                time.sleep(_SHORTLY)
            self._hear_out()

    def _hear_out(self) -> None:
        """Pass on its last words, unless somebody else holds its output open."""
        for one in self._said:
            one.join(_LAST_WORDS)


@contextlib.contextmanager
def _watcher() -> Iterator[IO[bytes]]:
    """A process that ends the server whose pid it is told, if this one is killed; gone afterwards."""
    process = subprocess.Popen(  # noqa: S603 - this Python
        [sys.executable, "-P", "-c", _WATCHER],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        process_group=0 if os.name == "posix" else None,
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )
    assert process.stdin is not None
    try:
        yield process.stdin
    finally:
        process.kill()
        process.stdin.close()
        process.wait()


def _tree(pid: int) -> list[psutil.Process]:
    """A process with all that it started, as far as they run."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [*process.children(recursive=True), process]
    return []


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def _kill(processes: Sequence[psutil.Process]) -> None:
    for one in processes:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            one.kill()


@contextlib.contextmanager
def _ends_with_terminal() -> Iterator[None]:
    """Within, a closed terminal is as good as SIGTERM: what runs in a group of its own would not hear of it."""
    if _HUNG_UP is None or signal.getsignal(_HUNG_UP) is not signal.SIG_DFL:
        yield  # nohup: it is to go on
        return

    def ends(_: int, __: FrameType | None) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(_HUNG_UP, ends)
    try:
        yield
    finally:
        signal.signal(_HUNG_UP, signal.SIG_DFL)


def _answers(endpoint: str) -> bool:
    """Whether a server says that it is well."""
    parts = urlsplit(endpoint)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def require_free(host: str, port: int) -> None:
    """Require that a server can listen there.

    Raises:
        UsageError: somebody else does, or this machine has no such address.
    """
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError):
        raise UsageError(
            f"--host {host} is no address of this machine.",
            "Use 127.0.0.1 for this machine alone, or 0.0.0.0 for all that reach it.",
        ) from None
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as one:
            if os.name == "posix":  # a server that has just ended is no hindrance
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind(address)
            except OSError as error:
                raise UsageError(
                    f"No server can listen at {host} port {port}: {error.strerror}.",
                    "Choose another one with --port, or end what listens there.",
                ) from None
