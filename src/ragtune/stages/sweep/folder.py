"""The folder of a sweep: where its data, recipes, runs and figures lie, and whose they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from ragtune.base.errors import UsageError
from ragtune.base.files import read_if_whole, read_json, write_json
from ragtune.base.lock import NAMES as LOCKS
from ragtune.data.apart import copy_evaluation, hold_apart
from ragtune.recipe.load import save
from ragtune.recipe.schema import Model, Recipe
from ragtune.stages.sweep.grid import Point
from ragtune.stages.twins import SWEEP
from ragtune.store.changes import part_of, with_part
from ragtune.store.folder import require_own_files
from ragtune.store.inputs import contents
from ragtune.store.proof import fingerprint

_SPLIT_BY = ("seed", "data.train", "data.source", "data.format", "data.fields")
"""What it depends on which questions are held apart."""
_EVALUATION = ("data.eval", "data.source", "data.format", "data.fields")
"""What it depends on which questions the evaluation set has."""
_COUNTS = ("train", "held", "left_out")


class SweepFolder:
    """The paths of a sweep."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.about = path / SWEEP
        self.train = path / "data" / "train.jsonl"
        self.held = path / "data" / "held.jsonl"
        self.runs = path / "runs"
        self.results = path / "results.json"
        self.report = path / "report.html"
        self.best = path / "best.yaml"

    def recipe(self, run: str) -> Path:
        return self.path / "recipes" / f"{run}.yaml"

    def log(self, run: str) -> Path:
        return self.path / "logs" / f"{run}.log"

    def reached(self, run: str, what: str) -> Path:
        """What says where a run's answers lie, at a share of its steps or to the evaluation set."""
        return self.path / "reached" / f"{run}-{what}.json"

    def require_ours(self) -> None:
        """Raise unless what lies here was made by a sweep, or nothing does.

        Raises:
            UsageError: somebody else's files, a link among them.
        """
        files = (self.about, self.results, self.report, self.best, *(self.path / n for n in LOCKS))
        folders = [self.path / name for name in ("data", "recipes", "logs", "reached", "runs")]
        require_own_files(files, folders, "sweep")
        there = {one.name for one in self.path.iterdir()} if self.path.is_dir() else set()
        if (
            there - {*LOCKS, "data"} and self.about.name not in there
        ):  # data: a stop came while it was split
            raise UsageError(
                f"{self.path} holds other things than a sweep.",
                "Choose another folder with --folder.",
            )

    def prepare(self, recipe: Recipe) -> dict[str, int]:
        """Have the data, held apart as they were when the sweep began; returns how many there are.

        Raises:
            UsageError: the sweep here is of other data, or of another seed.
        """
        of = _fingerprint(recipe, _SPLIT_BY, "data.train")
        known = read_json(self.about) if self.about.exists() else {}
        if known and known.get("of") != of:
            raise UsageError(
                f"The sweep in {self.path} is of other training data, or of another seed.",
                "Choose another folder with --folder: figures of both can't stand in one table.",
            )
        if not known:
            self.train.parent.mkdir(parents=True, exist_ok=True)
            counts = hold_apart(recipe.data, recipe.seed, self.train, self.held)
            known = {
                "of": of,
                "train": counts.train,
                "held": counts.held,
                "left_out": counts.left_out,
            }
            write_json(self.about, known)
        return _counts(known)

    def counts(self) -> dict[str, int]:
        """How many examples are trained, held apart, and left out; {} where that is not known."""
        return _counts(read_if_whole(self.about))

    def copy_evaluation(self, recipe: Recipe) -> Path:
        """The recipe's evaluation set, in a file that every run can be asked.

        Another set, or the same file with other contents, has another name.
        """
        name = _fingerprint(recipe, _EVALUATION, "data.eval")[:10]
        path = self.path / "data" / f"dev-{name}.jsonl"
        if not path.exists():
            copy_evaluation(recipe.data, path)
        return path

    def taken_over(self, points: Sequence[Point]) -> list[Point]:
        """The points, each under the name that its runs have here, by whatever keys they were tried then."""
        there: dict[str, str] = {}
        for run in sorted(self.runs.glob("*_seed-*")):
            name = run.name.rpartition("_seed-")[0]
            there.setdefault(name.rpartition("_")[2], name)
        return [replace(point, known_as=there.get(point.key, "")) for point in points]

    def dtype_of(self, model: Model) -> str | None:
        """The dtype that all runs of a model have, where it was measured when the sweep began."""
        found = read_json(self.about).get("dtypes", {}).get(_named(model))
        return str(found) if found else None

    def keep_dtype(self, model: Model, dtype: str) -> None:
        """Let all runs of a model have a dtype, also when the sweep goes on."""
        known = read_json(self.about)
        write_json(
            self.about, {**known, "dtypes": {**known.get("dtypes", {}), _named(model): dtype}}
        )

    def settled(self, recipe: Recipe) -> Recipe:
        """The recipe with the dtype that was measured for it when the sweep began, if one was."""
        dtype = self.dtype_of(recipe.model) if recipe.model.dtype == "auto" else None
        return with_part(recipe, {"model.dtype": dtype}) if dtype else recipe

    def recipe_of(self, run: str, point: Point, seed: int) -> Recipe:
        """The recipe of a run: the point's, over the data of the sweep."""
        values = self.settled(point.recipe).model_dump(mode="json")
        values["name"], values["seed"], values["devices"] = run, seed, 1
        values["data"] |= {
            "source": None, "train": str(self.train), "eval": str(self.held), "format": "records", "fields": {},
        }  # fmt: skip
        values["publish"] |= {"repo": None}
        return Recipe.model_validate(values)

    def write_recipe(self, run: str, point: Point, seed: int) -> Path:
        """Write down the recipe of a run."""
        path = self.recipe(run)
        path.parent.mkdir(parents=True, exist_ok=True)
        save(self.recipe_of(run, point, seed), path)
        return path

    def answers_of(self, run: str, what: str) -> dict[str, JsonValue]:
        """Where a run's answers lie; {} where they don't."""
        file = self.reached(run, what)
        found = read_json(file) if file.exists() else {}
        there = {"answers", "questions"} <= found.keys() and (
            self.runs / run / str(found["answers"]) / "predictions.jsonl"
        ).is_file()
        return found if there else {}


def _named(model: Model) -> str:
    return f"{model.id}@{model.revision}" if model.revision else model.id


def _counts(about: dict[str, Any]) -> dict[str, int]:
    return {name: about[name] for name in _COUNTS if name in about}


def _fingerprint(recipe: Recipe, keys: tuple[str, ...], file: str) -> str:
    """Of the values of some keys, and of what the file on this machine holds that one of them names."""
    return fingerprint([part_of(recipe, keys), contents(recipe, (file,))])
