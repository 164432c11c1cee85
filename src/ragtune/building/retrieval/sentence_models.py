"""Models of sentence-transformers: found, looked at before anything of them is loaded, and loaded.

sentence-transformers reads pickles where it finds no safetensors, and before 6.0 it ran the Python code
that a local folder's modules.json names. So it never sees a name of the Hub here: the files that it may
read are fetched, looked at as those of every model are, and only then loaded, from their folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import errors

from ragtune.base.commands import install
from ragtune.base.errors import RagtuneError, UsageError, is_panic
from ragtune.base.files import sha256
from ragtune.base.screen.progress import busy
from ragtune.base.stopping import stop_if_asked
from ragtune.base.web.hub import api, ask
from ragtune.base.web.network import hub_is_offline
from ragtune.model.headers import require_none_drawn
from ragtune.model.quiet import quiet
from ragtune.model.safety import INDEX, WEIGHTS, model_json, require_safe_folder
from ragtune.model.source import ModelSource, resolve
from ragtune.model.unloadable import explained
from ragtune.recipe.schema import Model

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer

_READ = ("*.json", "*.safetensors", "*.txt", "*.model")
"""The files of a repository that are fetched, and that a model's digest covers."""
_NOT_READ = ("onnx/*", "openvino/*")
_MODULES = "modules.json"
_OWN = "sentence_transformers."
_FOLDER = re.compile(r"[\w.-]*", re.ASCII)
_LEADS_ELSEWHERE = re.compile(r"adapter|weights|file|path|code|kwargs|subfolder")
"""What an argument is called that makes transformers read other files than those that were looked at."""


_SAFELY = {"use_safetensors": True}
"""What transformers is told of the weights."""


def model_folder(name: str, key: str) -> Path:
    """The folder of a model's files, fetched from the Hub where it is one of the Hub's, and safe to load.

    Args:
        name: a folder, or owner/name on the Hub.
        key: what names it in the configuration, for the messages: `retrieval.model`.

    Raises:
        UsageError: sentence-transformers is not installed, there is no such model, or it has pickles,
            code of its own, or something that leads to other files.
        RagtuneError: the Hub can't be asked.
    """
    require_installed(key)
    with _named(key):
        source = resolve(Model(id=name))
        folder = _fetched(source.path) if source.path == source.name else Path(source.path)
        _require_safe(folder)
    return folder


def require_installed(key: str) -> None:
    """Require that sentence-transformers is there.

    Raises:
        UsageError: it isn't.
    """
    if importlib.util.find_spec("sentence_transformers") is None:
        raise UsageError(
            f"{key} needs the package sentence-transformers, which is not installed.",
            f"Run: {install('sentence-transformers>=5.0')}",
        )


def digest_of(folder: Path) -> str:
    """One sha256 of all files that a model is loaded from."""
    digest = hashlib.sha256()
    files = {p for pattern in _READ for p in folder.rglob(pattern) if p.is_file()}
    for file in sorted(files):
        name = file.relative_to(folder).as_posix()
        digest.update(f"{name}\0{sha256(file)}\n".encode())
    return digest.hexdigest()


def load_encoder(folder: Path, key: str) -> SentenceTransformer:
    """The model that makes vectors, on the GPU if there is one. Raises as `model_folder`."""
    with _loading(folder, key):
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - an extra

        model = SentenceTransformer(
            str(folder), trust_remote_code=False, local_files_only=True, model_kwargs=_SAFELY
        )
        # Of what transformers' pooler makes, sentence-transformers takes nothing.
        _require_none_drawn(model, folder, "pooler.")
        return model


def load_cross_encoder(folder: Path, key: str) -> CrossEncoder:
    """The model that scores a question with a passage, on the GPU if there is one. Raises the same."""
    with _loading(folder, key):
        from sentence_transformers import CrossEncoder  # noqa: PLC0415 - an extra

        model = CrossEncoder(
            str(folder), trust_remote_code=False, local_files_only=True, model_kwargs=_SAFELY
        )
        _require_none_drawn(model, folder)
        return model


def _require_none_drawn(
    model: SentenceTransformer | CrossEncoder, folder: Path, unused: str = ""
) -> None:
    """Require that all weights were there: of a model without a reranker's head that would be a random one."""
    from transformers import PreTrainedModel  # noqa: PLC0415 - torch

    inner = next((one for one in model.modules() if isinstance(one, PreTrainedModel)), None)
    folders = [folder, *_module_folders(folder)]
    with_weights = (one for one in folders if any((one / n).is_file() for n in (WEIGHTS, INDEX)))
    if inner is not None and (there := next(with_weights, None)) is not None:
        require_none_drawn(inner, there, unused)


@contextlib.contextmanager
def _loading(folder: Path, key: str) -> Iterator[None]:
    try:
        with quiet(), busy(f"loading {folder.name}"):
            yield
    # Whatever sentence-transformers, transformers or tokenizers (in Rust) raise of a stranger's files.
    except BaseException as error:
        stop_if_asked()
        if not (isinstance(error, Exception) or is_panic(error)):
            raise
        with _named(key):
            if isinstance(error, RagtuneError):
                raise
            raise explained(error, "model", ModelSource(str(folder), None)) from error


@contextlib.contextmanager
def _named(key: str) -> Iterator[None]:
    """Let what is said of a model name the key that this one stands under."""
    try:
        yield
    except RagtuneError as error:
        message = error.message.replace("model.id:", f"{key}:", 1)
        raise type(error)(message, error.advice.replace("model.id", key)) from error


def _fetched(repo: str) -> Path:
    """The folder of a repository's files in the Hub's cache; what is not loaded is not fetched."""
    offline = hub_is_offline()

    def fetch() -> str:
        return api().snapshot_download(
            repo,
            allow_patterns=list(_READ),
            ignore_patterns=list(_NOT_READ),
            local_files_only=offline,
        )

    if not offline:
        return Path(ask(fetch, repo))
    try:
        return Path(fetch())
    except errors.LocalEntryNotFoundError as error:
        raise UsageError(
            f"model.id: {repo} is not in the Hub's cache, and nothing may be downloaded (--offline or "
            "HF_HUB_OFFLINE).",
            "Let it be downloaded once, or name a folder.",
        ) from error


def _require_safe(folder: Path) -> None:
    """Require of all folders of a model to hold nothing that must not be loaded."""
    folders = [folder, *_module_folders(folder)]
    if not any((one / "config.json").is_file() for one in folders):
        raise UsageError(
            f"model.id: {folder} holds no config.json.",
            "Name a model of sentence-transformers, or one that save_pretrained wrote.",
        )
    for one in folders:
        if (one / "config.json").is_file():
            require_safe_folder(one)
        for file in sorted(one.glob("sentence_*_config.json")):
            _require_plain_arguments(file)


def _module_folders(folder: Path) -> list[Path]:
    """The folders of a model's modules below its own, as modules.json names them."""
    path = folder / _MODULES
    if not path.is_file():
        return []
    found = []
    for module in _list_in(path):
        kind, name = str(module.get("type", "")), str(module.get("path", ""))
        if not kind.startswith(_OWN):
            raise UsageError(
                f"model.id: {path} names {kind!r}, which is Python code of the model's own, and ragtune "
                "does not run it.",
                "Choose a model that sentence-transformers knows itself.",
            )
        if not _FOLDER.fullmatch(name) or name == "..":
            raise UsageError(
                f"model.id: {path} names {name!r}, which is no folder of this model.",
                "The model is damaged or was made to read other files: get it again.",
            )
        if name and (folder / name).is_dir():
            found.append(folder / name)
    return found


def _list_in(path: Path) -> list[dict[str, object]]:
    """The objects in a list of JSON."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        value = error
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise UsageError(
            f"model.id: {path} is damaged: it holds no list of modules.",
            "Copy this file again from where the model is from.",
        )
    return value


def _require_plain_arguments(file: Path) -> None:
    """Require that a module's configuration gives transformers no arguments that lead to other files."""
    for name, arguments in model_json(file).items():
        if not (name.endswith(("_args", "_kwargs")) and isinstance(arguments, dict)):
            continue
        strange = [one for one in arguments if _LEADS_ELSEWHERE.search(str(one))]
        if strange:
            raise UsageError(
                f"model.id: {file}: {name}.{strange[0]} would make transformers read other files.",
                "The model is damaged or was made to read other files: get it again.",
            )
