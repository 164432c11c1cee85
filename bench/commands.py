"""Commands of one Python beside each other, on the GPUs of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
"""From where every command is begun."""
AT_A_TIME = 6
"""On a GPU. Four small trainings keep it at work; one that began beside others may find that CUDA graphs don't
pay, and then be slow alone in the end (reasoned, not measured): so some more are at work from the beginning."""

Words = Sequence[object]


def gpus() -> list[int]:
    return list(range(torch.cuda.device_count())) or [0]


def shares(names: Sequence[str], cards: Sequence[int]) -> dict[str, list[int]]:
    """The GPUs that each command has for itself; empty where there are fewer than commands."""
    enough = len(names) <= len(cards)
    return {name: list(cards[i :: len(names)]) if enough else [] for i, name in enumerate(names)}


class Passing:
    """Signals that came to this process, for the commands that it has begun."""

    def __init__(self) -> None:
        self.came: list[int] = []
        self._told = False

    def on(self, running: Iterable[subprocess.Popen[bytes]]) -> None:
        """Ask those that run to end, if a signal came: once, as at a second one they would stop at once."""
        if self.came and not self._told:
            self._told = True
            for one in running:
                one.terminate()


@contextmanager
def passing() -> Iterator[Passing]:
    """Within, what would end this process is noted, to be passed on; behind it this process ends.

    Commands are to be in sessions of their own: what comes to a whole group, such as Ctrl-C, comes once.

    Raises:
        SystemExit: a signal came; its code is the signal's.
    """
    found, before = Passing(), dict[int, Any]()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        number = getattr(signal, name, None)
        if (
            number is not None and signal.getsignal(number) is not signal.SIG_IGN
        ):  # as nohup sets it
            before[number] = signal.signal(number, lambda came, _: found.came.append(came))
    try:
        yield found
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if found.came:
        raise SystemExit(128 + found.came[0])


def begin(words: Words, log: Path, cards: Sequence[int]) -> subprocess.Popen[bytes]:
    """Begin a command for this Python that sees some GPUs alone."""
    environment = dict(os.environ)
    if torch.cuda.is_available():
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, cards))
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        return subprocess.Popen(  # noqa: S603 - this Python, with words of ours
            [sys.executable, *map(str, words)],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=ROOT,
            start_new_session=True,
        )


def run_all(commands: Mapping[str, tuple[Words, Path]]) -> list[str]:
    """Run commands, some at a time; returns the names of those that failed, whose last words are printed.

    Args:
        commands: by name the words for this Python, and the log. Each has the GPU on which the fewest run.

    Raises:
        SystemExit: a signal came; those that ran have ended, too.
    """
    cards, waiting, failed = gpus(), [*commands], list[str]()
    own = shares(waiting, cards)
    running: dict[str, tuple[subprocess.Popen[bytes], list[int]]] = {}
    with passing() as signals:
        while running or (waiting and not signals.came):
            while waiting and not signals.came and len(running) < AT_A_TIME * len(cards):
                name = waiting.pop(0)
                taken = [card for _, mine in running.values() for card in mine]
                mine = own[name] or [min(cards, key=taken.count)]
                running[name] = begin(*commands[name], mine), mine
            signals.on(one for one, _ in running.values())
            for name in [name for name, (one, _) in running.items() if one.poll() is not None]:
                if running.pop(name)[0].returncode and not signals.came:
                    failed.append(name)
                    lines = commands[name][1].read_text("utf-8", "replace").splitlines()
                    print(f"failed: {name}", *lines[-8:], sep="\n  ", flush=True)
            time.sleep(0.2)
    return failed


def require_all(commands: Mapping[str, tuple[Words, Path]]) -> None:
    """Run commands.

    Raises:
        SystemExit: one failed, or a signal came.
    """
    if failed := run_all(commands):
        raise SystemExit(f"failed: {', '.join(failed)}")
