"""A base that one GPU can't hold, spread over the ranks: each has a share of every layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import psutil
import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from ragtune.base.errors import UsageError
from ragtune.distributed.sharded import Passes, difference, layers_of, shared_between
from ragtune.distributed.world import World
from ragtune.model.hardware import Hardware
from ragtune.model.nf4 import linear_layers, pack, packed, round_to_nf4, tell_peft
from ragtune.model.wrapping import digest_of

_CANNOT = "The base doesn't fit on one GPU, and can't be spread over several: "
_TRIED = 1024, 512
"""Numbers into and out of the layer that is tried: of so many bytes some are a NaN as numbers of 16 bits."""

NF4 = Literal["packed", "rounded"]
"""What NF4 makes of weights: bytes, or numbers of their own dtype."""


def spread(
    load: Callable[[], PreTrainedModel], hardware: Hardware, world: World, *, nf4: NF4 | None
) -> PreTrainedModel:
    """Load a model and leave this rank its share, on its device; then every pass is one of all ranks.

    A machine has files in its memory once, whichever ranks read them. Where loading makes other weights of
    them, of another dtype for example, a rank has its own ones meanwhile: the ranks then take turns.

    Args:
        load: gives the model, whole, on the CPU, the same on every rank.
        hardware: of this rank.
        world: all ranks.
        nf4: what becomes of the linear layers' weights before.

    Raises:
        UsageError: the model can't be spread.
        RagtuneError: a rank has other weights.
    """
    world.join()
    if nf4 == "packed":
        _require_packed(hardware, world)
    passes = Passes(hardware.device, world.together)
    before = _own_memory()
    model = load() if world.leads else None
    in_turn = bool(world.agree(model is not None and _own_memory() - before > _size_of(model) / 2))
    if not in_turn:
        model = model or load()
        digests = _share_out(model, hardware, passes, nf4)
    for turn in range(world.size if in_turn else 0):
        if turn == world.rank:
            model = model or load()
            digests = _share_out(model, hardware, passes, nf4)
        world.await_all()
    assert model is not None
    world.require_same(digests, "The model's weights")  # type: ignore[arg-type]
    world.share(passes)
    return model


def _own_memory() -> int:
    """Bytes that this process has for itself, without the files that it reads."""
    used = psutil.Process().memory_info()
    return used.rss - getattr(used, "shared", used.rss)  # type: ignore[no-any-return]


def _size_of(model: PreTrainedModel) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())


def _share_out(
    model: PreTrainedModel, hardware: Hardware, passes: Passes, nf4: NF4 | None
) -> list[str]:
    """Leave this rank its share of a model, a layer after the other; returns the whole weights' digests.

    Raises:
        UsageError: it can't be spread.
    """
    layers = layers_of(model)
    if not layers or shared_between(layers):
        raise UsageError(
            _CANNOT + ("its layers share weights." if layers else "its layers stand in no list."),
            "Use a GPU with more memory, or name a smaller model.",
        )
    left = set(linear_layers(model)) if nf4 else set()
    digests = []
    for layer in layers:
        layer.to(hardware.device)  # where the sum is fast, too
        digests.append(digest_of(layer))
        chosen = left.intersection(layer.modules())
        left -= chosen  # what is packed takes memory as long as it is known
        if nf4 == "rounded":
            round_to_nf4(chosen)
        if nf4 == "packed":
            pack(layer, chosen, hardware.dtype)
        chosen.clear()
        passes.spread(layer)
        if nf4 == "packed":
            tell_peft(model, layer)
    digests.append(digest_of(model))  # what is outside of the layers
    passes.spread(model, outermost=True)
    return digests


def _require_packed(hardware: Hardware, world: World) -> None:
    """Require that a layer in NF4 computes the same when it is spread: some versions gave a loss of 0, or NaN.

    Raises:
        UsageError: it doesn't.
    """
    generator = torch.Generator().manual_seed(0)
    inner, outer = _TRIED
    plain = nn.Linear(inner, outer, bias=False, dtype=hardware.dtype)
    plain.weight.data = torch.randn(outer, inner, generator=generator).to(
        hardware.device, hardware.dtype
    )
    x = torch.randn(5, inner, generator=generator).to(hardware.device, hardware.dtype)
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
