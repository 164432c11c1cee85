"""The run directory: where everything of a run lies, and what is finished."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import platform
import shlex
import shutil
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ragtune.base.console import note, warn
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.files import disk_errors, read_json, write_json
from ragtune.recipe.load import load_recipe, save_recipe
from ragtune.recipe.schema import Recipe
from ragtune.store.changes import (
    DEPENDS,
    PATHS,
    PLAN_FREE,
    SCORING,
    Change,
    flat,
    input_changes,
    recipe_changes,
    there,
)
from ragtune.store.seal import ASIDE, Files, checksums, difference, set_aside
from ragtune.store.state import RunState, forget_stages, forget_times

_LIBRARIES = ("ragtune", "torch", "transformers", "peft", "accelerate", "datasets", "huggingface_hub",
              "bitsandbytes", "liger-kernel", "triton")  # fmt: skip


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

    def made_by(self) -> Recipe | None:
        """The recipe by which the results were made; None where it is not known.

        run.json has it: recipe.yaml is a copy for people, who may change it.
        """
        with contextlib.suppress(RagtuneError):
            written = self.read_state().get("recipe")
            if written is not None:
                return load_recipe(written)
        return load_recipe(self.recipe) if self.recipe.exists() else None

    def changes(self, recipe: Recipe) -> list[Change]:
        """What of the recipe differs from that by which the directory's results were made."""
        old = self.made_by()
        if old is not None:
            return recipe_changes(self.path, old, recipe)
        stages = tuple(stage for stage in DEPENDS if there(self.path, stage))
        words = "nobody knows by which recipe these were made"
        return [Change(words, stages)] if stages else []

    def refuse(self, changes: list[Change]) -> None:
        """See that there are none.

        Raises:
            UsageError: there are; it says which stages are no longer valid, and why.
        """
        if changes:
            listed = [f"{one.words}: no longer valid: {', '.join(one.stages)}" for one in changes]
            raise UsageError(
                f"{self.path} holds results of another recipe, or of other files:\n  "
                + "\n  ".join(listed),
                "With --redo (of run, prepare, train, evaluate and merge) these stages are set aside in "
                f"{self.path}/old-N and made again. Or give this run its own directory: name=ANOTHER "
                "on the command line, or --run-dir.",
            )

    def see_ours(self) -> None:
        """See that nobody else's files are in the way: a run directory has a run.json.

        Raises:
            UsageError: there is none, and names that ragtune uses are taken.
        """
        if self.state.exists() or (self.path / "damaged-run.json").exists():
            return
        own = (self.recipe, self.report, self.comparison, *map(self.path.__truediv__, PATHS))
        found = [path.name for path in own if path.exists()]
        if found:
            raise UsageError(
                f"{self.path} holds {', '.join(found)} and no run.json: it is no run directory, and these "
                "may be somebody's own.",
                "Choose another directory with --run-dir; a recipe is named as a file, "
                "FOLDER/recipe.yaml. If it was a run, move what it holds away.",
            )

    def settle(self, recipe: Recipe, *, redo: bool, making: bool) -> bool:
        """Leave in the directory only what is whole and of this recipe; needs the lock.

        Args:
            recipe: the present one.
            redo: set aside what is no longer valid, instead of refusing.
            making: whether something may be made from the input files, so that they count as well.

        Returns:
            Whether something went.

        Raises:
            UsageError: something is no longer valid, and `redo` is false.
        """
        self.see_ours()
        if not (self.state.exists() or self.recipe.exists()):
            return False
        self._see_whole_state()
        went = self._set_retired_aside()  # of a --redo that was killed
        changes = self.changes(recipe)
        recorded = self.read_state().get("inputs", {})
        if making:
            changes += input_changes(self.path, recorded, recipe)
        if changes and not redo:
            self.refuse(changes)
        stages = {stage for one in changes for stage in one.stages}
        if stages:
            self.retire([stage for stage in DEPENDS if stage in stages])
        elif recorded:
            self.update(inputs=recorded)  # with the new times of files whose content is the same
        if self._differs(recipe, but=PLAN_FREE):
            self.pop("plan")
        damaged = self._set_damaged_aside()
        return went or bool(stages) or damaged

    def scored_otherwise(self, recipe: Recipe) -> bool:
        """Whether the recipe scores the answers that are there in another way, or may."""
        return "scoring" in self.read_state() or self._differs(recipe, only=SCORING)

    def _differs(
        self, recipe: Recipe, *, but: tuple[str, ...] = (), only: tuple[str, ...] = ("",)
    ) -> bool:
        made_by = self.made_by()
        if made_by is None:
            return False
        old, new = (flat(r.model_dump(mode="json")) for r in (made_by, recipe))
        keys = [k for k in old.keys() | new.keys() if old.get(k) != new.get(k)]
        return any(k.startswith(only) and not k.startswith(but) for k in keys)

    def pop(self, key: str) -> None:
        """Take a key out of run.json."""
        state = self.read_state()
        if key in state:
            del state[key]
            self._write(state)

    def _see_whole_state(self) -> None:
        """Set a damaged run.json aside, and begin another."""
        try:
            self.read_state()
        except RagtuneError as error:
            # The stages are of the recipe that recipe.yaml says, as far as anybody knows.
            made_by = load_recipe(self.recipe) if self.recipe.exists() else None
            set_aside(self.state, error.message)
            self._begin(made_by)

    def retire(self, stages: list[str]) -> None:
        """Move what stages made, with a copy of recipe and state, into old-1, old-2 and so on."""
        numbers = [int(p.name[4:]) for p in self.path.glob("old-*") if p.name[4:].isdigit()]
        # First: after a kill nobody would know of the rest that it is to go. A file may have changed,
        # and what is recorded of it goes with the data that were made of it.
        self.update(retiring={"number": max(numbers, default=0) + 1, "stages": stages})
        self._set_retired_aside()

    def _set_retired_aside(self) -> bool:
        """Move what is to go and is still there, and forget it last; whether something was to go."""
        state = self.read_state()
        retiring = state.pop("retiring", None)
        if not retiring:
            return False
        old = self.path / f"old-{retiring['number']}"
        stages = [stage for stage in DEPENDS if stage in retiring["stages"]]
        found = [path for stage in stages for path in there(self.path, stage)]
        if {"before", "after"} & set(stages):
            found += [path for path in (self.comparison, self.report) if path.exists()]
        with disk_errors(old):
            write_json(old / self.state.name, state)
            made_by = self.made_by()
            if made_by is not None:
                save_recipe(made_by, old / self.recipe.name)
            for path in found:
                target = old / path.relative_to(self.path)
                target.parent.mkdir(parents=True, exist_ok=True)
                path.replace(target)
        forget_stages(state, stages)
        self._write(state)
        warn(f"Set aside in {old}: {', '.join(stages)}. Delete it when you don't need it.")
        return True

    def results(self) -> list[str]:
        """The finished folders, as names below the run directory."""
        named = [*(self.path / n for n in ("data", "before", "adapter", "after", "merged"))]
        named += sorted(p for n in ("controls", "checkpoints") for p in self.path.glob(f"{n}/*"))
        return [
            str(p.relative_to(self.path))
            for p in named
            if p.is_dir() and not p.name.startswith(ASIDE)
        ]

    def damaged(self, state: dict[str, Any]) -> dict[str, str]:
        """What is not as it was when it was finished: {folder: in which way}.

        Args:
            state: what run.json says; the new times of files whose content is the same are put in.
        """
        recorded: dict[str, Files] = state.get("files", {})
        found = {n: difference(self.path / n, recorded[n]) for n in self.results() if n in recorded}
        return {name: problem for name, problem in found.items() if problem}

    def record(self, *names: str) -> None:
        """Note the checksums of finished folders in run.json.

        Data that are not those of which later stages were made take these away.
        """
        for name in names:
            files = checksums(self.path / name)
            if name == "data":
                splits = [s for s in ("train", "eval") if f"{s}.jsonl" in files]
                new = {s: files[f"{s}.jsonl"]["sha256"] for s in splits}
                old = self.read_state().get("data")
                if old is not None and old != new:
                    self._retire_all_but_data()
                self.update(data=new)
            state = self.read_state().get("files", {}) | {name: files}
            self.update(files=state)

    def unrecord(self, name: str) -> None:
        """Forget the checksums of a folder that is about to change."""
        state = self.read_state()
        if state.get("files", {}).pop(name, None) is not None:
            self._write(state)

    def _retire_all_but_data(self) -> None:
        later = [s for s in DEPENDS if s != "data" and there(self.path, s)]
        if later:
            self.retire(later)
        self.pop("plan")

    def _set_damaged_aside(self) -> bool:
        """Set aside the folders that are not as they were when they were finished.

        One without checksums was finished the moment before a kill, or by an older version.
        """
        state = self.read_state()
        old = json.dumps(state)
        damaged = self.damaged(state)
        for name, problem in damaged.items():
            set_aside(self.path / name, problem)
            forget_times(state, name)
        recorded, there_now = state.get("files", {}), self.results()
        state["files"] = {name: files for name, files in recorded.items() if name in there_now}
        if json.dumps(state) != old:
            self._write(state)
        self.record(*(name for name in there_now if name not in state["files"]))
        return bool(damaged)

    def see_unchanged(self, *names: str) -> None:
        """See that finished folders are as they were; nothing is set aside, so no lock is needed.

        Raises:
            RagtuneError: one is damaged.
        """
        damaged = self.damaged(self.read_state())
        for name in names:
            if name in damaged:
                raise RagtuneError(
                    f"{self.path / name} is damaged: {damaged[name]}.",
                    f"`ragtune run {shlex.quote(str(self.path))}` sets it aside, and makes it again.",
                )

    def see_whole(self, name: str) -> None:
        """Read all of a finished folder and compare checksums, before it is given to others.

        Raises:
            RagtuneError: it is damaged; it has been set aside.
        """
        files = self.read_state().get("files", {}).get(name)
        problem = difference(self.path / name, files, thorough=True) if files else None
        if problem:
            set_aside(self.path / name, problem)
            raise RagtuneError(
                f"{self.path / name} is damaged: {problem}.",
                "Nothing was published. Run the same command again: it is made again.",
            )

    def claim(self, recipe: Recipe, day: date) -> None:
        """Make the directory this recipe's; the date that it has already stays.

        Raises as `refuse` does.
        """
        self.refuse(self.changes(recipe))
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        if self.state.exists():
            self.update(recipe=recipe.model_dump(mode="json"))
        else:
            self._begin(recipe)
        if self.day() is None:
            if self.results():
                note(
                    f"{self.state} has no date: chat templates that write it write {day} in this run from "
                    "now on."
                )
            self.update(date=day.isoformat())
        save_recipe(recipe, self.recipe)

    def day(self) -> date | None:
        """The date that chat templates write in this run; None if it has none yet."""
        written = self.read_state().get("date")
        return date.fromisoformat(written) if written else None

    def _begin(self, recipe: Recipe | None) -> None:
        made_by = {"recipe": recipe.model_dump(mode="json")} if recipe else {}
        self._write({"versions": versions(), **made_by})

    def _write(self, state: dict[str, Any]) -> None:
        state.pop("format", None)  # that of what is written now
        write_json(self.state, state)

    def forget(self, *results: str) -> None:
        """Remove what later stages made of something that is made anew, unfinished work included."""
        state = self.read_state()
        forget_stages(state, results)
        for name in results:
            state.pop(name, None)
            shutil.rmtree(self.path / name, ignore_errors=True)
            for path in (self.path / f"{name}.json", *self.work.glob(f"{name}*.jsonl")):
                path.unlink(missing_ok=True)
        if state:
            self._write(state)

    def read_state(self) -> dict[str, Any]:
        """What run.json says; {} where there is none.

        Raises:
            RagtuneError: it is damaged.
        """
        state = read_json(self.state) if self.state.exists() else {}
        try:
            RunState.model_validate(state)
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            raise RagtuneError(
                f"{self.state} is damaged: {where} is none of its values.",
                "Run the same command again, without changes: it is set aside then.",
            ) from None
        return state

    def update(self, **values: Any) -> None:
        """Put values into run.json; a mapping is merged into the one that is there."""
        state = self.read_state()
        for key, value in values.items():
            state[key] = {**state.get(key, {}), **value} if isinstance(value, dict) else value
        self._write(state)


def versions(*more: str) -> dict[str, str]:
    """The versions that a result may depend on; of `more` packages, if they are there."""
    found = {"python": platform.python_version()}
    for name in (*_LIBRARIES, *more):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
