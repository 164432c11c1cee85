"""What of a model's files is refused: pickles, adapters, and weights that lie elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ragtune.base.errors import UsageError
from ragtune.base.files import read_json

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
WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
_AN_INDEX = ".safetensors.index.json"
_DAMAGED = "The model is damaged or was made to read other files: get it again."


def require_safe_folder(folder: Path) -> None:
    """Require that a model's weights are safetensors, in this folder, and that no adapter is beside them.

    Raises:
        UsageError: they are pickles, or lie elsewhere, or there is an adapter.
    """
    _require_safe_names({p.name for p in folder.iterdir() if p.is_file()}, folder, _APART)
    require_safe_references(folder)


def require_safe_repository(names: set[str], repo: str, *, whole: bool = True) -> None:
    """The same of a repository of the Hub; `names` are the files of its top folder that are known.

    Args:
        names: all of them, or those that the cache has.
        repo: owner/name.
        whole: whether they are all.
    """
    advice = (
        "To tune the model alone, name a folder that has all of it but the adapter: "
        f"hf download {repo} --exclude 'adapter_*' --local-dir FOLDER. If there is nothing but an "
        "adapter, name its base model."
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


def parts_in(index: Path) -> set[str]:
    """The files that an index names as parts of a model's weights."""
    named = read_json(index).get("weight_map")
    return set(map(str, named.values())) if isinstance(named, dict) else set()


def named_weights(folder: Path) -> list[str]:
    """The files that config.json wants read as weights, if any: usually they have the usual names."""
    return list(_weights_in(read_json(folder / "config.json")))


def _weights_in(config: object) -> Iterator[str]:
    """What transformers_weights says, also in a part of the configuration, such as text_config."""
    if isinstance(config, dict):
        for key, value in config.items():
            if key != "transformers_weights":
                yield from _weights_in(value)
            elif value is not None:
                yield str(value)
