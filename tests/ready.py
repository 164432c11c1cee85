"""The command line in processes that start at once: forked from one that has everything imported.

`python -m ragtune` imports for seconds before it does anything. What a test needs of a process (its exit code,
its two outputs, signals) a fork has as well; tests of what happens while libraries are loaded start Python.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


class Started:
    """A command that runs; of what `subprocess.Popen` has, what the tests use."""

    def __init__(self, channel: socket.socket, out: Path, errors: Path) -> None:
        self._channel, self._out, self._errors = channel, out, errors
        self.pid = int(_line(channel))
        self.returncode: int | None = None

    def poll(self, timeout: float = 0) -> int | None:
        """The exit code, or minus the signal; None while it runs."""
        if self.returncode is None and select.select([self._channel], [], [], timeout)[0]:
            self.returncode = int(self._channel.recv(64))
            self._channel.close()
        return self.returncode

    def wait(self, timeout: float = 600) -> int:
        code = self.poll(timeout)
        assert code is not None, f"it still runs after {timeout} s: {self._out.read_text('utf-8')}"
        return code

    def send_signal(self, how: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, how)

    def communicate(self) -> tuple[str, str]:
        """What it wrote, once it has ended."""
        self.wait()
        return self._out.read_text("utf-8"), self._errors.read_text("utf-8")


def _line(channel: socket.socket) -> bytes:
    """One line, and nothing of what comes after it."""
    found = b""
    while not found.endswith(b"\n"):
        found += channel.recv(1)
    return found


class Ready:
    """A process that has everything imported, and forks.

    Args:
        environment: of the process, over that of the tests; what a library reads when it is imported is
            to be given here.
    """

    def __init__(self, **environment: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ready-")
        self._count = 0
        self._channel, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.ready", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            cwd=ROOT,
            env={**os.environ, **environment},
        )
        theirs.close()

    def start(
        self,
        arguments: list[str],
        cwd: Path | None = None,
        outputs: tuple[Path, Path] | None = None,
        *,
        program: str = "ragtune",
        faults: Mapping[int, Sequence[Any]] | None = None,
        **environment: str | None,
    ) -> Started:
        """Begin `ragtune ARGUMENTS`, or a `kernel` of IPython's, or `python -c CODE ARGUMENTS`.

        What it writes goes to files of its own, or to `outputs`. A variable that is None isn't there. With `faults`, by rank, the ranks that it
        starts are forks as well; a fault is a function of `tests.distributed.faults`, and what it is given.
        """
        self._count += 1
        out, errors = outputs or (
            Path(self._folder.name) / f"{self._count}.{name}" for name in ("out", "errors")
        )
        wanted = {
            "program": program,
            "arguments": arguments,
            "cwd": str(cwd or Path.cwd()),
            "environment": {
                k: v for k, v in {**os.environ, **environment}.items() if v is not None
            },
            "outputs": [str(out), str(errors)],
            "faults": None if faults is None else {str(rank): one for rank, one in faults.items()},
        }
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._channel, [b"."], [theirs.fileno()])
            ours.sendall(json.dumps(wanted).encode() + b"\n")
        return Started(ours, out, errors)

    def run(
        self,
        arguments: list[str],
        cwd: Path | None = None,
        *,
        program: str = "ragtune",
        faults: Mapping[int, Sequence[Any]] | None = None,
        **environment: str | None,
    ) -> subprocess.CompletedProcess[str]:
        """Do `ragtune ARGUMENTS`, or what else `start` knows, and wait for its end."""
        started = self.start(arguments, cwd, program=program, faults=faults, **environment)
        out, errors = started.communicate()
        return subprocess.CompletedProcess(arguments, started.wait(), out, errors)

    def close(self) -> None:
        self._channel.shutdown(
            socket.SHUT_RDWR
        )  # it ends by that, whoever else has the channel open
        self._channel.close()
        self._process.wait()
        self._folder.cleanup()


def serve(channel: socket.socket) -> None:
    """Fork for every request, until nobody is there who could make one."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        said, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
        if not said:
            return
        with socket.socket(fileno=descriptors[0]) as request:
            if not os.fork():
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                channel.close()
                _attend(request)


def _attend(request: socket.socket) -> None:
    """Fork once more, into the command; tell its pid and how it ended."""
    wanted = json.loads(_line(request))
    pid = os.fork()
    if not pid:
        request.close()
        _become(wanted)
    request.sendall(f"{pid}\n".encode())
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    request.sendall(str(code).encode())
    os._exit(0)


def _become(wanted: dict[str, Any]) -> None:
    """Be the command. It ends as Python does, but takes nothing apart: that would take longer than most commands."""
    for descriptor, path in zip((1, 2), wanted["outputs"], strict=True):
        file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(file, descriptor)
        os.close(file)
    # Python knows of a file or a terminal from when it opened it.
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - as Python does
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, errors="backslashreplace")  # noqa: SIM115 - as Python does
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(wanted["environment"])
    os.chdir(wanted["cwd"])
    sys.argv = [wanted["program"], *wanted["arguments"]]
    code = 1
    try:
        if wanted["faults"] is not None:
            from tests.distributed.ranks import forked_ranks

            forked_ranks(wanted["faults"])
        from ragtune.base.web.network import no_telemetry

        no_telemetry()  # as when ragtune is imported
        if _of_the_hub(before) != _of_the_hub(os.environ):
            _read_again()
        _PROGRAMS[wanted["program"]]()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:  # noqa: BLE001 - it must not reach the code of the process that forked
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _of_the_hub(environment: Mapping[str, str]) -> dict[str, str]:
    """What the Hub's libraries read of an environment when they are imported."""
    return {k: v for k, v in environment.items() if k.startswith(("HF_", "XDG_"))}


def _read_again() -> None:
    """Let the Hub's libraries see the environment as it is now; those who use a constant ask these modules."""
    for name in ("huggingface_hub.constants", "datasets.config"):
        if name in sys.modules:
            importlib.reload(sys.modules[name])


def _ragtune() -> None:
    from ragtune.__main__ import main

    main()


def _kernel() -> None:
    os.setsid()  # who stops a kernel signals to its group
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance()


def _python() -> None:
    _, option, code, *arguments = sys.argv
    assert option == "-c"
    sys.argv = [option, *arguments]
    exec(code, {"__name__": "__main__"})


_PROGRAMS = {"ragtune": _ragtune, "kernel": _kernel, "python": _python}


if __name__ == "__main__":
    from tests.faults import preload

    preload()
    serve(socket.socket(fileno=int(sys.argv[1])))
