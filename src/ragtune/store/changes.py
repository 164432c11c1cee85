"""Which stages of an old run directory a changed recipe, or a changed file, leaves valid."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ragtune.base.files import later, sha256
from ragtune.recipe.schema import Recipe
from ragtune.store.seal import ASIDE, Files, checksums, difference

_DATA = ("seed", "model.id", "model.revision", "data.", "prompt.")
_ANSWERS = (
    "evaluate.limit",
    "evaluate.questions",
    "evaluate.max_new_tokens",
    "evaluate.batch_size",
    "evaluate.engine",
)
_ADAPTER = (*_DATA, "model.", "lora.", "train.")

DEPENDS = {
    "data": _DATA,
    "before": (*_DATA, "model.", *_ANSWERS, "evaluate.served_before"),
    "adapter": _ADAPTER,
    "after": (*_ADAPTER, *_ANSWERS, "evaluate.served_after"),
    "merged": _ADAPTER,
    "controls": (*_ADAPTER, *_ANSWERS, "evaluate.served_"),
    "checkpoints": (*_ADAPTER, *_ANSWERS),
}
"""Each stage's keys of the recipe, or the beginnings of such keys, in the order of the stages."""

PATHS = {
    "data": ("data",),
    "before": ("before", "work/before.jsonl"),
    "adapter": ("adapter", "work/checkpoints"),
    "after": ("after", "work/after.jsonl", "work/merged.jsonl"),
    "merged": ("merged",),
    "controls": ("controls", "controls.json", "work/controls.*.jsonl"),
    "checkpoints": ("checkpoints", "work/checkpoints.*.jsonl"),
}
"""What each stage makes, finished or not, as patterns below the run directory."""

SCORING = ("evaluate.metric", "evaluate.answers")
"""Keys by which the answers that are there are scored again."""

_NO_EFFECT = ("train.keep_checkpoints", "train.log_every", "train.report_to")
"""Keys that say what is kept and shown of a training, and change nothing that it makes."""

PLAN_FREE = (
    "publish.",
    "name",
    *SCORING,
    *_NO_EFFECT,
    "evaluate.endpoint",
    "evaluate.concurrency",
    "evaluate.served_",
)
"""Keys that the plan in run.json does not depend on."""

_WEIGHTS_AND_SETTINGS = {".safetensors", ".json", ".jinja", ".model", ".txt", ".gguf"}


@dataclass(frozen=True)
class Change:
    """Something that is otherwise than it was, in words, and the stages that it makes invalid."""

    words: str
    stages: tuple[str, ...]

    def without(self, stages: Iterable[str]) -> Change:
        """The same, for the other stages."""
        return Change(self.words, tuple(stage for stage in self.stages if stage not in stages))


def there(folder: Path, stage: str) -> list[Path]:
    """What a stage has made in a run directory so far; what is empty or set aside is nothing."""
    return [
        path for pattern in PATHS[stage] for path in sorted(folder.glob(pattern)) if _holds(path)
    ]


def _holds(path: Path) -> bool:
    if path.is_dir():
        return any(not inner.name.startswith(ASIDE) for inner in path.iterdir())
    return path.stat().st_size > 0


def recipe_changes(folder: Path, old: Recipe, new: Recipe) -> list[Change]:
    """The keys that differ and on which something in the run directory depends.

    Args:
        folder: the run directory.
        old: what it was made by.
        new: what is wanted.
    """
    before, after = (flat(recipe.model_dump(mode="json")) for recipe in (old, new))
    found = []
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) == after.get(key) or key in _NO_EFFECT:
            continue
        touched = [stage for stage, keys in DEPENDS.items() if key.startswith(keys)]
        if key == "evaluate.max_new_tokens" and not _same_prompts(folder, old, new):
            touched = list(DEPENDS)
        stages = tuple(stage for stage in touched if there(folder, stage))
        if stages:
            words = f"{key}: {before.get(key)!r} there, {after.get(key)!r} now"
            found.append(Change(words, stages))
    return found


def _same_prompts(folder: Path, old: Recipe, new: Recipe) -> bool:
    """Whether another room for answers leaves every prompt as it was: none was cut, nor would be."""
    from ragtune.base.files import read_json

    path = folder / "data" / "report.json"
    if not path.exists():
        return True
    report = read_json(path)
    room = report["max_prompt_tokens"] + old.evaluate.max_new_tokens - new.evaluate.max_new_tokens
    asks_others = new.evaluate.questions == "all" or new.data.refusal is not None
    return not asks_others and all(
        not part["truncated"]["examples"]
        and not {"question_too_long", "answer_too_long"} & part["dropped"].keys()
        and part["prompt_tokens"].get("max", 0) <= room
        for part in (report["train"], report["eval"])
    )


def read_inputs(recipe: Recipe) -> Callable[[], dict[str, dict[str, Any]]]:
    """Begin to read the files of this machine that a run is made from.

    A large model takes many seconds, in which the data can be prepared.

    Returns:
        What waits for them, and returns {key: {path, files}}, `files` as of `checksums`.
    """
    begun: list[tuple[str, Path, list[Future[Files]]]] = []
    for key, path in _input_paths(recipe):
        files = _model_files(path) if path.is_dir() else [path]
        begun.append((key, path, [later(partial(checksums, file)) for file in files]))

    def read() -> dict[str, dict[str, Any]]:
        return {
            key: {"path": str(path), "files": {k: v for f in files for k, v in f.result().items()}}
            for key, path, files in begun
        }

    return read


def _input_paths(recipe: Recipe) -> Iterable[tuple[str, Path]]:
    for key, named in (
        ("model.id", recipe.model.id),
        ("data.train", recipe.data.train),
        ("data.eval", recipe.data.eval),
    ):
        if named and (path := Path(named).expanduser()).exists():
            yield key, path


def _model_files(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.iterdir()) if p.suffix in _WEIGHTS_AND_SETTINGS]


def input_changes(
    folder: Path, recorded: dict[str, dict[str, Any]], recipe: Recipe
) -> list[Change]:
    """The files that differ under the same path, with the stages that were made from them.

    A file that is gone is no change: what was made from it stands. One that came into a model's folder
    is: a chat_template.jinja counts before what tokenizer_config.json says.
    """
    found = []
    for key, path in _input_paths(recipe):
        entry = recorded.get(key)
        if entry is None or entry["path"] != str(path):
            continue
        files = {n: e for n, e in entry["files"].items() if _file(path, n).exists()}
        for name, one in files.items():
            file = _file(path, name)
            if difference(file, {name: one}) is None:
                continue
            words = (
                f"{key}: {file} has changed (sha256 {one['sha256'][:12]}… there, "
                f"{sha256(file)[:12]}… now)"
            )
            found.append(Change(words, tuple(s for s in DEPENDS if there(folder, s))))
        for file in _model_files(path) if path.is_dir() else []:
            if file.is_file() and file.name not in entry["files"]:
                words = f"{key}: {file} is new (not there when these were made)"
                found.append(Change(words, tuple(s for s in DEPENDS if there(folder, s))))
    return [change for change in found if change.stages]


def _file(path: Path, name: str) -> Path:
    return path / name if path.is_dir() else path


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A recipe's values by dotted key."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out
