"""What a command does before anything large is imported: it reads its recipe, and has other processes begin.

Those import, and a thread reads the model's files, while this one imports. Read by every command, it loads no
torch; and what reads recipes only when a command begins.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.text import one_or_many
from ragtune.base.threads import cores
from ragtune.distributed.followers import Followers, early, followers_of
from ragtune.distributed.place import VISIBLE, take_place

if TYPE_CHECKING:
    from ragtune.recipe.schema import Recipe

P = ParamSpec("P")
_DEVICES = Path("/dev")
_FOLLOW, _AHEAD = "ragtune.stages.begin", "ahead"
"""What they run, and what they are told where bitsandbytes will be needed."""


def shared(made: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """A command of the command line whose work the ranks share: they begin before anything large is imported.

    `Ranks` takes them, or ends them; what it doesn't find it starts, later. Whoever isn't needed ends without a
    word, at the latest with the command.

    Args:
        made: what it makes, below the run directory. Where that is there, there may be nothing to share.
    """

    def of(command: Callable[P, None]) -> Callable[P, None]:
        @wraps(command)
        def begun(*arguments: P.args, **named: P.kwargs) -> None:
            given, found = _given(command, *arguments, **named), None
            if take_place() is None:  # what a launcher started is there
                recipe, folder = _read(given)
                if not (folder / "data").is_dir():
                    _read_ahead(recipe)
                if given.get("predictions") is None:  # answers of a file are only counted
                    found = _foreseen(recipe, folder, made)
            with early(*found) if found else nullcontext():
                command(*arguments, **named)

        return begun

    return of


def read_first(command: Callable[P, None]) -> Callable[P, None]:
    """A command that says what is wrong with its recipe before anything large is imported."""

    @wraps(command)
    def begun(*arguments: P.args, **named: P.kwargs) -> None:
        _read(_given(command, *arguments, **named))
        command(*arguments, **named)

    return begun


def found_first(command: Callable[P, None]) -> Callable[P, None]:
    """A command on what a run left: that there is none, it says before anything large is imported."""

    @wraps(command)
    def begun(*arguments: P.args, **named: P.kwargs) -> None:
        from ragtune.stages.target import require_run  # noqa: PLC0415 - as the module says

        require_run(*_named(_given(command, *arguments, **named)))
        command(*arguments, **named)

    return begun


def _given(command: Callable[P, None], *arguments: P.args, **named: P.kwargs) -> dict[str, Any]:
    return signature(command).bind(*arguments, **named).arguments


def _read(given: Mapping[str, Any]) -> tuple[Recipe, Path]:
    """The recipe that a command names, and the directory of its run. Raises as `find_recipe` does."""
    from ragtune.stages.target import find_recipe  # noqa: PLC0415 - as the module says

    return find_recipe(*_named(given))


def _named(given: Mapping[str, Any]) -> tuple[str, Sequence[str], Path | None]:
    return given["target"], given.get("overrides") or (), given.get("run_dir")


def _read_ahead(recipe: Recipe) -> None:
    """Begin to make the checksums of the model's files, for the first stage: gigabytes take many seconds."""
    from ragtune.store.inputs import read_ahead  # noqa: PLC0415 - as the module says

    read_ahead(recipe)


def _foreseen(
    recipe: Recipe, folder: Path, made: str
) -> tuple[list[int], str, *tuple[str, ...]] | None:
    """What `early` is given, if that is known by now: where something is wrong, the command will say it."""
    with suppress(RagtuneError, OSError):
        devices = numbered(recipe.devices, _gpus_seen())
        # More than there are processors would keep this process from its own imports.
        several = 1 < len(devices) <= cores()
        if several and recipe.evaluate.engine == "local" and not any(folder.glob(made)):
            return devices, _FOLLOW, *_told(recipe)
    return None


def _gpus_seen() -> int:
    """The GPUs that this process sees, as the system and the environment say it; 0 where that isn't sure."""
    there = len([*_DEVICES.glob("nvidia[0-9]*")])
    names = os.environ.get(VISIBLE)
    if names is None:
        return there
    numbers = names.split(",")
    sure = len({one for one in numbers if one.isdecimal()}) == len(numbers) <= there
    return len(numbers) if sure else 0


def followers_for(recipe: Recipe, devices: Sequence[int]) -> Followers:
    """The processes beside this one; they may have begun already."""
    return followers_of(devices, _FOLLOW, *_told(recipe))


def _told(recipe: Recipe) -> list[str]:
    return [_AHEAD] * needs_bitsandbytes(recipe)


def needs_bitsandbytes(recipe: Recipe) -> bool:
    """Whether a run that passed its check will import it."""
    return recipe.model.quantization == "nf4" or recipe.train.optimizer != "adamw"


def numbered(asked: str | int | list[int], there: int) -> list[int]:
    """The GPUs that `devices` asks for, by number; on a CPU the processes.

    Args:
        asked: `all`, how many, or which.
        there: how many there are; 0 on a CPU.

    Raises:
        UsageError: there are no such GPUs.
    """
    if asked == "all":
        return list(range(max(1, there)))
    wanted = list(range(asked)) if isinstance(asked, int) else [*asked]
    if len(set(wanted)) < len(wanted):
        raise UsageError(f"devices: {asked} names a GPU twice.", "Name each once.")
    if there and not set(wanted) <= set(range(there)):
        raise UsageError(
            f"devices: {asked}, and this machine has {one_or_many(there, 'GPU')}.",
            f"Name at most {there}, or a list of numbers from 0 to {there - 1}.",
        )
    return wanted
