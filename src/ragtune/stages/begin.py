"""What a process that follows runs: it imports, as a command does, without looking for garbage, and follows."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable

from ragtune.base.garbage import importing
from ragtune.base.sparing import import_ahead


def main() -> None:
    """Follow the process that started this one; an argument says that bitsandbytes will be needed."""
    follow = _imported()
    if sys.argv[1:]:
        import_ahead()  # only now: it needs some of the same libraries
    follow()


def _imported() -> Callable[[], None]:
    with importing():
        follow: Callable[[], None] = importlib.import_module("ragtune.stages.follow").main
    return follow


if __name__ == "__main__":
    main()
