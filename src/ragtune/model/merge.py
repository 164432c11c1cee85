"""The tuned model as others load it: an adapter merged into the full-precision base, or all weights."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch
from peft.tuners.lora import LoraLayer
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
from ragtune.model.merge_parts import (
    Parts,
    fill,
    fits,
    keeps_tensors,
    parts_of,
    write_parts,
)
from ragtune.model.quantized import quantization_of, require_mergeable, without_quantization
from ragtune.model.quiet import quiet
from ragtune.model.safety import ADAPTER, INDEX, WEIGHTS, parts_in
from ragtune.model.skeleton import has_own_code, skeleton, stays_float32
from ragtune.model.source import ModelSource
from ragtune.model.tensor_file import AHEAD
from ragtune.model.wrapping import adapters

_PROCESSORS = {FEATURE_EXTRACTOR_NAME, IMAGE_PROCESSOR_NAME, PROCESSOR_NAME, VIDEO_PROCESSOR_NAME}
"""Files by which pictures, sounds and videos are made into what a model reads."""


def merge(source: ModelSource, adapter: Path, encoder: Encoder, folder: Path) -> None:
    """Write base plus adapter, or a whole tuned model, as a plain bf16 model with tokenizer and settings.

    On the CPU, and from the base's own files: nothing is merged into 4-bit weights. One that is kept in
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
    whole = not (adapter / ADAPTER).exists()
    tuned = dataclasses.replace(source, path=str(adapter)) if whole else source
    config = load_config(tuned)
    require_mergeable(quantization_of(config, torch.device("cpu")))
    with busy("merging"), _too_little_memory(config, whole=whole):
        in_parts = None if whole else _in_parts(config, source, adapter)
        merged = (
            in_parts[0].model if in_parts else _merged(config, tuned, None if whole else adapter)
        )
    stop_generation_at(merged, encoder)
    if in_parts:
        size = sum(tensor.nbytes for tensor in in_parts[0].written.values())
    else:
        unread = _unread_weights(source, merged)
        size = 2 * merged.num_parameters() + sum(t.nbytes for t in unread.values())
    writing = busy("writing the merged model", size, growing=folder)
    with full_disk(folder, size), quiet(), writing:
        if in_parts:
            _save_settings(merged, folder)
            write_parts(*in_parts, folder, _require_finite_sum)
        else:
            merged.save_pretrained(
                folder, max_shard_size=SHARD_SIZE, state_dict={**merged.state_dict(), **unread}
            )
        encoder.tokenizer.save_pretrained(folder)
        for name in sorted(_PROCESSORS):
            if found := _file(source, name):
                shutil.copyfile(found, folder / name)


def _in_parts(
    config: PreTrainedConfig, source: ModelSource, adapter: Path
) -> tuple[Parts, dict[str, LoraLayer]] | None:
    """The base without weights and the adapter's layers, if they can be merged tensor by tensor."""
    if not _may_be_in_parts(config):
        return None
    base = load_model(
        source, Hardware(torch.device("meta"), _dtype(config), "merging", "CPU"), nf4=False
    )
    parts = parts_of(base, _weights(source), _unread_weights(source, base))
    if parts is None:
        return None
    layers = adapters(load_adapter(base, adapter))
    if not fits(parts, layers):
        return None
    _require_finite(fill(layers, adapter).items(), "apart")
    return parts, layers


def _save_settings(model: PreTrainedModel, folder: Path) -> None:
    """Write what lies beside the weights of a model that is written in bfloat16."""
    single = stays_float32(model)
    for name, parameter in model.named_parameters():
        if parameter.is_meta and not single(name):  # by which the configuration names the dtype
            parameter.data = parameter.data.to(torch.bfloat16)
    model.save_pretrained(folder, state_dict={})


def _require_finite_sum(name: str, base: torch.Tensor, merged: torch.Tensor) -> None:
    """Require of a merged weight to be finite; else it is said whether the base's was. Raises RagtuneError."""
    if not _is_finite(merged):
        _require_finite([(name, base)], "apart")
        _require_finite([(name, merged)], "merged")


def _merged(config: PreTrainedConfig, source: ModelSource, adapter: Path | None) -> PreTrainedModel:
    """A model in bfloat16 on the CPU, with its adapter in it if it has one."""
    hardware = Hardware(torch.device("cpu"), _dtype(config), "merging", "CPU")
    merged = load_model(source, hardware, nf4=False)
    if adapter:
        tuned = load_adapter(merged, adapter)
        _require_finite(tuned.named_parameters(), "apart")  # afterwards it can only be the sum
        with quiet():
            merged = tuned.merge_and_unload()
    single = stays_float32(merged)  # a router's bias, say
    for name, tensor in merged.state_dict(keep_vars=True).items():
        if tensor.is_floating_point() and not single(name):
            tensor.data = tensor.data.to(torch.bfloat16)
    _require_finite(merged.named_parameters(), "merged" if adapter else "whole")
    return merged


@contextlib.contextmanager
def _too_little_memory(config: PreTrainedConfig, *, whole: bool) -> Iterator[None]:
    """Say of a lack of memory how much is needed."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise RagtuneError(
            f"Merging needs {size_of(memory_needed(config))} of memory for the base: {error}",
            ("" if whole else "Set publish.format=adapter to publish what was trained alone, or ")
            + "merge on a machine with more memory: ragtune merge.",
        ) from error


def _is_finite(weight: torch.Tensor) -> bool:
    """Whether all of it is: a hundred times faster than by asking each number."""
    if not weight.numel() or not weight.is_floating_point():
        return True
    return bool(torch.stack(weight.aminmax()).isfinite().all())  # both are NaN where one number is


def _require_finite(
    weights: Iterable[tuple[str, torch.Tensor]], which: Literal["apart", "merged", "whole"]
) -> None:
    """Require that a model's weights are numbers: before its adapter is merged, after, or where there is none.

    Raises:
        RagtuneError: one is not finite; and whose it is.
    """
    name = next((name for name, weight in weights if not _is_finite(weight)), None)
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


def memory_needed(
    config: PreTrainedConfig, experts: Sequence[str] = (), *, whole: bool = False
) -> int:
    """Bytes of host memory that merging needs beside the adapter.

    Tensor by tensor that is room for a few of the largest; else that of the base, and to merge its largest
    matrix. The model is made without weights, so that every architecture counts as it is.

    Args:
        config: the model's.
        experts: names of the tensors of experts that have an adapter, which are merged whole.
        whole: whether the adapter does more than add to linear layers, so that the base must be in memory.

    Raises:
        UsageError: it is no causal language model.
    """
    model = skeleton(config)
    sizes = sorted(p.numel() for p in model.parameters())
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    vocabulary = {id(end.weight) for end in ends if end is not None}
    matrices = (p for p in model.parameters() if p.ndim == 2 and id(p) not in vocabulary)  # noqa: PLR2004 - a matrix
    # Of the matrix that is merged: the update in float32 and in bf16, a float32 and a bf16 copy.
    stacks = (model.get_parameter(name) for name in experts)
    merging = 12 * max((p.numel() for p in (*matrices, *stacks)), default=0)
    if not experts and not whole and _may_be_in_parts(config) and keeps_tensors(model):
        return int(merging + 2 * sum(sizes[-AHEAD - 2 :]))  # those in bf16 that wait for the disk
    return int(_dtype(config).itemsize * sum(sizes) + merging)


def _may_be_in_parts(config: PreTrainedConfig) -> bool:
    """Whether nothing but a base's tensors has to be looked at: it is plain, and of a class of transformers."""
    return not has_own_code(config) and without_quantization(config) is config


def _dtype(config: PreTrainedConfig) -> torch.dtype:
    """The dtype that is merged in: float32 if the weights are kept so, else bfloat16."""
    # What the configuration says of the file: tested by tests/model/test_merge.py for both.
    stored = getattr(config, "dtype", None)
    return torch.float32 if stored in (torch.float32, "float32") else torch.bfloat16
