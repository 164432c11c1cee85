"""Linear layers that compute in 8 bits in the place of a model's own, on a device that was tried.

Axes in names: T tokens, K what a product sums over.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator

import torch
from torch import nn

from ragtune.base.errors import UsageError, is_out_of_memory
from ragtune.base.text import first_line
from ragtune.model.fast import eight
from ragtune.model.fast.eight import (
    FORMAT,
    EightBit,
    PackedEightBit,
    Rows,
    plain_product,
    quantize,
    quantized_plainly,
)

MULTIPLE = 16
"""Of which both sizes of a layer must be one."""
_ALLOWED = 0.02
"""What the GPU's product may differ by from that of the same bytes in float32: bfloat16 rounds it."""
_ANSWERING, _TRAINING = ((1, 1), (2, 1), (65, 1)), ((65, 1), (65, 2), (65, 3))
"""What is tried: tokens, and the parts that stand beside each other."""


def convert(model: nn.Module, names: Collection[str], key: str = "train.products") -> int:
    """Let the named linear layers of a model compute in 8 bits; returns how many do.

    Those of other kinds, and of sizes that don't fit, stay as they are.

    Args:
        model: it is changed in place.
        names: of the layers.
        key: of the recipe, which asks for it.

    Raises:
        UsageError: none of them can; or the device can't, or computes something else.
    """
    found: list[EightBit] = []
    for name in names:
        parent, _, own = name.rpartition(".")
        layer = model.get_submodule(name)
        with _refusing(key, "rounding weights"):
            instead = _in_8_bits(layer)
        if instead is not None:
            setattr(model.get_submodule(parent), own, instead)
            found.append(instead)
    if not found:
        raise UsageError(
            f"{key}: fp8: none of the model's linear layers can compute in 8 bits: their sizes must "
            f"be multiples of {MULTIPLE}, and their weights numbers or in NF4.",
            _without(key),
        )
    for layer in {(one.in_features, one.out_features): one for one in found}.values():
        _require_right(layer, key)
    return len(found)


def _in_8_bits(layer: nn.Module) -> EightBit | None:
    """What takes a layer's place, by how its weight is there; None where it stays."""
    if (
        not isinstance(layer, nn.Linear)
        or layer.in_features % MULTIPLE
        or layer.out_features % MULTIPLE
    ):
        return None
    if type(layer) is nn.Linear and layer.weight.is_floating_point():
        return EightBit(layer)
    # bitsandbytes' names, as in `lora`; its other format of 4 bits is none that ragtune makes.
    state = getattr(layer.weight, "quant_state", None)
    is_nf4 = type(layer).__name__ == "Linear4bit" and getattr(state, "quant_type", "") == "nf4"
    return PackedEightBit(layer) if is_nf4 else None


def _without(key: str) -> str:
    return f"Set {key}=null: the products are then in the model's dtype."


def _require_right(layer: EightBit, key: str) -> None:
    """Require that the device multiplies as float32 does, forward and backward.

    Raises:
        UsageError: it doesn't.
    """
    size = f"of a layer of {layer.in_features:,} × {layer.out_features:,}"
    with _refusing(key, f"the product {size}"):
        with torch.inference_mode():
            forward = max(_difference(layer.by_output, *tried) for tried in _ANSWERING)
        backward = max(_difference(layer.by_input, *tried) for tried in _TRAINING)
    for worst, what in ((forward, "product"), (backward, "gradient")):
        if not worst <= _ALLOWED:
            raise UsageError(
                f"{key}: fp8: on this device the {what} {size} differs by {worst:.2g} from the same "
                "in float32.",
                _without(key),
            )


@contextlib.contextmanager
def _refusing(key: str, what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever a driver, a compiler or a library says
        if is_out_of_memory(error):
            raise
        raise UsageError(
            f"{key}: fp8: on this device {what} fails ({first_line(error)[:160]}).",
            _without(key),
        ) from error


def _difference(weight: Rows, tokens: int, parts: int) -> float:
    """The largest relative difference of a token's result from what a product in float32 says."""
    generator = torch.Generator().manual_seed(tokens)
    drawn_TK = torch.randn(tokens, weight.values.shape[1], generator=generator)
    drawn_TK = drawn_TK.to(weight.values.device, torch.bfloat16)
    beside = [part.contiguous() for part in drawn_TK.chunk(parts, 1)]
    found = eight.product(quantize(*beside), weight, torch.bfloat16).float()
    expected = plain_product(quantized_plainly([drawn_TK], FORMAT), weight)
    return float(((found - expected).norm(dim=1) / expected.norm(dim=1)).max())
