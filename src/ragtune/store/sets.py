"""The evaluation sets of a run: what each is called, which are there, and which one is the run's own."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from pydantic import JsonValue

from ragtune.base.errors import RagtuneError
from ragtune.base.windows import is_reserved
from ragtune.recipe.load import load_recipe
from ragtune.recipe.schema import Recipe
from ragtune.store.inputs import Input
from ragtune.store.proof import NAME, fingerprint, read_proof
from ragtune.store.seal import difference


def set_name(recipe: Recipe) -> str:
    """What the recipe's evaluation set is called below eval/: by its file or dataset."""
    named = recipe.data.eval
    if named is None:
        return str(recipe.data.source)
    last = re.split(r"[/\\]", named.removeprefix("sample:").rstrip("/\\"))[-1]
    last = re.sub(r"(\.(jsonl?|ndjson|parquet|csv|tsv|xlsx|gz))+$", "", last, flags=re.IGNORECASE)
    name = re.sub(r"[^\w.-]+", "-", last).strip(".-") or "questions"
    return f"{name}-set" if is_reserved(name) else name


def find_set(run: Path, recipe: Recipe, *, named: bool = False) -> str:
    """What the recipe's evaluation set is called in a run directory.

    Where another file or dataset of its name was asked, `data.eval` tells the two apart: as a file, however
    its path is spelt.

    Args:
        run: its directory.
        recipe: that of the command.
        named: whether the command names `data.eval`, from the folder where it is given. A path in a recipe
            means the same set from everywhere.
    """
    name, asked = set_name(recipe), recipe.data.eval
    file = _file(asked)
    another = f"{name}-{fingerprint(str(file) if file else asked)[:6]}"
    there = [run / "eval" / name, *sorted(run.glob(f"eval/{name}-??????"))]
    for folder in there:
        known, then = _asked(folder)
        same = then == asked or (file and file in (_file(then), _lay(folder)))
        if known and same and not (named and file and _is_another(folder, file)):
            return folder.name
    return another if _asked(there[0])[0] else name


def sets_there(run: Path) -> dict[str, JsonValue]:
    """The `data.eval` of each evaluation set of a run, by the set's name."""
    found = {}
    for folder in sorted(run.glob("eval/*")):
        known, named = _asked(folder)
        if known:
            found[folder.name] = named
    return found


def own_set(run: Path) -> str | None:
    """The set with which a run's adapter was trained: recipe.yaml, run.json and report.html are of it.

    None where there is no adapter, or a damaged one.
    """
    with suppress(RagtuneError):
        proof = read_proof(run / "adapter")
        return proof.facts.get("chosen_by") if proof else None
    return None


def recipe_set(run: Path) -> str | None:
    """The set that a run's recipe.yaml names; None without one, or with one that can't be read."""
    with suppress(RagtuneError):
        return find_set(run, load_recipe(run / "recipe.yaml"))
    return None


def _file(asked: JsonValue) -> Path | None:
    """The file that a `data.eval` names from here, if it names one."""
    path = Path(asked).expanduser() if isinstance(asked, str) else None
    return path.resolve() if path and path.is_file() else None


def _questions_input(folder: Path) -> Input | None:
    with suppress(RagtuneError):
        proof = read_proof(folder / "questions")
        return proof.inputs.get("data.eval") if proof else None
    return None


def _lay(folder: Path) -> Path | None:
    """Where the file of a set lay, if that is known."""
    read = _questions_input(folder)
    return Path(read["absolute"]) if read and "absolute" in read else None


def _is_another(folder: Path, file: Path) -> bool:
    """Whether a file is not the one that a set was made of: that is still there, and holds something else."""
    read, lay = _questions_input(folder), _lay(folder)
    if not (read and lay and lay.is_file()) or lay == file:
        return False
    return difference(file, {file.name: next(iter(read["files"].values()))}) is not None


def _asked(folder: Path) -> tuple[bool, JsonValue]:
    """Whether it is known of which `data.eval` a set is, and that."""
    for path in sorted(folder.glob(f"*/{NAME}")):
        with suppress(RagtuneError):  # the others say it, too
            proof = read_proof(path.parent)
            if proof is not None and "data.eval" in proof.recipe:
                return True, proof.recipe["data.eval"]
    return False, None
