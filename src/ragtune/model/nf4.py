"""NF4 without transformers' loading: weights that are rounded to it, and layers that are packed one by one."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.quantizers import HfQuantizer
from transformers.quantizers.quantizers_utils import should_convert_module


def linear_layers(model: PreTrainedModel) -> list[nn.Linear]:
    """The layers that NF4 is for, also of Conv1D: transformers' choice, as when it quantises itself."""
    asked = model._keep_in_fp32_modules  # noqa: SLF001 - what transformers' own quantizers ask
    kept = HfQuantizer.get_modules_to_not_convert(model, None, asked)
    return [
        module
        for name, module in model.named_modules()
        if (isinstance(module, Conv1D) or type(module) is nn.Linear)
        and should_convert_module(name, kept)
    ]


def _weight(layer: nn.Linear) -> torch.Tensor:
    """A layer's weight [out, in], as it is quantised."""
    weight: torch.Tensor = layer.weight.data
    return (weight.T if isinstance(layer, Conv1D) else weight).contiguous()


def round_to_nf4(layers: Iterable[nn.Linear]) -> None:
    """Replace layers' weights with what NF4 makes of them, in their own dtype.

    They are then those with which a quantised model computes, to the bit, without being dequantised
    at every use.
    """
    # tests/model/fast/test_lora.py (GPU) compares it with the quantised model.
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit  # noqa: PLC0415 - an extra

    for layer in layers:
        rounded = dequantize_4bit(*quantize_4bit(_weight(layer), quant_type="nf4"))
        turned = isinstance(layer, Conv1D)  # its weight stands the other way round
        layer.weight.data = rounded.T.contiguous() if turned else rounded


def pack(part: nn.Module, layers: Collection[nn.Linear], dtype: torch.dtype) -> None:
    """Put layers in NF4 in the place of those of a part of a model that are on their device already."""
    for parent in list(part.modules()):
        for name, layer in list(parent.named_children()):
            if layer in layers:
                setattr(parent, name, packed(cast("nn.Linear", layer), dtype))


def packed(layer: nn.Linear, dtype: torch.dtype) -> nn.Linear:
    """A layer in NF4, frozen, that computes in a dtype."""
    from bitsandbytes.nn import Linear4bit, Params4bit  # noqa: PLC0415 - an extra

    weight = _weight(layer)
    # Before torch 2.13 FSDP takes no whole numbers. Not as numbers of 16 bits: gathering them on a GPU goes
    # through float32, and bytes that happen to be a NaN come out as another one.
    storage = torch.float32 if weight.numel() % 8 == 0 else torch.uint8
    with torch.device("meta"):
        found: nn.Linear = Linear4bit(
            weight.shape[1], weight.shape[0], bias=False, compute_dtype=dtype,
            compress_statistics=False, quant_type="nf4", quant_storage=storage,
        )  # fmt: skip
    found.weight = Params4bit(
        weight, quant_type="nf4", compress_statistics=False, quant_storage=storage, module=found
    ).to(weight.device)
    found.bias = layer.bias
    return found


def tell_peft(model: PreTrainedModel, part: nn.Module) -> None:
    """Say of packed layers what PEFT asks their weights, which are other objects once they are spread."""
    from bitsandbytes.nn import Linear4bit  # noqa: PLC0415 - an extra

    model.is_loaded_in_4bit = True
    for layer in part.modules():
        if isinstance(layer, Linear4bit):
            layer.weight.compress_statistics, layer.weight.quant_type = False, "nf4"
