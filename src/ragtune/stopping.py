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
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """The user, or the system, asked to stop."""


class _State:
    asked: int | None = None
    """The signal that came."""
    interrupted = False
    """Whether it broke into whatever was running then."""
    finishing = 0
    """How many loops are running that come to a stop by themselves."""
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
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _handle(number: int, _: Any) -> None:
    again = _state.asked is not None
    _state.asked = _state.asked or number
    if again:
        # Should what is left to do hang as well, a third signal ends the process.
        for one in SIGNALS:
            signal.signal(one, signal.SIG_DFL)
    if again or not _state.finishing:
        _state.interrupted = True
        raise Stopped


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
        raise Stopped


def last_words() -> tuple[int, str, str]:
    """The exit code (130, or 143 after SIGTERM), the signal's name, and what is kept."""
    number = _state.asked or signal.SIGINT
    name = "SIGTERM" if number == signal.SIGTERM else "Ctrl-C"
    return 128 + number, name, _state.kept


def farewell(arguments: list[str]) -> int:
    """Say how to go on; returns the exit code."""
    for number in SIGNALS:  # one more could only cut these words
        signal.signal(number, signal.SIG_IGN)
    code, name, kept = last_words()
    command = shlex.join(["ragtune", *arguments])
    sys.stderr.write(
        f"\nStopped by {name}. {kept or 'What is finished is kept.'} "
        f"The same command goes on: {command}\n"
    )
    return code
