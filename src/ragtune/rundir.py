"""The run directory: where everything of a run lies, and what is finished."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
from pathlib import Path
from typing import Any

from ragtune.errors import UsageError
from ragtune.files import disk_errors, read_json, write_json
from ragtune.recipe import Recipe
from ragtune.recipe_file import load_recipe, save_recipe

_LIBRARIES = (
    "ragtune",
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "datasets",
    "huggingface_hub",
    "bitsandbytes",
    "liger-kernel",
    "triton",
)


class RunDir:
    """Paths and state of a run.

    Each stage's output appears under its name only when it is whole, so what is there is finished.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = path / "recipe.yaml"
        self.state = path / "run.json"
        self.data = path / "data"
        self.adapter = path / "adapter"
        self.comparison = path / "comparison.json"
        self.controls = path / "controls.json"
        self.report = path / "report.html"
        self.merged = path / "merged"
        self.work = path / "work"
        self.checkpoints = self.work / "checkpoints"

    def predictions(self, which: str) -> Path:
        """The folder of the answers before or after."""
        return self.path / which

    def verify(self, recipe: Recipe) -> None:
        """See that what the directory holds was made by this recipe.

        What `publish` says and where a server is may change at any time, and a served name until its
        first answer; anything else would mix two runs.

        Raises:
            UsageError: the directory holds results of another recipe.
        """
        results = (self.data, self.adapter, *map(self.predictions, ("before", "after")))
        if self.recipe.exists() and any(path.exists() for path in results):
            old = _flat(load_recipe(self.recipe).model_dump(mode="json"))
            new = _flat(recipe.model_dump(mode="json"))
            free = (
                "publish.",
                "name",
                "evaluate.endpoint",
                "evaluate.concurrency",
                *self._unasked(),
            )
            changed = [
                f"{key}: {old.get(key)!r} there, {new.get(key)!r} now"
                for key in sorted(old.keys() | new.keys())
                if old.get(key) != new.get(key) and not key.startswith(free)
            ]
            if changed:
                raise UsageError(
                    f"{self.path} holds a run of another recipe:\n  " + "\n  ".join(changed),
                    "Give this run its own directory (name=ANOTHER on the command line, or --run-dir), "
                    "or delete the old one.",
                )

    def _unasked(self) -> list[str]:
        """The keys of served names under which nothing was answered yet."""
        free = []
        for which in ("before", "after"):
            partial = self.work / f"{which}.jsonl"
            if not self.predictions(which).exists() and not (
                partial.exists() and partial.stat().st_size
            ):
                free.append(f"evaluate.served_{which}")
        return free

    def claim(self, recipe: Recipe) -> None:
        """Make the directory this recipe's. Raises as `verify` does."""
        self.verify(recipe)
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        save_recipe(recipe, self.recipe)
        if not self.state.exists():
            write_json(self.state, {"versions": versions()})

    def forget(self, *results: str) -> None:
        """Remove what later stages made of something that is made anew, unfinished work included."""
        state = self.read_state()
        for name in results:
            state.pop("merge" if name == "merged" else name, None)
            shutil.rmtree(self.path / name, ignore_errors=True)
            for path in (self.path / f"{name}.json", *self.work.glob(f"{name}*.jsonl")):
                path.unlink(missing_ok=True)
        if state:
            state.pop("format")
            write_json(self.state, state)

    def read_state(self) -> dict[str, Any]:
        return read_json(self.state) if self.state.exists() else {}

    def update(self, **values: Any) -> None:
        """Put values into run.json; a mapping is merged into the one that is there."""
        state = self.read_state()
        state.pop("format", None)
        for key, value in values.items():
            state[key] = {**state.get(key, {}), **value} if isinstance(value, dict) else value
        write_json(self.state, state)


def versions(*more: str) -> dict[str, str]:
    """The versions that a result may depend on; of `more` packages, if they are there."""
    found = {"python": platform.python_version()}
    for name in (*_LIBRARIES, *more):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            out |= _flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out
