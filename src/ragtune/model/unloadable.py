"""Why transformers could not load a part of a model: by the error's type, or by looking at what is there."""

from __future__ import annotations

import base64
import importlib.util
from pathlib import Path

from huggingface_hub import errors
from safetensors import SafetensorError

from ragtune.base.errors import RagtuneError, UsageError, is_out_of_memory
from ragtune.base.network import hub_is_offline
from ragtune.base.text import first_line
from ragtune.model.facts import refused
from ragtune.model.hub_cache import damaged, folder_of
from ragtune.model.safety import INSTEAD, PICKLE, PICKLES
from ragtune.model.source import ModelSource

_PACKAGES = {"sentencepiece": "sentencepiece", "google.protobuf": "protobuf"}
"""What transformers needs to read a SentencePiece model, by module; and the package that has it."""
_SHOWN = 20
"""Files that a message names."""


def explained(error: Exception, what: str, source: ModelSource) -> RagtuneError | None:
    """What a failure to load means to the user; None if it is a fault.

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
    if not isinstance(error, (OSError, ValueError, ImportError, KeyError)):
        return None
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
        f"model.id: the {what} of {source.path} can't be loaded: {first_line(error)}",
        "--debug shows all of it." + (f" What is there: {shown}." if files else ""),
    )


def _of_the_files(files: list[Path], what: str, source: ModelSource) -> UsageError | None:
    """What is missing among a model's files, or to read them, to load this part of it."""
    if what == "model" and not any(file.suffix == ".safetensors" for file in files):
        pickles = [file.name for file in files if file.suffix in PICKLES]
        kept = f"There is {', '.join(pickles)}, a pickle. {PICKLE}" if pickles else ""
        return UsageError(
            f"model.id: {source.path} has no model.safetensors. {kept}".strip(), INSTEAD
        )
    if what == "tokenizer" and (missing := _packages_missing(files)):
        return UsageError(
            f"model.id: the tokenizer of {source.path} is a SentencePiece model (there is no "
            f"tokenizer.json), and {' and '.join(missing)} to read it "
            f"{'is' if len(missing) == 1 else 'are'} not installed.",
            f"Run: pip install {' '.join(missing)}",
        )
    return None


def _of_the_hub(error: Exception, what: str, source: ModelSource) -> RagtuneError | None:
    """What the Hub's own error, from which transformers made another, means to the user."""
    if source.path != source.name:
        return None
    cause: BaseException | None = error
    while cause and not isinstance(cause, (errors.LocalEntryNotFoundError, errors.HfHubHTTPError)):
        cause = cause.__cause__
    if isinstance(cause, errors.LocalEntryNotFoundError):
        away = "offline nothing is downloaded" if hub_is_offline() else "the Hub can't be reached"
        return UsageError(
            f"model.id: the {what} of {source.path} is not in the cache, and {away}.",
            "Check the name and the network. Where there is none, only a model that was used here "
            "before, or a folder, will do.",
        )
    if not isinstance(cause, errors.HfHubHTTPError):
        return None
    # A revision or a file that is not there has words of transformers' own.
    if isinstance(cause, (errors.EntryNotFoundError, errors.RevisionNotFoundError)):
        return None
    return refused(source.path, cause)


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
