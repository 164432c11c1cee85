"""Products of frozen weights in 8 bits: two numbers of one byte each where there were two of two.

Both factors are rounded to e4m3, each row of them with a scale of its own: an activation's row is a
token, a weight's an output and, for gradients, an input. So a token's result depends on no other token,
however rows are packed. Scales are powers of two: the weight's second layout is made of the first one, and
rounds nothing again, so that the backward pass has the forward pass's weights. Both are kept, a byte a number
each; or a weight stays in NF4, half a byte, and they are made at every use.

Axes in names: T tokens, I and O numbers in and out of a layer, R rows, K what a product sums over.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ragtune.model.hardware import has_triton

FORMAT = torch.float8_e4m3fn
"""Of weights and activations."""
GRADIENTS = torch.float8_e4m3fn
"""Of gradients. torch.float8_e5m2 has more room for small ones, and half the digits (bench/step.py)."""
FAST_SUMS = True
"""Whether a GPU may sum with fewer bits than float32 has, which is faster (bench/step.py)."""
AT_A_TIME = 4096
"""Tokens whose gradients are rounded at a time where weights stay in NF4."""
_TINY = 1e-30
_BLOCK = 4096
"""Columns that a program of the kernel reads at a time, with a warp for each 512."""
_WIDE = 4 * _BLOCK
"""Longer rows have twice the warps: so fewer are under way, and stay in the cache for the second reading."""


class Rows(NamedTuple):
    """A matrix of bytes; each row has its scale."""

    values: Tensor
    """[R, K]"""
    scale: Tensor
    """[R, 1] float32, powers of two"""


def quantize(*parts_RK: Tensor, dtype: torch.dtype = FORMAT) -> Rows:
    """Matrices beside each other [R, K + K + …] in 8 bits, with a scale for each row of the whole.

    A kernel that makes an activation can make these, too: products take `Rows`.
    """
    if not (parts_RK[0].is_cuda and has_triton()):
        return quantized_plainly(parts_RK, dtype)
    from ragtune.model.fast import kernels  # noqa: PLC0415 - Triton is on GPU machines alone

    parts = tuple(part if part.stride(1) == 1 else part.contiguous() for part in parts_RK)
    widths = tuple(part.shape[1] for part in parts)
    rows, device = len(parts[0]), parts[0].device
    found = Rows(
        torch.empty((rows, sum(widths)), dtype=dtype, device=device),
        torch.empty((rows, 1), dtype=torch.float32, device=device),
    )
    block = min(_BLOCK, 1 << (max(widths) - 1).bit_length())
    warps = max(1, block // 512) * (2 if sum(widths) > _WIDE else 1)
    kernels.quantize[(rows,)](
        parts, tuple(part.stride(0) for part in parts), widths, *found, _share(dtype), _TINY, block,
        num_warps=warps,
    )  # fmt: skip
    return found


def quantized_plainly(parts_RK: Sequence[Tensor], dtype: torch.dtype) -> Rows:
    """`quantize` without a kernel of its own."""
    largest = [part.abs().amax(1, keepdim=True).float() for part in parts_RK]
    most_R1 = reduce(torch.maximum, largest).clamp_min(_TINY)
    # In whole numbers, so that every device finds the same: a format's largest number is 1.75 times a power
    # of two, and the exponent is one more where the mantissa is larger. What is no number counts as infinite.
    bits_R1 = most_R1.view(torch.int32).clamp_max(0x7F800000)
    rounded_R1 = (bits_R1 + 0x1FFFFF) & 0x7F800000
    scale_R1 = rounded_R1.view(torch.float32) * _share(dtype)
    values = [(part.float() * scale_R1.reciprocal()).to(dtype) for part in parts_RK]
    return Rows(values[0] if len(values) == 1 else torch.cat(values, 1), scale_R1)


def _share(dtype: torch.dtype) -> float:
    """A scale's part of the power of two below the largest number that it can meet."""
    return 1.75 / torch.finfo(dtype).max


def product(left: Rows, right: Rows, dtype: torch.dtype) -> Tensor:
    """What `left` · `right`ᵀ is, in a dtype."""
    # A GPU gives bfloat16 alone.
    out = torch.bfloat16 if left.values.is_cuda else dtype
    a, b = left.values, right.values.T
    scale, scales = left.scale, right.scale.view(1, -1)
    if hasattr(functional, "scaled_mm"):
        rows = functional.ScalingType.RowWise
        found = functional.scaled_mm(
            a, b, scale, rows, scales, rows, output_dtype=out, use_fast_accum=FAST_SUMS
        )
    else:  # torch before 2.10
        found = torch._scaled_mm(  # noqa: SLF001 - no public way
            a, b, scale, scales, out_dtype=out, use_fast_accum=FAST_SUMS
        )
    return found.to(dtype)


def plain_product(left: Rows, right: Rows) -> Tensor:
    """The same of the same bytes, in float32."""
    a, b = (one.values.float() * one.scale for one in (left, right))
    return a @ b.T


class EightBit(nn.Linear):
    """A frozen linear layer whose products are in 8 bits; it stays on its device."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta")
        self.bias = layer.bias
        self.keep(layer.weight)

    def keep(self, weight_OI: Tensor) -> None:
        """Have the weight in two layouts."""
        self._by_output = quantize(weight_OI.data)
        # As bytes: nobody takes them for numbers, or casts them.
        bits = self._by_output.values.view(torch.uint8)
        self.weight = nn.Parameter(bits, requires_grad=False)
        self._by_input = beside([self])

    @property
    def by_output(self) -> Rows:
        """The weight [O, I], with a scale for each output."""
        return self._by_output

    @property
    def by_input(self) -> Rows:
        """The weight [I, O], with a scale for each input."""
        return self._by_input

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """The weight [O, I] as it is multiplied: exact in any dtype with 4 bits of mantissa."""
        values, scale = self.by_output
        return values.to(dtype) * scale.to(dtype)

    def product(self, x_TI: Rows, dtype: torch.dtype) -> Tensor:
        """What x Wᵀ + bias is, [T, O]."""
        y_TO = product(x_TI, self.by_output, dtype)
        return y_TO if self.bias is None else y_TO.add_(self.bias.to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        dtype = compute_dtype(x)
        if not rounds():
            bias = None if self.bias is None else self.bias.to(dtype)
            return functional.linear(x.to(dtype), self.dequantized(dtype), bias)
        y: Tensor = _Frozen.apply(x, self)  # type: ignore[no-untyped-call]
        return y


class PackedEightBit(EightBit):
    """One whose weight stays in NF4: what is multiplied is made of it at every use."""

    def keep(self, weight_OI: Tensor) -> None:
        """Have the weight as bitsandbytes packed it."""
        self._state = weight_OI.quant_state  # type: ignore[attr-defined]  # of its own kind of parameter
        self.weight = nn.Parameter(weight_OI.data, requires_grad=False)

    @property
    def by_output(self) -> Rows:
        """The weight [O, I], with a scale for each output."""
        from bitsandbytes.functional import dequantize_4bit  # noqa: PLC0415 - an extra

        return quantize(dequantize_4bit(self.weight, self._state))

    @property
    def by_input(self) -> Rows:
        """The weight [I, O], with a scale for each input."""
        return beside([self])


class _Context(torch.autograd.function.FunctionCtx):
    layer: EightBit
    like: tuple[torch.Size, torch.dtype]


class _Frozen(torch.autograd.Function):
    """A layer without an adapter."""

    @staticmethod
    def forward(ctx: _Context, x: Tensor, layer: EightBit) -> Tensor:
        ctx.layer, ctx.like = layer, (x.shape, x.dtype)
        y_TO = layer.product(quantize(x.reshape(-1, x.shape[-1])), compute_dtype(x))
        return shaped_like(x, y_TO)

    @staticmethod
    def backward(ctx: _Context, dy: Tensor) -> tuple[Tensor, None]:
        shape, dtype = ctx.like
        dx_TI = joined([ctx.layer])([dy.reshape(-1, dy.shape[-1])], dtype)
        return dx_TI.view(shape), None


def to_input(gradients_TO: Sequence[Tensor], by_input: Rows, dtype: torch.dtype) -> Tensor:
    """The gradient [T, I] for an input, of those of the layers that read it: their sum is one product."""
    return product(quantize(*gradients_TO, dtype=GRADIENTS), by_input, dtype)


def _to_input_in_parts(
    gradients_TO: Sequence[Tensor], by_input: Rows, dtype: torch.dtype
) -> Tensor:
    """The same, some tokens at a time: where memory is short, so is the room for all gradients in 8 bits."""
    like = gradients_TO[0]
    dx_TI = torch.empty((len(like), len(by_input.values)), dtype=dtype, device=like.device)
    for start in range(0, len(like), AT_A_TIME):
        some = slice(start, start + AT_A_TIME)
        dx_TI[some] = to_input([gradient[some] for gradient in gradients_TO], by_input, dtype)
    return dx_TI


def shaped_like(x: Tensor, y_TO: Tensor) -> Tensor:
    """A result of its own in the shape of what it was made of: no view, as some models change it in place."""
    return y_TO.resize_(*x.shape[:-1], y_TO.shape[-1])


def joined(layers: Sequence[EightBit]) -> Callable[[Sequence[Tensor], torch.dtype], Tensor]:
    """What gives the gradient for the input that layers share, of theirs and in a dtype: see `to_input`."""
    if any(isinstance(layer, PackedEightBit) for layer in layers):
        return lambda gradients_TO, dtype: _to_input_in_parts(gradients_TO, beside(layers), dtype)
    whole = join(layers)
    return lambda gradients_TO, dtype: to_input(gradients_TO, whole, dtype)


def beside(layers: Sequence[EightBit]) -> Rows:
    """The weights of layers beside each other [I, O + O + …], made anew."""
    return quantize(*map(_turned, layers))


def _turned(layer: EightBit) -> Tensor:
    """A layer's weight [I, O] as it is multiplied, in bfloat16. It is turned as bytes: that takes less room."""
    values, scale_O1 = layer.by_output
    values_IO = values.view(torch.uint8).T.contiguous().view(FORMAT)
    del values
    return values_IO.bfloat16().mul_(scale_O1.T.bfloat16())


def join(layers: Sequence[EightBit]) -> Rows:
    """The weights of layers with one input beside each other [I, O + O + …]; each keeps a view of its own."""
    if len(layers) == 1:
        return layers[0].by_input
    scale_I1 = reduce(torch.maximum, (layer.by_input.scale for layer in layers))
    shifted = []
    for layer in layers:
        values_IO, own_I1 = layer.by_input
        exact_IO = values_IO.to(torch.bfloat16) * (own_I1 / scale_I1).bfloat16()
        shifted.append(exact_IO.to(FORMAT).view(torch.uint8))
    whole = Rows(torch.cat(shifted, 1).view(FORMAT), scale_I1)
    parts = whole.values.split([layer.out_features for layer in layers], 1)  # type: ignore[no-untyped-call]
    for layer, part in zip(layers, parts, strict=True):
        layer._by_input = Rows(part, scale_I1)  # noqa: SLF001 - of this module
    return whole


_rounds = ContextVar("rounds", default=True)


def rounds() -> bool:
    """Whether activations are rounded to 8 bits."""
    return _rounds.get()


@contextlib.contextmanager
def unrounded() -> Iterator[None]:
    """Multiply activations as they are, with the same weights.

    So a probe compares what it asks for: two ways to lay a text out differ by less than 8 bits round away.
    """
    token = _rounds.set(False)
    try:
        yield
    finally:
        _rounds.reset(token)


def compute_dtype(x: Tensor) -> torch.dtype:
    """In what products of an input are."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
