"""Where a model's files are: Hub, folder, GGUF file, or a package that carries one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ragtune.base.disk import named_path
from ragtune.base.errors import UsageError
from ragtune.base.screen.console import warn
from ragtune.model.gguf import BASE_MODELS, converted, packaged_gguf
from ragtune.model.safety import INSTEAD, PICKLE, PICKLES, require_safe_folder
from ragtune.recipe.schema import Model

_PACKAGE = "package:"
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)
_REVISION = re.compile(r"\w[\w./+-]*")


@dataclass(frozen=True)
class ModelSource:
    """A model as `from_pretrained` takes it.

    `path` is a folder or a Hub id; `name` is what people call it, for the model card (None when
    only a local path is known). `trust_remote_code` says whether Python code beside the weights is
    run.
    """

    path: str
    name: str | None
    revision: str | None = None
    trust_remote_code: bool = False


def resolve(model: Model) -> ModelSource:
    """Find a model; a GGUF file is converted once to plain safetensors in the cache.

    Raises:
        UsageError: no such file, folder or package, or its weights are no safetensors or GGUF.
        RagtuneError: the conversion fails.
    """
    if model.trust_remote_code:
        warn(
            f"model.trust_remote_code is on: Python code that comes with {model.id} runs here, with all "
            "your rights."
        )
    if not model.id.startswith(_PACKAGE):
        named_path(model.id, "model.id")
    if (packed := unconverted(model)) is not None:
        return ModelSource(str(converted(Path(packed.path))), packed.name)
    path = Path(model.id).expanduser()
    if path.suffix in PICKLES:
        raise UsageError(f"model.id: {path} is a pickle. {PICKLE}", INSTEAD)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UsageError(
                f"model.id: {path} holds no config.json.",
                "Name a folder that save_pretrained wrote, or a .gguf file.",
            )
        require_safe_folder(path)
        return ModelSource(str(path), None, trust_remote_code=model.trust_remote_code)
    if not _HUB_ID.fullmatch(model.id):
        raise UsageError(
            f"model.id: {model.id} is no folder, no GGUF file and no Hub id (owner/name).",
            f"Paths are relative to the current folder, {Path.cwd()}.",
        )
    if model.revision and (".." in model.revision or not _REVISION.fullmatch(model.revision)):
        raise UsageError(
            f"model.revision: {model.revision!r} is no branch, tag or commit.",
            "Copy it from the model's page on the Hub.",
        )
    return ModelSource(model.id, model.id, model.revision, model.trust_remote_code)


def gguf_file(model: Model) -> Path | None:
    """The GGUF file that a model is read from; None for a folder or a model of the Hub."""
    if model.id.startswith(_PACKAGE):
        return packaged_gguf(model.id.removeprefix(_PACKAGE))
    path = Path(model.id).expanduser()
    return path if path.suffix == ".gguf" else None


def unconverted(model: Model) -> ModelSource | None:
    """A GGUF file as it lies there, and what its model is called; None for any other model.

    Raises:
        UsageError: there is no such file or package.
    """
    file = gguf_file(model)
    if file is None:
        return None
    if not file.is_file():
        raise UsageError(f"model.id: {file} does not exist.", f"Current folder: {Path.cwd()}.")
    return ModelSource(str(file), BASE_MODELS.get(model.id.removeprefix(_PACKAGE)))
