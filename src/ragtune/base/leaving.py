"""How a program is left that failed or was stopped: at once, where a thread is still at work."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ragtune.base.screen.output import flush


@contextmanager
def leaving_threads() -> Iterator[None]:
    """Around a whole program, which ends with what is within: what is still at work then is left as it is.

    What was broken off may have left a thread in the middle of an answer. Python takes itself apart beneath
    it, and before 3.14 unwinds its stack: C++ (torch) and Rust (pydantic) there end the process by abort(),
    in the place of its exit code. (Threads that are no daemons are waited for all the same.) What succeeded has
    waited for all that was begun.
    """
    code = 0

    def leave() -> None:
        if code and len(threading.enumerate()) > 1:
            with suppress(OSError, ValueError):  # nobody reads on, or it is closed
                flush()
            os._exit(code)

    atexit.register(leave)  # behind all that is registered within
    try:
        yield
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        raise
    except BaseException:  # whatever it is, Python ends with 1 for it, and shows it
        code = 1
        raise
