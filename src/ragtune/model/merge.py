"""Merging the adapter into the full-precision base."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ragtune.base.errors import RagtuneError, is_out_of_memory
from ragtune.base.files import making_folder
from ragtune.data.encode import Encoder
from ragtune.model.beside import copy_processors, unread_weights
from ragtune.model.load import (
    Hardware,
    load_config,
    load_model,
    quiet,
    stop_generation_at,
)
from ragtune.model.lora import load_adapter
from ragtune.model.quantized import refuse_merging, see_quantized
from ragtune.model.skeleton import skeleton, stays_float32
from ragtune.model.source import ModelSource

SHARD_SIZE = "2GB"


def merge(source: ModelSource, adapter: Path, encoder: Encoder, folder: Path) -> None:
    """Write base plus adapter as a plain bf16 model with tokenizer and generation settings.

    The base is loaded again on the CPU: nothing is merged into 4-bit weights. One that is kept in
    float32 is merged in float32 and rounded once, so that a small update is not rounded away. The
    template's stop token ends generation in the merged model, too. What was not tuned comes along: a
    vision tower, its processors' files, weights that transformers does not read.

    Raises:
        RagtuneError: too little memory, or the merge gives values that are not finite.
    """
    config = load_config(source)
    hardware = Hardware(torch.device("cpu"), _dtype(config), "merging", "CPU")
    refuse_merging(see_quantized(config, hardware.device))
    try:
        base = load_model(source, hardware, nf4=False)
        with quiet():
            tuned = load_adapter(base, adapter)
            _see_finite(tuned)  # looked at before, so that afterwards it can only be the sum
            merged = tuned.merge_and_unload()
        _to_bfloat16(merged)
        _see_finite(merged, merged=True)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise RagtuneError(
            f"Merging needs {_gib(source)} of memory for the base: {error}",
            "Set publish.format=adapter to publish what was trained alone, or merge on a machine "
            "with more memory: ragtune merge.",
        ) from error
    stop_generation_at(merged, encoder)
    unread = unread_weights(source, merged)
    size = 2 * merged.num_parameters() + sum(t.nbytes for t in unread.values())
    with making_folder(folder, size) as partial, quiet():
        merged.save_pretrained(
            partial, max_shard_size=SHARD_SIZE, state_dict={**merged.state_dict(), **unread}
        )
        encoder.tokenizer.save_pretrained(partial)
        copy_processors(source, partial)


def _to_bfloat16(model: Any) -> None:
    """Round weights to bfloat16, but for those that transformers keeps in float32 (a router's bias, say)."""
    single = stays_float32(model)
    for name, tensor in model.state_dict(keep_vars=True).items():
        if tensor.is_floating_point() and not single(name):
            tensor.data = tensor.data.to(torch.bfloat16)


def _see_finite(model: Any, *, merged: bool = False) -> None:
    """See that a model's weights are numbers, before its adapter is merged and after.

    Raises:
        RagtuneError: one is not finite; whether it is the adapter's, the base's or their sum.
    """
    weights = model.named_parameters()
    name = next((name for name, weight in weights if not weight.isfinite().all()), None)
    if name is None:
        return
    if merged:
        raise RagtuneError(
            f"The merged weights are not finite: {name}. Base and adapter are; their sum is too large.",
            "Set publish.format=adapter, or train again with a lower train.learning_rate.",
        )
    if "lora_" in name:
        raise RagtuneError(
            f"The adapter's weights are not finite: {name}.",
            "The adapter diverged; train it again.",
        )
    raise RagtuneError(
        f"The base model's weights are not finite: {name}.",
        "Set publish.format=adapter, or name another model: this one was saved so.",
    )


def memory_needed(config: Any, experts: Sequence[str] = ()) -> int:
    """Bytes of host memory that merging needs: the base, and room to merge its largest matrix.

    The model is made without weights, so that every architecture counts as it is.

    Args:
        config: the model's.
        experts: names of the tensors of experts that have an adapter, which are merged whole.

    Raises:
        UsageError: it is no causal language model.
    """
    model = skeleton(config)
    weights = sum(p.numel() for p in model.parameters())
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    vocabulary = {id(end.weight) for end in ends if end is not None}
    matrices = (p for p in model.parameters() if p.ndim == 2 and id(p) not in vocabulary)  # noqa: PLR2004
    # Of the matrix that is merged: the update in float32 and in bf16, a float32 and a bf16 copy.
    stacks = (model.get_parameter(name) for name in experts)
    largest = max((p.numel() for p in (*matrices, *stacks)), default=0)
    return int(_dtype(config).itemsize * weights + 12 * largest)


def _dtype(config: Any) -> torch.dtype:
    """The dtype that is merged in: float32 if the weights are kept so, else bfloat16."""
    # What the configuration says of the file: tested by tests/publish/test_merge.py for both.
    stored = getattr(config, "dtype", None)
    return torch.float32 if stored in (torch.float32, "float32") else torch.bfloat16


def available_memory() -> int | None:
    """Bytes of host memory that a new program can have, or None where it isn't known.

    In a container the control group's limit counts as well as the machine's memory.
    """
    known = [
        int(line.split()[1]) * 1024
        for line in _read("/proc/meminfo").splitlines()
        if line.startswith("MemAvailable:")
    ]
    limit, used = (_read(f"/sys/fs/cgroup/memory.{n}").strip() for n in ("max", "current"))
    if limit.isdigit() and used.isdigit():
        known.append(int(limit) - int(used))
    return min(known, default=None)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except OSError:
        return ""


def free_disk(path: Path) -> int:
    return shutil.disk_usage(path).free


def _gib(source: ModelSource) -> str:
    return f"{memory_needed(load_config(source)) / 2**30:.1f} GiB"
