"""Stopping on Ctrl-C and SIGTERM: at once, or where nothing is lost.

Handlers are put in place by the command line alone. In a notebook Ctrl-C is Python's own.
"""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from ragtune.base.secrets import hide

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ALARM = getattr(signal, "SIGALRM", None)  # Windows has none
_SHORTLY = 0.05
"""Seconds between two looks whether an import is done."""


class Stopped(KeyboardInterrupt):
    """The user, or the system, asked to stop."""


class _State:
    asked: int | None = None
    """The signal that came."""
    interrupted = False
    """Whether it broke into whatever was running then."""
    finishing = 0
    """How many loops are running that come to a stop by themselves."""
    alarm: Any = None
    """The handler in whose place ours waits for the end of an import."""
    kept = ""
    """What the last line says of unfinished work."""


_state = _State()


def install() -> None:
    """Handle SIGINT and SIGTERM from now on; does nothing outside of the main thread."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, _handle)


def uninstall() -> None:
    """Python's own handlers again; what came is forgotten."""
    _state.asked, _state.interrupted, _state.kept = None, False, ""
    _forget_alarm()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _handle(number: int, frame: FrameType | None) -> None:
    again = _state.asked is not None
    _state.asked = _state.asked or number
    if again:
        # Should what is left to do hang as well, a third signal ends the process.
        for one in SIGNALS:
            signal.signal(one, signal.SIG_DFL)
    elif _state.finishing:
        return
    elif _ALARM is not None and _importing(frame):
        _state.alarm = signal.signal(_ALARM, _look_again)
        signal.setitimer(signal.ITIMER_REAL, _SHORTLY)
        return
    _interrupt()


def _look_again(_: int, frame: FrameType | None) -> None:
    """Interrupt what is running, if an import no longer is."""
    if _importing(frame):
        signal.setitimer(signal.ITIMER_REAL, _SHORTLY)
    elif not _state.finishing:
        _interrupt()


def _interrupt() -> None:
    _forget_alarm()
    _state.interrupted = True
    raise Stopped


def _forget_alarm() -> None:
    if _ALARM is not None and _state.alarm is not None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(_ALARM, _state.alarm)
        _state.alarm = None


def _importing(frame: FrameType | None) -> bool:
    """Whether an import is running: one that is cut in two may end the process, or swallow the stop.

    Compiled modules call Python while they are made; what is raised there some of them take for their
    own, and others end with abort().
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def finishing() -> Iterator[None]:
    """Within, the first signal only makes `asked` true: the loop stops where nothing is lost."""
    _state.finishing += 1
    try:
        yield
    finally:
        _state.finishing -= 1


def asked() -> bool:
    """Whether a signal has come."""
    return _state.asked is not None


def interrupted() -> bool:
    """Whether a signal broke into something: then what fails, fails for that.

    An import that is cut in two ends in an ImportError, and libraries turn what they don't know into
    errors of their own.
    """
    return _state.interrupted


def stop_if_asked(kept: str = "") -> None:
    """Stop here if a signal has come; `kept` is said of what is not finished yet.

    Raises:
        Stopped: it has.
    """
    if asked():
        _state.kept = kept or _state.kept
        _forget_alarm()
        raise Stopped


def last_words() -> tuple[int, str, str]:
    """The exit code (130, or 143 after SIGTERM), the signal's name, and what is kept."""
    number = _state.asked or signal.SIGINT
    name = "SIGTERM" if number == signal.SIGTERM else "Ctrl-C"
    return 128 + number, name, _state.kept


def farewell(arguments: list[str]) -> int:
    """Say how to go on, without a token that was given; returns the exit code."""
    _forget_alarm()
    for number in SIGNALS:  # one more could only cut these words
        signal.signal(number, signal.SIG_IGN)
    code, name, kept = last_words()
    command = shlex.join(["ragtune", *map(hide, arguments)])
    sys.stderr.write(
        f"\nStopped by {name}. {kept or 'What is finished is kept.'} "
        f"The same command goes on: {command}\n"
    )
    return code
