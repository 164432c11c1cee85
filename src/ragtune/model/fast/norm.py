"""RMSNorm's backward pass where its weight is frozen, for norms that Liger's kernels compute.

Liger's has one program a multiprocessor, which goes through its rows one after the other and adds up the
weight's gradient: in a small model that took a sixth of a step. Here every row has a program of its own.

Axes in names: R rows, N numbers of a row; ∂ is written d.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ragtune.base.screen.console import note

_ARGUMENTS = ["ctx", "X", "W", "eps", "offset", "casting_mode", "in_place", "row_mode"]
"""Of Liger's forward pass, which keeps X, W and a number for each row: 0.7.0 to 0.8.5 have these."""
_BY_HEAD = 4
"""Axes of what is normed head by head."""


def lighten_norms(model: nn.Module) -> int:
    """Let the norms that Liger computes use the pass below where their weight is frozen; gives their number.

    That is 0 with a version of Liger whose norm has other arguments.
    """
    from liger_kernel.ops.rms_norm import LigerRMSNormFunction  # noqa: PLC0415 - an extra
    from liger_kernel.transformers.rms_norm import LigerRMSNorm  # noqa: PLC0415 - an extra

    if [*inspect.signature(LigerRMSNormFunction.forward).parameters] != _ARGUMENTS:
        note(
            "The norms' backward passes are Liger's own: this version's are none that ragtune knows."
        )
        return 0
    count = 0
    for module in model.modules():
        forward = module.__dict__.get("forward")
        if getattr(forward, "__func__", None) is LigerRMSNorm.forward:
            module.forward = _norm.__get__(module)
            count += 1
    return count


def _norm(module: Any, x: Tensor) -> Tensor:  # noqa: ANN401 - Liger has given it attributes
    """The forward pass of a module that Liger has changed.

    Queries and keys come as [1, heads, tokens, size] with tokens outermost in memory: Liger would copy them.
    """
    turned = x.dim() == _BY_HEAD and not x.is_contiguous() and x.transpose(1, 2).is_contiguous()
    x = x.transpose(1, 2) if turned else x
    own = (
        module.variance_epsilon,
        module.offset,
        module.casting_mode,
        module.in_place,
        module.row_mode,
    )
    y: Tensor = _function().apply(x, module.weight, *own)  # type: ignore[no-untyped-call]
    return y.transpose(1, 2) if turned else y


@cache
def _function() -> type[torch.autograd.Function]:
    from liger_kernel.ops.rms_norm import LigerRMSNormFunction  # noqa: PLC0415 - an extra

    class Norm(LigerRMSNormFunction):  # type: ignore[misc]
        @staticmethod
        def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - its context is Liger's
            saved = ctx.saved_tensors
            if ctx.needs_input_grad[1] or len(saved) != 3:  # noqa: PLR2004 - of a norm without a weight there are two
                gradients: tuple[Tensor | None, ...] = LigerRMSNormFunction.backward(ctx, dy)
                return gradients
            x_RN, weight_N, scale_R = saved
            dx = norm_gradient(dy, x_RN, weight_N, scale_R, ctx.offset, in_place=ctx.in_place)
            return dx, *[None] * 6

    return Norm


def norm_gradient(
    dy: Tensor, x_RN: Tensor, weight_N: Tensor, scale_R: Tensor, offset: float, *, in_place: bool
) -> Tensor:
    """The gradient for an RMSNorm's input, on CUDA.

    Args:
        dy: for its output, R·N numbers.
        x_RN: the input.
        weight_N: frozen.
        scale_R: what the rows were multiplied with.
        offset: added to the weight.
        in_place: whether it may take the place of `dy`.
    """
    from ragtune.model.fast import kernels  # noqa: PLC0415 - Triton is on GPU machines alone

    dy = dy.contiguous()
    dx = dy if in_place else torch.empty_like(dy)
    rows, width = x_RN.shape
    block = 1 << (width - 1).bit_length()
    kernels.norm_backward[(rows,)](
        dy, dx, x_RN, weight_N, scale_R, width, offset, block,
        num_warps=min(max(block // 512, 1), 16),
    )  # fmt: skip
    return dx
