"""Dropout that keeps no mask: the same seed draws the same one again.

On CUDA one Triton kernel draws and applies it; elsewhere torch's generator does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ragtune.model.hardware import has_triton

_BLOCK = 1024
_LEVELS = 2**16
"""A kernel's rates are multiples of 1 / _LEVELS."""
_ROUNDS = 7
"""Of Philox: the fewest that pass BigCrush (Salmon et al. 2011, "Parallel random numbers")."""


def new_seed() -> int:
    """A seed from torch's default CPU generator, whose state a checkpoint keeps."""
    return int(torch.randint(2**31 - 1, ()))


def dropout(x: Tensor, rate: float, seed: int) -> Tensor:
    """X with a share `rate` of its elements 0 and the others divided by 1 - rate; x is contiguous."""
    if x.is_cuda and has_triton():
        out = torch.empty_like(x)
        _launch(x, out, rate, seed, add=False)
        return out
    dropped: Tensor = torch.ops.aten.native_dropout_backward(
        x, _mask(x, rate, seed), 1 / (1 - rate)
    )
    return dropped


def add_dropped(total: Tensor, x: Tensor, rate: float, seed: int) -> None:
    """Add dropout(x) to `total` in place; both [T, n], contiguous."""
    if x.is_cuda and has_triton():
        _launch(x, total, rate, seed, add=True)
    else:
        total += dropout(x, rate, seed)


def _mask(x: Tensor, rate: float, seed: int) -> Tensor:
    generator = torch.Generator(x.device).manual_seed(seed)
    return torch.empty_like(x, dtype=torch.bool).bernoulli_(1 - rate, generator=generator)


def _launch(x: Tensor, out: Tensor, rate: float, seed: int, *, add: bool) -> None:
    from ragtune.model.fast import kernels  # noqa: PLC0415 - Triton is on GPU machines alone

    count, threshold = x.numel(), round(rate * _LEVELS)
    scale = _LEVELS / (_LEVELS - threshold)
    grid = (-(-count // (8 * _BLOCK)),)
    kernels.dropout[grid](x, out, count, threshold, scale, seed, add, _BLOCK, _ROUNDS)
