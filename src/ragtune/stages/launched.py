"""A command in processes that a launcher started: rank 0 does it, the others do what it tells them.

Read by every command, it loads torch only where there is a launcher.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress

from ragtune.base.errors import UsageError
from ragtune.base.screen.output import silent
from ragtune.distributed.place import asked_to_tell, take_place

Code = int | str | None
"""An exit code, as `sys.exit` takes it."""


def as_rank(command: Callable[[], Code]) -> Code:
    """Do a command, and return its exit code; or follow the rank that does it, and end as that one does.

    Raises:
        SystemExit: the rank that was followed has ended, and has said what there was to say.
        UsageError: what a launcher left in the environment makes no sense, or rank 0 can't be reached.
        LostError: rank 0 is gone.
    """
    place = take_place()
    if place is None or place.rank == 0:
        return command()
    from ragtune.stages.follow import follow  # noqa: PLC0415 - it loads torch

    with silent(but_libraries=asked_to_tell()):
        sys.exit(follow(place))


def dismiss(code: Code) -> None:
    """Let the other ranks, if a launcher started any, end with the exit code of rank 0."""
    with suppress(UsageError):  # it was said
        place = take_place()
        if place and place.rank == 0:
            from ragtune.stages.ranks import dismiss  # noqa: PLC0415 - it loads torch

            dismiss(place, code if isinstance(code, int) else int(bool(code)))
