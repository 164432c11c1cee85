"""A base that one GPU can't hold, spread over the ranks: each has a share of every layer."""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from ragtune.base.errors import UsageError
from ragtune.distributed.sharded import Passes, difference, layers_of, shared_between
from ragtune.distributed.world import World
from ragtune.model.hardware import Hardware
from ragtune.model.nf4 import linear_layers, pack, packed, tell_peft
from ragtune.model.wrapping import digest_of

_CANNOT = "The base doesn't fit on one GPU, and can't be spread over several: "


def spread(model: PreTrainedModel, hardware: Hardware, world: World, *, nf4: bool) -> None:
    """Leave this rank its share of a model, on its device; from then on every pass is one of all ranks.

    Args:
        model: whole, on the CPU, the same on every rank.
        hardware: of this rank.
        world: all ranks.
        nf4: whether the linear layers' weights are quantised before.

    Raises:
        UsageError: the model can't be spread.
        RagtuneError: a rank has other weights.
    """
    layers, device = layers_of(model), hardware.device
    if not layers or shared_between(layers):
        raise UsageError(
            _CANNOT + ("its layers share weights." if layers else "its layers stand in no list."),
            "Use a GPU with more memory, or name a smaller model.",
        )
    world.join()
    chosen = set(linear_layers(model)) if nf4 else set()
    if nf4:
        _require_packed(hardware, world)
    passes = Passes(model, device, world.together)
    digests = []
    for layer in layers:
        layer.to(device)  # where the sum is fast, too
        digests.append(digest_of(layer))
        pack(layer, chosen, hardware.dtype)
        passes.spread(layer)
        if nf4:
            tell_peft(model, layer)
    digests.append(digest_of(model))  # what is outside of the layers
    world.require_same(digests, "The model's weights")  # type: ignore[arg-type]
    passes.spread(model)
    world.share(passes)


def _require_packed(hardware: Hardware, world: World) -> None:
    """Require that a layer in NF4 computes the same when it is spread: some versions gave a loss of 0, or NaN.

    Raises:
        UsageError: it doesn't.
    """
    generator = torch.Generator().manual_seed(0)
    plain = nn.Linear(128, 96, bias=False, dtype=hardware.dtype)
    plain.weight.data = torch.randn(96, 128, generator=generator).to(
        hardware.device, hardware.dtype
    )
    x = torch.randn(5, 128, generator=generator).to(hardware.device, hardware.dtype)
    found = difference(lambda: nn.Sequential(packed(plain, hardware.dtype)), x)
    if any(world.any(bool(found))):
        raise UsageError(
            f"{_CANNOT}its weights are in NF4, and bitsandbytes is wrong where they are spread: "
            f"{found or 'on another rank'}.",
            "Use another version of bitsandbytes, more GPUs with model.quantization=null, or GPUs with more "
            "memory.",
        )


def is_spread(model: PreTrainedModel) -> bool:
    """Whether a model's weights are spread over the ranks."""
    return isinstance(model.get_input_embeddings().weight, DTensor)
