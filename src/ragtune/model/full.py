"""Full tuning: all weights of a model learn. What was tuned is a whole model, and lies in files as one.

The weights that learn are float32, whatever the base is, as adapters are: in bfloat16 an update below a
256th of a weight would be rounded away. On a GPU products are computed in the dtype of the run (autocast).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import PreTrainedModel

from ragtune.base.errors import UsageError
from ragtune.model.hardware import Hardware
from ragtune.model.load import load_model
from ragtune.model.quantized import Quantized
from ragtune.model.quiet import quiet
from ragtune.model.source import ModelSource
from ragtune.model.tensor_file import save_tensors, saving_by

SHARD_SIZE = "2GB"
"""Of a file of weights."""


def require_plain(quantized: Quantized | None) -> None:
    """Require that a base's weights can be trained themselves.

    Raises:
        UsageError: they come quantised, and stay so.
    """
    if quantized and not quantized.dequantized:
        raise UsageError(
            f"tuning: full trains all weights, and those of this base are packed ({quantized.kind}).",
            "Name the model as it was before it was quantised, or set tuning=lora.",
        )


@contextmanager
def in_float32(model: PreTrainedModel) -> Iterator[None]:
    """Keep the weights that learn in float32; in the end all are frozen, and have their own dtype again."""
    learning = {p: p.dtype for p in model.parameters() if p.requires_grad}
    for parameter in learning:
        parameter.data = parameter.data.float()
    yield
    model.requires_grad_(requires_grad=False)
    for parameter, dtype in learning.items():
        parameter.data = parameter.data.to(dtype)


def save_whole(model: PreTrainedModel, folder: Path) -> None:
    """Write a model's weights as they are, with its configuration."""
    with quiet(), saving_by(save_tensors):
        model.save_pretrained(folder, max_shard_size=SHARD_SIZE)


def read_into(model: PreTrainedModel, folder: Path, *, trust_remote_code: bool) -> None:
    """Give a model the weights of a checkpoint.

    Not by the names in its files: transformers writes some under others than the model has.
    """
    source = ModelSource(str(folder), None, trust_remote_code=trust_remote_code)
    cpu = Hardware(torch.device("cpu"), torch.float32, "a checkpoint", "CPU")
    model.load_state_dict(load_model(source, cpu, nf4=False).state_dict())
