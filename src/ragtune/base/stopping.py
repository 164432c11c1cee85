"""Stopping on Ctrl-C, SIGTERM or a lost output: at once, or where nothing is lost, which is said at once.

Handlers are put in place by the command line alone. In a notebook Ctrl-C is Python's own.
"""

from __future__ import annotations

import _thread
import contextlib
import errno
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, ClassVar

from ragtune.base.commands import command_line
from ragtune.base.screen.output import complain, interject
from ragtune.base.secrets import hide

_BREAK = getattr(signal, "SIGBREAK", None)
"""Of Windows: Ctrl-Break, and the end of the window or of the session."""
SIGNALS = (signal.SIGINT, signal.SIGTERM) + ((_BREAK,) if _BREAK else ())
_ALARM = getattr(signal, "SIGALRM", None)  # Windows has none
_NO_READER = (errno.EPIPE, errno.EINVAL)  # Windows says EINVAL
_LIKE_SIGPIPE = 128 + 13
_LEAVE_NOTHING = ("ask", "demo", "serve")
"""Commands that keep nothing to go on with: they answer, until they are stopped."""
_SHORTLY = 0.05
"""Seconds between two looks whether what can't be cut in two is done."""
_LONGEST = 10.0
"""Seconds in which a line has to be written that a thread writes."""
_UNCUT = "what can't be cut in two, as a library that is being loaded, is finished first"


class Stopped(KeyboardInterrupt):
    """The user, or the system, asked to stop."""


class _State:
    asked: int | None = None
    """The signal that came."""
    heard = False
    """Whether it came to this process itself, so that one more is the second."""
    interrupted = False
    """Whether it broke into whatever was running then."""
    finishing: ClassVar[list[str]] = []
    """Of each loop that is running and comes to a stop by itself what it does first; the innermost last."""
    looks: ClassVar[list[tuple[int, Callable[[], None]]]] = []
    """What looks for another reason to stop, and in which thread."""
    said: threading.Event | None = None
    """Set when it was said that a signal came, and what is done first."""
    alarm: Any = None
    """The handler in whose place ours waits for the end of what can't be cut in two."""
    hook: Callable[[sys.UnraisableHookArgs], object] | None = None
    """Who was told, in the place of ours, of what C code ignored."""
    kept = ""
    """What the last line says of unfinished work."""
    output: OSError | None = None
    """Why standard output can't be written any more."""


_state = _State()


def install() -> None:
    """Handle SIGINT and SIGTERM from now on; does nothing outside of the main thread."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, _handle)
        if _ALARM is not None and sys.unraisablehook is not _ignored:
            _state.hook, sys.unraisablehook = sys.unraisablehook, _ignored


def uninstall() -> None:
    """Python's own handlers again; what came is forgotten."""
    _wait_until_said()
    _state.asked, _state.interrupted, _state.kept, _state.output = None, False, "", None
    _state.heard = False
    _forget_alarm()
    if threading.current_thread() is threading.main_thread():
        if _state.hook is not None:
            sys.unraisablehook, _state.hook = _state.hook, None
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in SIGNALS[1:]:
            signal.signal(number, signal.SIG_DFL)


def _handle(number: int, frame: FrameType | None) -> None:
    again, _state.heard = _state.heard, True
    _state.asked = _state.asked or number
    if again:
        # Should what is left to do hang as well, a third signal ends the process.
        for one in SIGNALS:
            signal.signal(one, signal.SIG_DFL)
    elif _state.finishing:
        _say(number, _state.finishing[-1])
        return
    elif _ALARM is not None and _in_the_middle(frame):
        _say(number, _UNCUT)
        _interrupt_shortly()
        return
    _interrupt()


def _say(number: int, first: str) -> None:
    """Say that a signal was heard, and what is done first, if that takes its time.

    By a thread: the handler may have broken into what is writing just now, and would wait for it forever.
    `threading` has locks of that kind as well.
    """
    if not first:
        return
    line = f"{_named(number)} was heard: {first}. A second one stops at once."
    said = _state.said = threading.Event()

    def say() -> None:
        try:
            interject(line)
        finally:
            said.set()

    try:
        _thread.start_new_thread(say, ())
    except RuntimeError:  # the system refuses a thread: the last words still come
        said.set()


def _wait_until_said() -> None:
    if _state.said is not None:
        _state.said.wait(_LONGEST)
        _state.said = None


def output_lost(error: OSError) -> None:
    """Stop as on a signal, since nobody reads on or the disk behind standard output is full."""
    _state.output = _state.output or error
    _state.asked, _state.heard = _state.asked or signal.SIGTERM, True
    here = threading.current_thread() is threading.main_thread()  # bars are drawn by another
    if here and not _state.finishing and not _state.interrupted:
        _interrupt()


def _interrupt_shortly() -> None:
    if _ALARM is not None:  # else nobody would be here
        if _state.alarm is None:
            _state.alarm = signal.signal(_ALARM, _look_again)
        # Again and again: what comes just as Python begins to wait it hears only when the wait is over.
        signal.setitimer(signal.ITIMER_REAL, _SHORTLY, _SHORTLY)


def _ignored(what: sys.UnraisableHookArgs) -> None:
    """Told of what C code ignored that had called Python: a stop comes again, and is no more than that."""
    if not isinstance(what.exc_value, Stopped):
        if _state.hook is not None:
            _state.hook(what)
    elif threading.current_thread() is threading.main_thread():
        _interrupt_shortly()


def _look_again(_: int, frame: FrameType | None) -> None:
    """Interrupt what is running, if that can be cut in two by now."""
    if _in_the_middle(frame):
        return
    if not _state.finishing or signal.getsignal(signal.SIGINT) == signal.SIG_DFL:  # a second one
        _interrupt()
    _forget_alarm()


def _interrupt() -> None:
    _forget_alarm()
    _state.interrupted = True
    raise Stopped


def _forget_alarm() -> None:
    if _ALARM is not None and _state.alarm is not None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(_ALARM, _state.alarm)
        _state.alarm = None


def _in_the_middle(frame: FrameType | None) -> bool:
    """Whether something runs that can't be cut in two: it would swallow the stop, or end the process.

    Imports: compiled modules call Python while they are made; what is raised there some of them take for
    their own, and others end with abort(). And an object's end, in which Python ignores what is raised.
    """
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith("<frozen importlib") or code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def finishing(first: str = "") -> Iterator[None]:
    """Within, the first signal only makes `asked` true: the loop stops where nothing is lost.

    Args:
        first: what is done before it stops, for who presses Ctrl-C: "this step is finished first". Nothing
            is said of what takes no time.
    """
    _state.finishing.append(first)
    try:
        yield
    finally:
        _state.finishing.remove(first)


def asked() -> bool:
    """Whether a signal has come."""
    return _state.asked is not None


def ask() -> None:
    """Stop here as well: a signal came to another process of this run, and may come to this one yet."""
    _state.asked = _state.asked or signal.SIGTERM


def interrupted() -> bool:
    """Whether a signal broke into something: then what fails, fails for that.

    An import that is cut in two ends in an ImportError, and libraries turn what they don't know into
    errors of their own.
    """
    return _state.interrupted


def stop_if_asked(kept: str = "") -> None:
    """Stop here if a signal has come; `kept` is said of what is not finished yet.

    Raises:
        Stopped: it has. Else what those raise who look for something else (`stopping_for`).
    """
    if asked():
        _state.kept = kept or _state.kept
        _forget_alarm()
        raise Stopped
    for thread, look in [*_state.looks]:
        if thread == threading.get_ident():  # what is done in another one may go on
            look()


@contextlib.contextmanager
def stopping_for(look: Callable[[], None]) -> Iterator[None]:
    """Within, `stop_if_asked` in this thread calls `look`, too: it raises where it finds a reason to."""
    entry = threading.get_ident(), look
    _state.looks.append(entry)
    try:
        yield
    finally:
        _state.looks.remove(entry)


def last_words() -> tuple[int, str, str]:
    """The exit code (130, or 143 after SIGTERM), the signal's name, and what is kept."""
    number = _state.asked or signal.SIGINT
    return 128 + number, _named(number), _state.kept


def _named(number: int) -> str:
    return {signal.SIGTERM: "SIGTERM", _BREAK: "Ctrl-Break"}.get(number, "Ctrl-C")


def farewell(arguments: list[str]) -> int:
    """Say how to go on, without a token that was given; returns the exit code.

    That is 141 and nothing is said if who read the output went away (as head does), 1 if the output failed.
    """
    _forget_alarm()
    for number in SIGNALS:  # one more could only cut these words
        signal.signal(number, signal.SIG_IGN)
    _wait_until_said()
    code, name, kept = last_words()
    why = f"Stopped by {name}."
    if _state.output is not None:
        if _state.output.errno in _NO_READER:
            return _LIKE_SIGPIPE
        code, why = 1, f"Stopped: standard output can't be written ({_state.output.strerror})."
    if next((one for one in arguments if not one.startswith("-")), "") in _LEAVE_NOTHING:
        complain(f"\n{' '.join(filter(None, (why, kept)))}\n")
        return code
    command = command_line("ragtune", *map(hide, arguments))
    complain(f"\n{why} {kept or 'What is finished is kept.'} The same command goes on: {command}\n")
    return code
