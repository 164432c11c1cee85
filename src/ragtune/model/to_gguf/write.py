"""GGUF files of a merged model: for llama.cpp, Ollama, and what is built on them."""

from __future__ import annotations

import contextlib
import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from transformers import PreTrainedConfig

from ragtune.base.commands import install
from ragtune.base.disk import full_disk
from ragtune.base.errors import UsageError
from ragtune.base.screen.progress import busy
from ragtune.data.encode import Encoder
from ragtune.model.to_gguf.shapes import Shape, settings, shape_of
from ragtune.model.to_gguf.tensors import Entry, Tensors, tensors_of
from ragtune.model.to_gguf.vocabulary import Vocabulary, vocabulary_of

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, GGUFWriter

FILES: Mapping[str, str] = {"BF16": "model-bf16.gguf", "Q8_0": "model-q8_0.gguf"}
"""The file of each type of weights; the second is what people run."""
_MATRIX = 2


@dataclass(frozen=True)
class Gguf:
    """Everything that the GGUF files of a merged model say."""

    name: str
    config: PreTrainedConfig
    shape: Shape
    vocabulary: Vocabulary
    tensors: Tensors


def require_gguf() -> None:
    """Require the library that writes GGUF.

    Raises:
        UsageError: it is not installed.
    """
    if importlib.util.find_spec("gguf") is None:
        raise UsageError(
            "publish.format=gguf needs the library gguf, which is not installed.",
            f"Run: {install('gguf', 'xllamacpp')}",
        )


def gguf_of(merged: Path, name: str, config: PreTrainedConfig, encoder: Encoder) -> Gguf:
    """What is to be written of a merged model.

    Args:
        merged: its folder.
        name: what the file calls it.
        config: the model's.
        encoder: of the run.

    Raises:
        UsageError: llama.cpp wouldn't compute this model, or wouldn't cut texts, as transformers does.
    """
    require_gguf()
    shape = shape_of(config)
    vocabulary = vocabulary_of(encoder, int(config.get_text_config().vocab_size))
    return Gguf(name, config, shape, vocabulary, tensors_of(merged, config, shape))


def write_gguf(made: Gguf, kind: str, path: Path) -> None:
    """Write one file.

    Args:
        made: what it says.
        kind: of its matrices, a key of `FILES`; the rest is in float32.
        path: of the file, which is not there yet.
    """
    import gguf  # noqa: PLC0415 - an extra

    wanted = gguf.GGMLQuantizationType[kind]
    kinds = {e.name: _kind_of(e, wanted) for e in made.tensors.entries}
    size = sum(_bytes(e.shape, kinds[e.name]) for e in made.tensors.entries)
    writer = gguf.GGUFWriter(path, made.shape.arch)
    _describe(writer, made)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind}"])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for e in made.tensors.entries:
        of = kinds[e.name]
        writer.add_tensor_info(e.name, e.shape, np.dtype(np.float32), _bytes(e.shape, of), of)
    writing = busy(f"writing {path.name}", size, growing=path)
    with contextlib.closing(writer), full_disk(path.parent, size), writing:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for e in made.tensors.entries:  # in this order they were announced
            tensor = made.tensors.read(e).float().numpy()
            writer.write_tensor_data(gguf.quants.quantize(tensor, kinds[e.name]))


def _kind_of(entry: Entry, wanted: GGMLQuantizationType) -> GGMLQuantizationType:
    """The type of a tensor: vectors in float32, and rows that can't be cut into blocks in bf16."""
    import gguf  # noqa: PLC0415 - an extra

    if len(entry.shape) < _MATRIX:
        return gguf.GGMLQuantizationType.F32
    block, _ = gguf.GGML_QUANT_SIZES[wanted]
    return wanted if entry.shape[-1] % block == 0 else gguf.GGMLQuantizationType.BF16


def _bytes(shape: tuple[int, ...], kind: GGMLQuantizationType) -> int:
    import gguf  # noqa: PLC0415 - an extra

    block, size = gguf.GGML_QUANT_SIZES[kind]
    return math.prod(shape) // int(block) * int(size)


def _describe(writer: GGUFWriter, made: Gguf) -> None:
    """Write what the file says beside the tensors."""
    import gguf  # noqa: PLC0415 - an extra

    writer.add_name(made.name)
    for name, value in settings(made.config, made.shape).items():
        said = gguf.RopeScalingType(value) if name == "rope_scaling_type" else value
        getattr(writer, f"add_{name}")(said)
    found = made.vocabulary
    writer.add_tokenizer_model(found.model)
    writer.add_tokenizer_pre(found.pre)
    writer.add_token_list(found.tokens)
    writer.add_token_types(found.kinds)
    if found.scores is not None:
        writer.add_token_scores(found.scores)
    if found.merges is not None:
        writer.add_token_merges(found.merges)
    for name, i in found.special.items():
        getattr(writer, f"add_{name}_token_id")(i)
    writer.add_add_bos_token(found.begins)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(found.space_before)
    writer.add_chat_template(found.template)
