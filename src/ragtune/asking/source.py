"""What a command names to be asked, or searched: is it there, or on the Hub? Said before torch is loaded."""

from __future__ import annotations

import re
from pathlib import Path

from ragtune.base.disk import named_path
from ragtune.base.errors import UsageError
from ragtune.recipe.load import did_you_mean

RECIPE = "recipe.yaml"
"""What the directory of a run has."""
SETTINGS, SHELF = "corpus.yaml", "corpus.sqlite"
"""What the folder of a corpus has."""
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


def require_there(source: str | Path) -> Path:
    """The path of what may be a run or what `push` sent, here; or on the Hub, if it can be of it.

    Raises:
        UsageError: it is neither.
    """
    path = named_path(str(source))
    if path.exists() or is_of_hub(path):
        return path
    raise UsageError(
        f"{path} does not exist.{did_you_mean(path)}",
        "Name the directory of a run, such as runs/NAME, or what `ragtune push` sent: owner/name of the Hub.",
    )


def is_of_hub(path: Path) -> bool:
    """Whether what isn't here may be a model of the Hub: owner/name, and no folder is called owner."""
    return bool(HUB_ID.fullmatch(path.as_posix())) and not path.parent.is_dir()


def require_corpus(folder: str | Path) -> Path:
    """The folder that `ragtune build` wrote.

    Raises:
        UsageError: there is none.
    """
    path = named_path(str(folder))
    if all((path / name).is_file() for name in (SETTINGS, SHELF)):
        return path
    raise UsageError(
        f"{path} {'holds no corpus' if path.is_dir() else 'does not exist'}.",
        "Name the folder that `ragtune build` wrote, such as corpora/NAME.",
    )
