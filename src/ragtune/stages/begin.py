"""What a process that follows runs: it imports, as a command does, without looking for garbage, and follows.

Who started it may be importing as well: the port of its store comes over standard input. Should that end first,
nobody is there to be followed.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue

from ragtune.base.garbage import begin, importing
from ragtune.base.leaving import leaving_threads
from ragtune.base.sparing import import_ahead

_LONGEST = 64
"""Bytes of what is told: a number."""


@leaving_threads()
def main() -> None:
    """Follow the process that started this one; an argument says that bitsandbytes will be needed."""
    begin()
    told: SimpleQueue[int] = SimpleQueue()
    threading.Thread(target=_listen, args=(told,), name="listening", daemon=True).start()
    follow = _imported()
    if sys.argv[1:]:
        import_ahead()  # only now: it needs some of the same libraries
    follow(told.get())


def _listen(told: SimpleQueue[int]) -> None:
    line = os.read(0, _LONGEST)
    if not line:
        os._exit(0)  # in the middle of an import: there is nothing to lose
    told.put(int(line))


def _imported() -> Callable[[int], None]:
    with importing():
        follow: Callable[[int], None] = importlib.import_module("ragtune.stages.follow").main
    return follow


if __name__ == "__main__":
    main()
