"""What of a base belongs to a merged model, though no adapter touches it and no text needs it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ragtune.model.load import quiet
from ragtune.model.source import ModelSource


def copy_processors(source: ModelSource, folder: Path) -> None:
    """Copy the files by which pictures, sounds and videos are made into what the model reads."""
    from transformers.utils import (
        FEATURE_EXTRACTOR_NAME,
        IMAGE_PROCESSOR_NAME,
        PROCESSOR_NAME,
        VIDEO_PROCESSOR_NAME,
    )

    names = {FEATURE_EXTRACTOR_NAME, IMAGE_PROCESSOR_NAME, PROCESSOR_NAME, VIDEO_PROCESSOR_NAME}
    for name in sorted(names):
        if found := _file(source, name):
            shutil.copyfile(found, folder / name)


def unread_weights(source: ModelSource, model: Any) -> dict[str, Any]:
    """The base's tensors that the model's class leaves unread, as layers that predict further tokens are.

    Engines that do read them would miss them in the merged model. Names are those of the file.
    """
    from safetensors import safe_open

    patterns = [re.compile(p) for p in model._keys_to_ignore_on_load_unexpected or ()]  # noqa: SLF001 - no public way
    read, prefix = model.state_dict().keys(), model.base_model_prefix
    found: dict[str, Any] = {}
    for path in _weights(source) if patterns else ():
        with safe_open(path, "pt") as file:
            # A pattern is meant for names that the model lacks: GPT-2's "attn.bias" fits others, too.
            names = [n for n in file.keys() if n not in read and f"{prefix}.{n}" not in read]  # noqa: SIM118 - no mapping
            names = [n for n in names if any(p.search(n) for p in patterns)]
            found |= {name: file.get_tensor(name) for name in names}
    return found


def _weights(source: ModelSource) -> Iterator[Path]:
    """The base's files of weights, as transformers finds them."""
    from ragtune.base.files import read_json

    if single := _file(source, "model.safetensors"):
        yield single
    elif index := _file(source, "model.safetensors.index.json"):
        for name in sorted(set(read_json(index)["weight_map"].values())):
            if part := _file(source, name):
                yield part


def _file(source: ModelSource, name: str) -> Path | None:
    """A file of a model, from its folder or the Hub's cache; downloaded if it is not there yet."""
    from transformers.utils import cached_file

    with quiet():
        found = cached_file(
            source.path,
            name,
            revision=source.revision,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    return Path(found) if found else None
