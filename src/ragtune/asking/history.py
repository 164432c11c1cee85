"""The questions that were typed before, for the arrow keys: in a file of the user's, as shells keep theirs."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from pathlib import Path

_KEPT = 1000
"""Lines."""


@contextlib.contextmanager
def history() -> Iterator[None]:
    """Within, `input` has the lines typed before, now and in earlier sessions; at the end they are kept.

    Where Python has no readline (on Windows), or the file can't be read or written, it does without.
    """
    try:
        readline = importlib.import_module("readline")
    except ImportError:
        yield
        return
    path = _file()
    with contextlib.suppress(OSError):
        if path.is_file():
            readline.read_history_file(str(path))
    readline.set_history_length(_KEPT)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            # What was asked is nobody else's business.
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
            readline.write_history_file(str(path))


def _file() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "ragtune" / "ask-history"
