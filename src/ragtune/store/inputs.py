"""The files of this machine that a run is made from, and whether they are still the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import NotRequired

from typing_extensions import TypedDict  # pydantic wants this one, before Python 3.12

from ragtune.base.files import later, sha256
from ragtune.recipe.schema import Recipe
from ragtune.store.seal import FileFacts, checksums, difference

_WEIGHTS_AND_SETTINGS = {".safetensors", ".json", ".jinja", ".model", ".txt", ".gguf"}


class Input(TypedDict):
    """A file, or the files of a model's folder."""

    path: str
    absolute: NotRequired[str]
    """Where that was: in another folder a relative path may name another file."""
    files: dict[str, FileFacts]


def read_inputs(recipe: Recipe, keys: Iterable[str]) -> Callable[[], dict[str, Input]]:
    """Begin to read the files that the recipe names under `keys`.

    A large model takes many seconds, in which the data can be prepared.

    Returns:
        What waits for them.
    """
    begun: list[tuple[str, Path, list[Future[dict[str, FileFacts]]]]] = []
    for key, path in input_paths(recipe, keys):
        files = _model_files(path) if path.is_dir() else [path]
        begun.append((key, path, [later(partial(checksums, file)) for file in files]))

    def read() -> dict[str, Input]:
        return {
            key: {
                "path": str(path),
                "absolute": str(path.resolve()),
                "files": {k: v for f in files for k, v in f.result().items()},
            }
            for key, path, files in begun
        }

    return read


def input_paths(recipe: Recipe, keys: Iterable[str]) -> Iterable[tuple[str, Path]]:
    """The keys of `keys` that name something on this machine, with its path."""
    named = {
        "model.id": recipe.model.id,
        "data.train": recipe.data.train,
        "data.eval": recipe.data.eval,
    }
    for key in keys:
        if (text := named[key]) and (path := Path(text).expanduser()).exists():
            yield key, path


def input_changes(recorded: dict[str, Input], recipe: Recipe) -> list[str]:
    """What differs under the same path, in words.

    A file that is gone is no change: what was made from it stands. One that came into a model's folder
    is: a chat_template.jinja counts before what tokenizer_config.json says.
    """
    found = []
    for key, path in input_paths(recipe, recorded):
        known = recorded[key]
        if str(path) != known["path"] and str(path.resolve()) != known.get("absolute"):
            continue
        for name, facts in known["files"].items():
            file = path / name if path.is_dir() else path
            if file.exists() and difference(file, {name: facts}) is not None:
                found.append(
                    f"{key}: {file} has changed (sha256 {facts['sha256'][:12]}… there, "
                    f"{sha256(file)[:12]}… now)"
                )
        found += [
            f"{key}: {file} is new (not there when these were made)"
            for file in (_model_files(path) if path.is_dir() else [])
            if file.name not in known["files"]
        ]
    return found


def _model_files(folder: Path) -> list[Path]:
    return [
        p for p in sorted(folder.iterdir()) if p.suffix in _WEIGHTS_AND_SETTINGS and p.is_file()
    ]
