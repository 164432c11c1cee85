"""Trying a template where it can be stopped: in a process of its own, with limits of time and memory.

A thread can't be killed, and what a template computes within one filter or operator can't be counted:
so a stranger's template is rendered there first, and here only when it has come to an end there.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import jinja2
import markupsafe

from ragtune.base.errors import RagtuneError
from ragtune.base.screen.console import warn
from ragtune.base.secrets import environment_without_secrets
from ragtune.data import template as program

SECONDS = 2.0
"""Of computing that a template may take for all that is tried at once; where that isn't measured
(Windows), five times as much on the clock."""
_START = 60
"""Seconds that a new process may take to begin, on the slowest disk; and no longer is waited for anything."""
RENDERING = 10.0
"""Seconds that one rendering in this process may take."""
_LOOK = 0.5
"""Seconds between two looks at what is rendered."""
_STOPPED = {-1, *(getattr(signal, name, -1) for name in ("SIGALRM", "SIGXCPU", "SIGKILL"))}
"""How the process ends where a limit of time ends it: by the system, or by `faulthandler` (exit code 1)."""
SAMPLE = "The 42 words; 富士山は日本の山である。 <b>Q</b>\n\n" * 40
"""A text of some 1,600 characters, for a template that is tried before there are data."""
_known: dict[str, str | None] = {}
"""What was found of a template and examples, by their digest: a run tries each once."""
_lock = threading.Lock()
_deadlines: dict[int, float] = {}
"""Of each thread that renders, till when it may."""
_watching = threading.Event()


class TooLongError(Exception):
    """A rendering in this process went on for too long."""

    def __str__(self) -> str:
        return f"it goes on for more than {RENDERING:g} s"


def refused(text: str, examples: Sequence[dict[str, object]], *, chat: bool = False) -> str | None:
    """Why a template must not be rendered in this process; None if it may be.

    Args:
        text: of the template.
        examples: what it is given, one rendering after the other; JSON values.
        chat: whether it is a chat template, as transformers renders them.

    Raises:
        RagtuneError: no process can be started.
    """
    task = {"template": text, "examples": [*examples], "chat": chat, "seconds": SECONDS}
    data = json.dumps(task, default=str).encode()
    key = hashlib.sha256(data).hexdigest()
    if key not in _known:
        _known[key] = _tried(data)
    return _known[key]


def _tried(task: bytes) -> str | None:
    if getattr(sys, "frozen", False) or not sys.executable:
        warn("Templates can't be tried in a process of their own here: this program is no Python.")
        return None
    begin = "import runpy, sys; sys.path += sys.argv[2:]; runpy.run_path(sys.argv[1], run_name='__main__')"
    libraries = {str(Path(module.__file__ or "").parents[1]) for module in (jinja2, markupsafe)}
    command = [sys.executable, "-I", "-S", "-c", begin, program.__file__, *sorted(libraries)]
    try:
        done = subprocess.run(  # noqa: S603 - this Python, and a file of ours
            command,
            input=task,
            capture_output=True,
            check=False,
            timeout=_START,
            env=environment_without_secrets(),
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except subprocess.TimeoutExpired:
        return f"it goes on for more than {_START} s"
    except OSError as error:
        raise _unstarted(str(error)) from None
    ready, _, found = done.stdout.decode("utf-8", "replace").partition("\n")
    said = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
    if ready.strip() != program.READY:
        raise _unstarted(said)
    if found.strip():
        problem: str | None = json.loads(found)
        return problem
    if said or -done.returncode not in _STOPPED:
        return f"it ends Python itself ({said or done.returncode})"
    return f"it goes on for more than {SECONDS:g} s"


def _unstarted(why: str) -> RagtuneError:
    return RagtuneError(
        f"A template is tried in a process of its own, and {sys.executable} can't be started: {why}",
        "Is that a whole Python, with its standard library? Then is there memory for one more process?",
    )


# Within this process.


@contextmanager
def limited() -> Iterator[None]:
    """Stop what this thread does if it takes too long, with a TooLongError.

    Python raises it between two steps of its own: a single operator or filter comes to its end first.
    """
    thread = threading.get_ident()
    _begin(thread)
    try:
        yield
    finally:
        with _lock:
            _deadlines.pop(thread, None)


def _begin(thread: int) -> None:
    with _lock:
        _deadlines[thread] = time.monotonic() + RENDERING
        if not _watching.is_set():  # a timer for each rendering took as long as the rendering
            _watching.set()
            threading.Thread(target=_watch, name="templates", daemon=True).start()


def _watch() -> None:
    """Look at the renderings, as long as there are some."""
    while True:
        time.sleep(_LOOK)
        with _lock:
            late = [one for one, end in _deadlines.items() if time.monotonic() > end]
            for thread in late:
                del _deadlines[thread]
                raised = ctypes.py_object(TooLongError)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)
            if not _deadlines:
                _watching.clear()
                return
