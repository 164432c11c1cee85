"""The tuned model as others load it: an adapter merged into the full-precision base, or all weights."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import (
    FEATURE_EXTRACTOR_NAME,
    IMAGE_PROCESSOR_NAME,
    PROCESSOR_NAME,
    VIDEO_PROCESSOR_NAME,
    cached_file,
)

from ragtune.base.disk import full_disk
from ragtune.base.errors import RagtuneError, is_out_of_memory
from ragtune.base.screen.progress import busy
from ragtune.base.text import size_of
from ragtune.data.encode import Encoder
from ragtune.model.full import SHARD_SIZE
from ragtune.model.generation import stop_generation_at
from ragtune.model.hardware import Hardware
from ragtune.model.load import load_config, load_model
from ragtune.model.lora import load_adapter
from ragtune.model.quantized import quantization_of, require_mergeable
from ragtune.model.quiet import quiet
from ragtune.model.safety import ADAPTER, INDEX, WEIGHTS, parts_in
from ragtune.model.skeleton import skeleton, stays_float32
from ragtune.model.source import ModelSource
from ragtune.model.wrapping import Tuned

_PROCESSORS = {FEATURE_EXTRACTOR_NAME, IMAGE_PROCESSOR_NAME, PROCESSOR_NAME, VIDEO_PROCESSOR_NAME}
"""Files by which pictures, sounds and videos are made into what a model reads."""


def merge(source: ModelSource, adapter: Path, encoder: Encoder, folder: Path) -> None:
    """Write base plus adapter, or a whole tuned model, as a plain bf16 model with tokenizer and settings.

    The base is loaded again on the CPU: nothing is merged into 4-bit weights. One that is kept in
    float32 is merged in float32 and rounded once, so that a small update is not rounded away. The
    template's stop token ends generation in the merged model, too. What was not tuned comes along: a
    vision tower, its processors' files, weights that transformers does not read.

    Args:
        source: where the base is.
        adapter: the folder of the adapter, or of the tuned model.
        encoder: its tokenizer is written, too.
        folder: exists, and is empty.

    Raises:
        RagtuneError: too little memory, or the merge gives values that are not finite; a full disk.
    """
    with busy("merging"):
        merged = _merged(source, adapter)
    stop_generation_at(merged, encoder)
    unread = _unread_weights(source, merged)
    size = 2 * merged.num_parameters() + sum(t.nbytes for t in unread.values())
    writing = busy("writing the merged model", size, growing=folder)
    with full_disk(folder, size), quiet(), writing:
        merged.save_pretrained(
            folder, max_shard_size=SHARD_SIZE, state_dict={**merged.state_dict(), **unread}
        )
        encoder.tokenizer.save_pretrained(folder)
        for name in sorted(_PROCESSORS):
            if found := _file(source, name):
                shutil.copyfile(found, folder / name)


def _merged(source: ModelSource, adapter: Path) -> PreTrainedModel:
    """Base plus adapter, or the tuned model, in bfloat16, on the CPU."""
    if whole := not (adapter / ADAPTER).exists():
        source = dataclasses.replace(source, path=str(adapter))
    config = load_config(source)
    hardware = Hardware(torch.device("cpu"), _dtype(config), "merging", "CPU")
    require_mergeable(quantization_of(config, hardware.device))
    try:
        merged = load_model(source, hardware, nf4=False)
        if not whole:
            with quiet():
                tuned = load_adapter(merged, adapter)
                _require_finite(
                    tuned, "apart"
                )  # looked at before, so that afterwards it can only be the sum
                merged = tuned.merge_and_unload()
        single = stays_float32(merged)  # a router's bias, say
        for name, tensor in merged.state_dict(keep_vars=True).items():
            if tensor.is_floating_point() and not single(name):
                tensor.data = tensor.data.to(torch.bfloat16)
        _require_finite(merged, "whole" if whole else "merged")
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise RagtuneError(
            f"Merging needs {size_of(memory_needed(config))} of memory for the base: {error}",
            ("" if whole else "Set publish.format=adapter to publish what was trained alone, or ")
            + "merge on a machine with more memory: ragtune merge.",
        ) from error
    return merged


def _require_finite(model: Tuned, which: Literal["apart", "merged", "whole"]) -> None:
    """Require that a model's weights are numbers: before its adapter is merged, after, or where there is none.

    Raises:
        RagtuneError: one is not finite; and whose it is.
    """
    weights = model.named_parameters()
    name = next((name for name, weight in weights if not weight.isfinite().all()), None)
    if name is None:
        return
    problem = f"weights are not finite: {name}."
    if which == "merged":
        raise RagtuneError(
            f"The merged {problem} Base and adapter are; their sum is too large.",
            "Set publish.format=adapter, or train again with a lower train.learning_rate.",
        )
    if which == "whole" or "lora_" in name:
        what = "model" if which == "whole" else "adapter"
        raise RagtuneError(f"The {what}'s {problem}", f"The {what} diverged; train it again.")
    raise RagtuneError(
        f"The base model's {problem}",
        "Set publish.format=adapter, or name another model: this one was saved so.",
    )


def _unread_weights(source: ModelSource, model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The base's tensors that the model's class leaves unread, as layers that predict further tokens are.

    Engines that do read them would miss them in the merged model. Names are those of the file.
    """
    patterns = [re.compile(p) for p in model._keys_to_ignore_on_load_unexpected or ()]  # noqa: SLF001 - no public way
    read, prefix = model.state_dict().keys(), model.base_model_prefix
    found: dict[str, torch.Tensor] = {}
    for path in _weights(source) if patterns else ():
        with safe_open(path, "pt") as file:
            # A pattern is meant for names that the model lacks: GPT-2's "attn.bias" fits others, too.
            names = [n for n in file.keys() if n not in read and f"{prefix}.{n}" not in read]  # noqa: SIM118 - no mapping
            names = [n for n in names if any(p.search(n) for p in patterns)]
            found |= {name: file.get_tensor(name) for name in names}
    return found


def _weights(source: ModelSource) -> Iterator[Path]:
    """The base's files of weights, as transformers finds them."""
    if single := _file(source, WEIGHTS):
        yield single
    elif index := _file(source, INDEX):
        yield from filter(None, (_file(source, name) for name in sorted(parts_in(index))))


def _file(source: ModelSource, name: str) -> Path | None:
    """A file of a model, from its folder or the Hub's cache; downloaded if it is not there yet."""
    with quiet():
        found = cached_file(
            source.path,
            name,
            revision=source.revision,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    return Path(found) if found else None


def memory_needed(config: PreTrainedConfig, experts: Sequence[str] = ()) -> int:
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
    matrices = (p for p in model.parameters() if p.ndim == 2 and id(p) not in vocabulary)  # noqa: PLR2004 - a matrix
    # Of the matrix that is merged: the update in float32 and in bf16, a float32 and a bf16 copy.
    stacks = (model.get_parameter(name) for name in experts)
    largest = max((p.numel() for p in (*matrices, *stacks)), default=0)
    return int(_dtype(config).itemsize * weights + 12 * largest)


def _dtype(config: PreTrainedConfig) -> torch.dtype:
    """The dtype that is merged in: float32 if the weights are kept so, else bfloat16."""
    # What the configuration says of the file: tested by tests/model/test_merge.py for both.
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
