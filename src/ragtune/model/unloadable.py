"""Why transformers could not load a part of a model: by the error's type, or by looking at what is there."""

from __future__ import annotations

import base64
import importlib.util
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ragtune.base.errors import RagtuneError, UsageError, is_out_of_memory
from ragtune.base.network import hub_is_offline
from ragtune.model.safety import INSTEAD, PICKLE, PICKLES
from ragtune.model.source import ModelSource
from ragtune.model.weights import damaged, folder_of
from ragtune.publish.facts import refused

_PACKAGES = {"sentencepiece": "sentencepiece", "google.protobuf": "protobuf"}
"""What transformers needs to read a SentencePiece model, by module; and the package that has it."""


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
    text = str(error).strip()
    # The name of transformers' own argument, for which it asks (tests/safety/test_code.py).
    if "trust_remote_code" in text and not source.trust_remote_code:
        return UsageError(
            f"model.id: the {what} of {source.path} needs Python code that comes with it, which "
            "ragtune does not run unasked.",
            "Choose a model that transformers knows itself. Or read that code (.py files), and if you "
            "trust it, set model.trust_remote_code=true, and model.revision to the commit you read.",
        )
    if found := _of_the_hub(error, what, source):
        return found
    folder = folder_of(source)
    if what == "model" and folder and not any(folder.glob("*.safetensors")):
        pickles = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLES)
        kept = f"There is {', '.join(pickles)}, a pickle. {PICKLE}" if pickles else ""
        return UsageError(
            f"model.id: {source.path} has no model.safetensors. {kept}".strip(), INSTEAD
        )
    if what == "tokenizer" and folder and (missing := _packages_missing(folder)):
        return UsageError(
            f"model.id: the tokenizer of {source.path} is a SentencePiece model (there is no "
            f"tokenizer.json), and {' and '.join(missing)} to read it "
            f"{'is' if len(missing) == 1 else 'are'} not installed.",
            f"Run: pip install {' '.join(missing)}",
        )
    lines = text.splitlines() or [type(error).__name__]
    there = sorted(file.name for file in folder.iterdir()) if folder and folder.is_dir() else []
    return UsageError(
        f"model.id: the {what} of {source.path} can't be loaded: {lines[0]}",
        "--debug shows all of it."
        + (f" What is there: {', '.join(there[:_SHOWN])}." if there else ""),
    )


_SHOWN = 20
"""Files that a message names."""


def _of_the_hub(error: Exception, what: str, source: ModelSource) -> RagtuneError | None:
    """What the Hub's own error, from which transformers made another, means to the user."""
    from huggingface_hub import errors

    if source.path != source.name:
        return None
    cause: Any = error
    while cause is not None and not isinstance(
        cause, (errors.LocalEntryNotFoundError, errors.HfHubHTTPError)
    ):
        cause = cause.__cause__
    if isinstance(cause, errors.LocalEntryNotFoundError):
        away = "offline nothing is downloaded" if hub_is_offline() else "the Hub can't be reached"
        return UsageError(
            f"model.id: the {what} of {source.path} is not in the cache, and {away}.",
            "Check the name and the network. Where there is none, only a model that was used here "
            "before, or a folder, will do.",
        )
    # A repository, a revision or a file that is not there has words of transformers' own.
    if isinstance(cause, errors.EntryNotFoundError | errors.RevisionNotFoundError):
        return None
    if isinstance(cause, errors.RepositoryNotFoundError):
        return UsageError(
            f"model.id: the Hub has no model {source.path} that this token may read.",
            "Check the name. For a private model run `hf auth login`; for a gated one accept its terms on "
            "its page first.",
        )
    return None if cause is None else refused(source.path, cause)


def _packages_missing(folder: Path) -> list[str]:
    """The packages that are not installed, where a folder's tokenizer is a SentencePiece model alone."""
    if (folder / "tokenizer.json").is_file():
        return []
    if not any(map(_is_sentencepiece, folder.glob("*.model"))):
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
