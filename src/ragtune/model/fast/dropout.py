"""Dropout that keeps no mask: a token of a sample gets the same one in a step, wherever it is read.

Which numbers are drawn depends on the recipe's seed, the step, the layer, the sample and the place in it,
and on nothing that was drawn before: rows, GPUs, recomputation and a step that begins again change no mask.
They are those of Philox4x32-7 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), the
fewest rounds that pass BigCrush. Its key is (seed, step), its counter (group of columns, place in the
sample, sample, layer); a call gives 8 numbers of 16 bits, one for each column of a group.

On CUDA one Triton kernel draws and applies them; elsewhere they are drawn by the plain form below.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ragtune.model.hardware import has_triton

_BLOCKS = 32, 512
"""Groups of columns that a program of the kernel covers, at least and at most: narrow rows have fewer."""
_LEVELS = 2**16
"""Rates are multiples of 1 / _LEVELS."""
_ROUNDS = 7
_HALF = 0xFFFFFFFF
_AT_ONCE, _AT_ONCE_ON_CPU = 2**22, 2**14
"""Philox calls that the plain form makes together: on a CPU they are to stay in its cache."""


@dataclass(frozen=True)
class Draw:
    """What a layer draws for a row: the same names, the same numbers."""

    seed: int
    """Below 2³²."""
    step: Tensor
    """[1], int64, beside the places: a graph that was captured in one step is replayed in others."""
    layer: int
    places: Tensor
    """[T], int64: of each token; see `places`."""


def places(lengths: Sequence[int], numbers: Sequence[int]) -> Tensor:
    """[T]: of each token of a row its sample's number in the step · 2³² + the place in that sample."""
    parts = [torch.arange(n) + (i << 32) for n, i in zip(lengths, numbers, strict=True)]
    return torch.cat(parts)


class Masks:
    """What is drawn while a model is trained.

    Args:
        seed: the recipe's.
    """

    def __init__(self, seed: int) -> None:
        self._row = Draw(seed, torch.zeros(1, dtype=torch.int64), 0, torch.empty(0))

    def read(self, step: int, places_T: Tensor) -> None:
        """Say which row is read from here on; places as `places` gives them, on the model's device.

        The step stays where it is in memory: a row's backward pass comes before the next row is read.
        """
        step_1 = self._row.step.to(places_T.device).fill_(step)
        self._row = dataclasses.replace(self._row, step=step_1, places=places_T)

    def of(self, layer: int) -> Draw:
        """What a layer draws for the row that is read; 0 is the embeddings' noise."""
        return dataclasses.replace(self._row, layer=layer)

    def take_over(self, model: nn.Module) -> None:
        """Let a model's dropout layers, its adapters' and its own, draw from here."""
        every = model.named_modules(remove_duplicate=False)
        theirs = [(name, one.p) for name, one in every if type(one) is nn.Dropout]
        for number, (name, rate) in enumerate(theirs, 1):
            model.set_submodule(name, Dropout(rate, self, number))


class Dropout(nn.Module):
    """torch's, but for where the mask comes from."""

    def __init__(self, p: float, masks: Masks, number: int) -> None:
        super().__init__()
        self.p = p
        self.masks = masks
        self.number = number

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        dropped: Tensor = _Dropped.apply(x, self.p, self.masks.of(self.number))  # type: ignore[no-untyped-call]
        return dropped


class _Context(torch.autograd.function.FunctionCtx):
    rate: float
    draw: Draw


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Context, x: Tensor, rate: float, draw: Draw) -> Tensor:
        ctx.rate, ctx.draw = rate, draw
        return dropout(x.contiguous(), rate, draw)

    @staticmethod
    def backward(ctx: _Context, gradient: Tensor) -> tuple[Tensor, None, None]:
        return dropout(gradient.contiguous(), ctx.rate, ctx.draw), None, None


def dropout(x: Tensor, rate: float, draw: Draw) -> Tensor:
    """X with a share `rate` of its elements 0 and the others divided by 1 - rate.

    Args:
        x: contiguous, of the row's tokens in their order; what there is of a token beside its last axis has
            masks of its own. An expert that is given some of the tokens can't know which: it draws for as
            many from the row's beginning.
        rate: below 1.
        draw: what is drawn.
    """
    if not x.numel():
        return x
    if x.is_cuda and has_triton():
        out = torch.empty_like(x)
        _launch(x, out, rate, draw, add=False)
        return out
    threshold, scale = _levels(rate)
    mask = numbers(*_by_token(x, draw)) >= threshold
    dropped: Tensor = torch.ops.aten.native_dropout_backward(x, mask.view(x.shape), scale)
    return dropped


def add_dropped(total: Tensor, x: Tensor, rate: float, draw: Draw) -> None:
    """Add dropout(x) to `total` in place; both of one shape, contiguous."""
    if x.is_cuda and has_triton():
        _launch(x, total, rate, draw, add=True)
    else:
        total += dropout(x, rate, draw)


def numbers(draw: Draw, width: int) -> Tensor:
    """[T, width], int16, every value as likely as any other: the plain form of what the kernel draws."""
    groups = -(-width // 8)
    device = draw.places.device
    out = torch.empty((len(draw.places), groups, 8), dtype=torch.int16, device=device)
    tokens = max(1, (_AT_ONCE_ON_CPU if device.type == "cpu" else _AT_ONCE) // groups)
    step = int(draw.step) if device.type == "cpu" else draw.step
    key, columns = (draw.seed, step), torch.arange(groups, device=device)[None]
    for at in range(0, len(out), tokens):
        places_T1, into = draw.places[at : at + tokens, None], out[at : at + tokens]
        for part, drawn in enumerate(_drawn(columns, places_T1, draw.layer, key)):
            halves = drawn.view(torch.int16).view(-1, groups, 4)[..., :2]  # the others are 0
            into[..., 2 * part : 2 * part + 2] = halves
    return out.flatten(1)[:, :width]


def _drawn(
    columns: Tensor, places_T1: Tensor, layer: int, key: tuple[int, int | Tensor]
) -> tuple[Tensor, ...]:
    """Four tensors [T, groups], int64, of 32 random bits each."""
    if columns.device.type != "cpu":
        return _philox(columns, places_T1 & _HALF, places_T1 >> 32, layer, key)
    # NumPy takes a third of torch's time for this.
    columns_, places_ = (t.numpy().view(np.uint64) for t in (columns, places_T1))
    drawn = _philox(columns_, places_ & _HALF, places_ >> 32, layer, key)
    return tuple(torch.from_numpy(one.view(np.int64)) for one in drawn)


_Array = TypeVar("_Array", Tensor, NDArray[np.integer[Any]])


def _philox(
    c0: _Array, c1: _Array, c2: _Array, layer: int, key: tuple[int, int | Tensor]
) -> tuple[_Array, _Array, _Array, _Array]:
    """Philox4x32 of a counter whose parts are broadcast, in 64 bits, of which only 32 are used."""
    c3 = c2 * 0 + layer
    k0, k1 = key
    for _ in range(_ROUNDS):
        one, other = c2 * 0xCD9E8D57, c0 * 0xD2511F53
        c0, c1 = _high(one, c1, k0), one
        c2, c3 = _high(other, c3, k1), other
        c1 &= _HALF
        c3 &= _HALF
        k0, k1 = (k0 + 0x9E3779B9) & _HALF, (k1 + 0xBB67AE85) & _HALF
    return c0, c1, c2, c3


def _high(product: _Array, other: _Array, key: int | Tensor) -> _Array:
    high = product >> 32
    high &= _HALF  # torch's shift copies the sign
    return high ^ (other ^ key)


def _by_token(x: Tensor, draw: Draw) -> tuple[Draw, int]:
    """What is drawn for each token of x, and for how many numbers."""
    tokens = len(draw.places)
    if x.numel() % tokens == 0:
        return draw, x.numel() // tokens
    count = x.numel() // x.shape[-1]
    some = draw.places.repeat(-(-count // tokens))[:count]
    return dataclasses.replace(draw, places=some), x.shape[-1]


def _levels(rate: float) -> tuple[int, float]:
    """Below which number an element is dropped, and what the others are multiplied with."""
    dropped = min(round(rate * _LEVELS), _LEVELS - 1)
    return dropped - _LEVELS // 2, _LEVELS / (_LEVELS - dropped)


def _launch(x: Tensor, out: Tensor, rate: float, draw: Draw, *, add: bool) -> None:
    from ragtune.model.fast import kernels  # noqa: PLC0415 - Triton is on GPU machines alone

    draw, width = _by_token(x, draw)
    groups = -(-width // 8)
    seed = draw.seed - (draw.seed >> 31 << 32)  # as Triton takes 32 bits
    least, most = _BLOCKS
    block = min(max(least, 1 << (groups - 1).bit_length()), most)
    kernels.dropout[(len(draw.places), -(-groups // block))](
        x, out, draw.places, width, *_levels(rate), seed, draw.step, draw.layer,
        add, block, _ROUNDS, num_warps=max(1, block // 128),
    )  # fmt: skip
