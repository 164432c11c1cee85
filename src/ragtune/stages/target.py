"""What a command names: a recipe or a run, and the directory of the run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ragtune.base.errors import UsageError
from ragtune.recipe.load import load_recipe
from ragtune.recipe.schema import Recipe

Target = str | Path | dict[str, object] | Recipe


def find_recipe(
    target: Target, overrides: Sequence[str] = (), run_dir: str | Path | None = None
) -> tuple[Recipe, Path]:
    """The recipe that a target names, changed, and the directory of its run."""
    folder = None
    if isinstance(target, (str, Path)) and (Path(target) / "recipe.yaml").is_file():
        folder = Path(target)
        target = folder / "recipe.yaml"
    recipe = load_recipe(target, list(overrides))
    if folder and any(one.startswith("name=") for one in overrides):
        folder = folder.parent / recipe.name  # another name is another run
    return recipe, Path(run_dir or folder or Path("runs") / recipe.name)


def require_run(
    target: Target, overrides: Sequence[str] = (), run_dir: str | Path | None = None
) -> None:
    """Require that the run that `find_recipe` finds is there.

    Raises:
        UsageError: it isn't.
    """
    _, folder = find_recipe(target, overrides, run_dir)
    if not folder.is_dir():
        raise UsageError(
            f"{folder} does not exist: there is no such run yet.",
            "Run `ragtune run` first, or name the run's directory.",
        )


def names_set(overrides: Sequence[str]) -> bool:
    """Whether a command names its evaluation set."""
    return any(one.partition("=")[0].strip() == "data.eval" for one in overrides)
