"""What of a model's files is refused: pickles, adapters, and weights that lie elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from ragtune.base.commands import command_line
from ragtune.base.errors import UsageError
from ragtune.base.text import first_line, size_of

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
NO_WEIGHTS = ("training_args.bin", "optimizer.pt", "scheduler.pt", "scaler.pt")
"""What a trainer leaves beside weights, and nobody reads."""
PICKLE = "It could run any code when it is read, so ragtune reads safetensors and GGUF only."
INSTEAD = (
    "Use a version of the model with .safetensors files; or, if you know where it comes from, convert "
    "it: load it with transformers and call save_pretrained."
)
ADAPTER = "adapter_config.json"
_APART = (
    "Move adapter_config.json and adapter_model.* to a folder of their own to tune the model "
    "alone; or merge them into it with peft (merge_and_unload), and save that to a new folder."
)
_SETTINGS = (".json", ".jinja", ".txt", ".model", ".yaml", ".py")
_LARGEST = 512 << 20
"""Bytes of the largest file beside the weights, which is read as a whole."""
WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
_AN_INDEX = ".safetensors.index.json"
_GET_AGAIN = (
    "Copy this file again from where the model is from; from the Hub's cache delete it: it is downloaded "
    "again."
)
_DAMAGED = "The model is damaged or was made to read other files: get it again."


def require_safe_folder(folder: Path) -> None:
    """Require that a model's weights are safetensors, in this folder, and that no adapter is beside them.

    Raises:
        UsageError: they are pickles, or lie elsewhere, or there is an adapter.
    """
    strange = next(
        (p for p in folder.iterdir() if p.exists() and not (p.is_file() or p.is_dir())), None
    )
    if strange:  # transformers would wait for what a pipe never says
        raise UsageError(
            f"model.id: {strange} is no plain file, but a pipe, a socket or a device.", _DAMAGED
        )
    files = [p for p in folder.iterdir() if p.is_file()]
    _require_safe_names({p.name for p in files}, folder, _APART)
    for file in files:
        if file.suffix in _SETTINGS and (size := file.stat().st_size) > _LARGEST:
            raise UsageError(
                f"model.id: {file} has {size_of(size)}: no model's settings or words are so many.",
                _DAMAGED,
            )
    require_safe_references(folder)


def require_safe_repository(names: set[str], repo: str, *, whole: bool = True) -> None:
    """The same of a repository of the Hub; `names` are the files of its top folder that are known.

    Args:
        names: all of them, or those that the cache has.
        repo: owner/name.
        whole: whether they are all.
    """
    command = command_line(
        "hf", "download", repo, "--exclude", "adapter_*", "--local-dir", "FOLDER"
    )
    advice = (
        f"To tune the model alone, name a folder that has all of it but the adapter: {command}. "
        "If there is nothing but an adapter, name its base model."
    )
    _require_safe_names(names, Path(repo), advice, whole=whole)
    if whole and not any(name.endswith(".safetensors") for name in names):
        raise UsageError(
            f"model.id: {repo} holds no .safetensors file.",
            "Use a version of the model with .safetensors files, or download a .gguf file and name that.",
        )


def _require_safe_names(names: set[str], where: Path, apart: str, *, whole: bool = True) -> None:
    """Require of files, by their names, to be no pickled weights and no adapter.

    Args:
        names: of files in one folder.
        where: the folder or repository, for the message.
        apart: what to do about an adapter.
        whole: whether weights that are not among them are nowhere.

    Raises:
        UsageError: they are.
    """
    pickles = sorted(name for name in names if name.endswith(PICKLES))
    if whole and not any(name.endswith(".safetensors") for name in names):
        weights = [name for name in pickles if name not in NO_WEIGHTS]
        if weights:
            raise UsageError(f"model.id: {where / weights[0]} is a pickle. {PICKLE}", INSTEAD)
    elif any(name.startswith("adapter_model.") for name in pickles):
        raise UsageError(f"model.id: {where} holds an adapter as a pickle. {PICKLE}", INSTEAD)
    # transformers would load it without a word, and this run's adapter would be for another model.
    if ADAPTER in names:
        raise UsageError(
            f"model.id: {where} holds an adapter (adapter_config.json) beside the model.", apart
        )


def require_safe_references(folder: Path) -> None:
    """Require that config.json and the indexes name files of this folder, and no pickle for safetensors.

    Raises:
        UsageError: they name others.
    """
    for name in named_weights(folder):
        # transformers reads such a file first, and one pickle as well: adapter_model.bin.
        if Path(name).name != name or not name.endswith((".safetensors", _AN_INDEX)):
            raise UsageError(
                f"model.id: {folder / 'config.json'} names {name!r} as weights, which is no safetensors "
                "file of this folder.",
                _DAMAGED,
            )
    for index in folder.glob("*.index.json"):
        kinds = (".safetensors",) if index.name.endswith(_AN_INDEX) else (".safetensors", *PICKLES)
        for name in parts_in(index):
            if Path(name).name != name or not name.endswith(kinds):
                raise UsageError(
                    f"model.id: {index} names {name!r}, which is no file of this folder"
                    + (" in safetensors." if name.endswith(PICKLES) else "."),
                    _DAMAGED,
                )


def lacks_weights(where: object, files: list[Path]) -> UsageError:
    """What to say of a model that has no weights as safetensors; pickles are named and not read."""
    pickles = [file.name for file in files if file.suffix in PICKLES]
    kept = f" There is {', '.join(pickles)}, a pickle. {PICKLE}" if pickles else ""
    advice = INSTEAD if pickles else "Copy the model again, with its weights."
    return UsageError(f"model.id: {where} has no model.safetensors.{kept}", advice)


def model_json(path: Path) -> dict[str, object]:
    """Read a JSON object that came with a model.

    Raises:
        UsageError: the file is damaged.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        problem = "" if isinstance(value, dict) else "it holds no JSON object"
    except (ValueError, OSError, RecursionError) as error:
        value, problem = None, first_line(error)
    if not isinstance(value, dict):
        raise UsageError(f"model.id: {path} is damaged: {problem}.", _GET_AGAIN)
    return value


def parts_in(index: Path) -> set[str]:
    """The files that an index names as parts of a model's weights.

    Raises:
        UsageError: it is damaged, or names none.
    """
    named = model_json(index).get("weight_map")
    if not isinstance(named, dict) or not named:
        raise UsageError(f"model.id: {index} is damaged: weight_map names no files.", _GET_AGAIN)
    return set(map(str, named.values()))


def named_weights(folder: Path) -> list[str]:
    """The files that config.json wants read as weights, if any: usually they have the usual names."""
    return list(_weights_in(model_json(folder / "config.json")))


def _weights_in(config: object) -> Iterator[str]:
    """What transformers_weights says, also in a part of the configuration, such as text_config."""
    if isinstance(config, dict):
        for key, value in config.items():
            if key != "transformers_weights":
                yield from _weights_in(value)
            elif value is not None:
                yield str(value)
