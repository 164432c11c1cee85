"""A model's tensors as llama.cpp has them: their names, and what it keeps otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import PreTrainedConfig

from ragtune.base.errors import RagtuneError
from ragtune.model.to_gguf.shapes import OTHERWISE, Shape, rotation_factors

_NOT_LANGUAGE = re.compile(r"(^|\.)(vision_tower|vision_model|multi_modal_projector|visual)\.")
_WRAPPED = re.compile(r"^(model\.)?language_model\.(model\.)?")
_MATRIX = 2


@dataclass(frozen=True)
class Entry:
    """A tensor of the file."""

    name: str
    """In GGUF."""
    shape: tuple[int, ...]
    path: Path | None
    """The file of safetensors that holds it; None for one that is computed."""
    stored: str
    """Its name there."""


@dataclass(frozen=True)
class Tensors:
    """The tensors of a merged model, which are read one at a time: the model needn't fit into memory."""

    config: PreTrainedConfig
    shape: Shape
    entries: tuple[Entry, ...]

    def read(self, entry: Entry) -> torch.Tensor:
        """A tensor as llama.cpp has it: matrices in the type in which they are kept, the rest in float32."""
        if entry.path is None:
            factors = rotation_factors(self.config)
            assert factors is not None
            return factors
        with safe_open(entry.path, "pt") as file:
            tensor: torch.Tensor = file.get_tensor(entry.stored)
        if self.shape.norm_plus_one and tensor.ndim < _MATRIX:
            return tensor.float() + 1
        heads = self._heads(entry.stored)
        if heads and self.shape.interleaved:
            tensor = _interleaved(tensor, heads)
        return tensor if tensor.ndim >= _MATRIX else tensor.float()

    def _heads(self, stored: str) -> int:
        """The heads of a projection that is rotated; 0 for others."""
        text = self.config.get_text_config()
        if ".self_attn.q_proj." in stored:
            return int(text.num_attention_heads)
        return int(text.num_key_value_heads) if ".self_attn.k_proj." in stored else 0


def _interleaved(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of a rotated projection: transformers turns row i with row i + half, llama.cpp with the next."""
    halves = tensor.reshape(heads, 2, -1, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape)


def tensors_of(folder: Path, config: PreTrainedConfig, shape: Shape) -> Tensors:
    """The tensors of a merged model; those of its vision are left out.

    Raises:
        RagtuneError: llama.cpp has no place for one.
    """
    entries = [*_found(folder, config, shape)]
    if (factors := rotation_factors(config)) is not None:
        entries.append(Entry("rope_freqs.weight", tuple(factors.shape), None, ""))
    return Tensors(config, shape, tuple(entries))


def _found(folder: Path, config: PreTrainedConfig, shape: Shape) -> Iterator[Entry]:
    import gguf  # noqa: PLC0415 - an extra

    text = config.get_text_config()
    arch = next(a for a, name in gguf.MODEL_ARCH_NAMES.items() if name == shape.arch)
    names = gguf.get_tensor_name_map(arch, text.num_hidden_layers)
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for stored in file.keys():  # noqa: SIM118 - no mapping
                plain = _WRAPPED.sub("model.", stored).replace("model.lm_head", "lm_head")
                if _NOT_LANGUAGE.search(stored) or (
                    text.tie_word_embeddings and plain == "lm_head.weight"
                ):
                    continue
                name = names.get_name(plain, try_suffixes=(".weight", ".bias"))
                if name is None:
                    raise RagtuneError(
                        f"llama.cpp has no place for the tensor {stored}.", OTHERWISE
                    )
                yield Entry(name, tuple(file.get_slice(stored).get_shape()), path, stored)
