"""Merging the adapter into the full-precision base."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from ragtune.data.encode import Encoder
from ragtune.errors import RagtuneError
from ragtune.files import making_folder
from ragtune.model.load import Hardware, load_config, load_model, quiet, stop_generation_at
from ragtune.model.lora import load_adapter
from ragtune.model.source import ModelSource

SHARD_SIZE = "2GB"


def merge(source: ModelSource, adapter: Path, encoder: Encoder, folder: Path) -> None:
    """Write base plus adapter as a plain bf16 model with tokenizer and generation settings.

    The base is loaded again in bfloat16 on the CPU: nothing is merged into 4-bit weights. The
    template's stop token ends generation in the merged model, too.

    Raises:
        RagtuneError: too little memory, or the merge gives values that are not finite.
    """
    hardware = Hardware(torch.device("cpu"), torch.bfloat16, "merging", "CPU")
    try:
        base = load_model(source, hardware, nf4=False)
        with quiet():
            merged = load_adapter(base, adapter).merge_and_unload(safe_merge=True)
    except (MemoryError, RuntimeError) as error:
        raise RagtuneError(
            f"Merging needs {_gib(source)} of memory for the bf16 base: {error}",
            "Set publish.format=adapter to publish what was trained alone, or merge on a machine "
            "with more memory: ragtune merge.",
        ) from error
    except ValueError as error:  # safe_merge found NaN
        raise RagtuneError(
            f"The merged weights are not finite: {error}.", "The adapter diverged; train it again."
        ) from error
    stop_generation_at(merged, encoder)
    with making_folder(folder) as partial, quiet():
        merged.save_pretrained(partial, max_shard_size=SHARD_SIZE)
        encoder.tokenizer.save_pretrained(partial)


def memory_needed(config: Any) -> int:
    """Bytes of host memory that merging needs: the bf16 base, and the largest matrix in float32."""
    text = config.get_text_config()
    hidden, layers = int(text.hidden_size), int(text.num_hidden_layers)
    inner = int(getattr(text, "intermediate_size", 0) or 4 * hidden)
    experts = int(getattr(text, "num_local_experts", 0) or getattr(text, "num_experts", 0) or 1)
    vocabulary = int(text.vocab_size)
    weights = layers * (4 * hidden * hidden + 3 * hidden * inner * experts) + 2 * vocabulary * hidden
    return 2 * weights + 8 * max(vocabulary, inner) * hidden


def available_memory() -> int | None:
    """Bytes of host memory that a new program can have, or None where it isn't known."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def free_disk(path: Path) -> int:
    return shutil.disk_usage(path).free


def _gib(source: ModelSource) -> str:
    return f"{memory_needed(load_config(source)) / 2**30:.1f} GiB"
