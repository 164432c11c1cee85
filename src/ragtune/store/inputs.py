"""The files of this machine that a run is made from, and whether they are still the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NotRequired

from typing_extensions import TypedDict  # pydantic wants this one, before Python 3.12

from ragtune.base.files import later, sha256
from ragtune.base.several import files_of, fixed_part
from ragtune.recipe.schema import Recipe
from ragtune.store.seal import FileFacts, difference, facts_of

_WEIGHTS_AND_SETTINGS = {".safetensors", ".json", ".jinja", ".model", ".txt", ".gguf"}


_SPLITS = {"data.train": "train", "data.eval": "validation", "train.preference": "train"}
"""Of a folder that holds several, which one a key means."""


class Input(TypedDict):
    """A file, several, or the files of a folder."""

    path: str
    absolute: NotRequired[str]
    """Where that was: in another folder a relative path may name another file."""
    files: dict[str, FileFacts]


@dataclass(frozen=True)
class _Named:
    """What a key names on this machine."""

    key: str
    path: Path
    """As the recipe has it: of a file, a folder, or with * for several."""
    folder: Path
    """That the files' names begin in."""
    files: list[Path]

    def name(self, file: Path) -> str:
        return file.relative_to(self.folder).as_posix()

    def file(self, name: str) -> Path:
        return self.path if self.path.is_file() else self.folder / name


def read_inputs(recipe: Recipe, keys: Iterable[str]) -> Callable[[], dict[str, Input]]:
    """Begin to read the files that the recipe names under `keys`.

    A large model takes many seconds, in which the data can be prepared.

    Returns:
        What waits for them.
    """
    begun: list[tuple[_Named, list[tuple[str, Future[FileFacts]]]]] = []
    for one in _named(recipe, keys):
        futures = [(one.name(file), _begun(file)) for file in one.files]
        begun.append((one, futures))

    def read() -> dict[str, Input]:
        return {
            one.key: {
                "path": str(one.path),
                "absolute": str(one.path.resolve()),
                "files": {name: {**future.result()} for name, future in files},
            }
            for one, files in begun
        }

    return read


def read_ahead(recipe: Recipe) -> None:
    """Begin to read the model's files, for whoever asks for them next: while libraries are imported, say."""
    with suppress(OSError):  # who asks will hear of it
        read_inputs(recipe, ("model.id",))


def contents(recipe: Recipe, keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """The sha256 of each file of this machine that the recipe names under `keys`, by key and name."""
    return {
        key: {name: facts["sha256"] for name, facts in one["files"].items()}
        for key, one in read_inputs(recipe, keys)().items()
    }


_READ: dict[Path, FileFacts] = {}
"""What this process found of files, by where they lie."""
_READING: dict[Path, Future[FileFacts]] = {}
"""Those that are read, or were."""


def _begun(file: Path) -> Future[FileFacts]:
    """What is found of a file; while it is being read, whoever asks waits for that."""
    place = file.resolve()
    going = _READING.get(place)
    if going is None or going.done():
        going = _READING[place] = later(partial(_facts, file, place))
    return going


def _facts(file: Path, place: Path) -> FileFacts:
    """What is known of a file; a large one is read once: several stages are made from the same weights."""
    found = _READ[place] = facts_of(file, _READ.get(place))
    return {**found}


def input_changes(recorded: dict[str, Input], recipe: Recipe) -> list[str]:
    """What differs under the same path, in words.

    A file that is gone is no change: what was made from it stands. One that came into a model's folder
    is: a chat_template.jinja counts before what tokenizer_config.json says. So is one more of several.
    """
    found = []
    for one in _named(recipe, recorded):
        key, path, known = one.key, one.path, recorded[one.key]
        if str(path) != known["path"] and str(path.resolve()) != known.get("absolute"):
            continue
        for name, facts in known["files"].items():
            file = one.file(name)
            if file.exists() and difference(file, {name: facts}) is not None:
                found.append(
                    f"{key}: {file} has changed (sha256 {facts['sha256'][:12]}… there, "
                    f"{sha256(file)[:12]}… now)"
                )
        found += [
            f"{key}: {file} is new (not there when these were made)"
            for file in (one.files if not path.is_file() else [])
            if one.name(file) not in known["files"]
        ]
    return found


def _named(recipe: Recipe, keys: Iterable[str]) -> Iterator[_Named]:
    """What each of the keys names on this machine, if it does."""
    named = {
        "model.id": recipe.model.id,
        "data.train": recipe.data.train,
        "data.eval": recipe.data.eval,
        "train.preference": recipe.train.preference,
        "evaluate.general_folder": recipe.evaluate.general_folder,
    }
    for key in keys:
        if not (text := named[key]):
            continue
        path = Path(text).expanduser()
        if key == "model.id":
            files = _model_files(path) if path.is_dir() else [path] if path.exists() else []
        elif key == "evaluate.general_folder":
            files = [p for p in sorted(path.rglob("*")) if p.is_file() and p.suffix != ".pyc"]
        else:
            files = files_of(text, _SPLITS[key])
        if files or path.is_dir():
            folder = path if path.is_dir() else path.parent if path.is_file() else fixed_part(path)
            yield _Named(key, path, folder, files)


def _model_files(folder: Path) -> list[Path]:
    return [
        p for p in sorted(folder.iterdir()) if p.suffix in _WEIGHTS_AND_SETTINGS and p.is_file()
    ]
