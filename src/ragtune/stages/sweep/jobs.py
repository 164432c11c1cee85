"""Several processes at a time, each with a log; all are stopped with the command that started them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ragtune.base.lock import require_held
from ragtune.base.reading import open_plain
from ragtune.base.stopping import asked, finishing, stop_if_asked
from ragtune.stages.sweep.machine import environment

_LOOK = 0.2
"""Seconds between two looks at what is running."""
_ERROR = "Error:"
"""How the line of a log begins that says why a command ended (`base/screen/console.py:show_error`)."""
_FIRST = "the runs that are at work stop first, and keep what they have done"
_TAIL = 4096
"""Bytes of a log's end among which the error stands."""


@dataclass(frozen=True)
class Task:
    """A process to be run."""

    name: str
    words: tuple[str, ...]
    """For Python, behind `-m`."""
    log: Path


@dataclass(frozen=True)
class _Running:
    task: Task
    process: subprocess.Popen[bytes]
    gpu: int | None
    begun: int
    """Where in the log its output begins: behind that of earlier attempts."""


def run_all(
    tasks: Sequence[Task],
    at_a_time: Callable[[], int],
    done: Callable[[Task, str], None],
    gpus: Sequence[int] = (),
) -> None:
    """Run tasks, some at a time; one that fails keeps none of the others from going on.

    Args:
        tasks: in the order in which they begin.
        at_a_time: how many may run now; it is asked again and again.
        done: is told each task that has ended, and why it failed, or "".
        gpus: each task has the one of these on which the fewest others run.

    Raises:
        Stopped: a signal came; those that ran have stopped, too.
    """
    waiting, running = list(tasks), list[_Running]()
    with finishing(_FIRST), _ended(running):
        while (waiting or running) and not asked():
            require_held()
            while waiting and len(running) < max(1, at_a_time()):
                gpu = freest(gpus, [one.gpu for one in running])
                running.append(_started(waiting.pop(0), gpu, at_a_time()))
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                done(one.task, _problem(one))
            time.sleep(_LOOK)
    stop_if_asked("What the runs had done is kept.")


def freest(gpus: Sequence[int], taken: Sequence[int | None]) -> int | None:
    """The first of the GPUs on which the fewest run; None without any.

    Args:
        gpus: their numbers.
        taken: the GPU of each that runs.
    """
    return min(gpus, key=taken.count) if gpus else None


def _started(task: Task, gpu: int | None, at_a_time: int) -> _Running:
    task.log.parent.mkdir(parents=True, exist_ok=True)
    with task.log.open("ab") as log:
        begun = log.tell()
        process = subprocess.Popen(  # noqa: S603 - this Python, with words of ours
            [sys.executable, "-m", *task.words],
            stdin=subprocess.PIPE,  # it ends with this process
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment(gpu, at_a_time),
            start_new_session=True,  # Ctrl-C comes to this process alone, which passes it on once
        )
    return _Running(task, process, gpu, begun)


@contextmanager
def _ended(running: list[_Running]) -> Iterator[None]:
    """Let nothing run on: what still does is asked to stop, and has the time for it."""
    try:
        yield
        for one in running:
            one.process.terminate()
        for one in running:
            one.process.wait()
    finally:
        for one in running:
            if one.process.poll() is None:
                one.process.kill()
                one.process.wait()


def _problem(one: _Running) -> str:
    """Why a process failed: what its log calls the error, else its last words; "" if it didn't fail."""
    if one.process.returncode == 0:
        return ""
    with open_plain(one.task.log) as file:
        file.seek(max(one.begun, one.task.log.stat().st_size - _TAIL))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    said = [line for line in lines if line]
    # Behind the error stands the advice, which says nothing of what was wrong.
    errors = [line.removeprefix(_ERROR).strip() for line in said if line.startswith(_ERROR)]
    return next(reversed(errors or said), "") or f"exit code {one.process.returncode}"
