"""Attention within the samples of a row in bfloat16 on a CPU, where torch's kernel takes twice the time.

Axes in names: T tokens of a row, N tokens of one of its samples, H heads of queries, G of keys and values,
R queries that share one (H = G · R), X = R · N, D numbers a head; ∂ is written d.
"""

from __future__ import annotations

import torch
from torch import Tensor

LONGEST = 512
"""Tokens of a sample up to which all of its scores at once are faster than torch's kernel, which keeps none
(SmolLM2's heads on an AMD EPYC with avx512_bf16, forward and backward: 220 tokens 4.0 ms instead of 9.1, 450
tokens 17 instead of 28, 1,000 tokens 171 instead of 76)."""


def attends(query: Tensor, sizes: list[int]) -> bool:
    """Whether a row's samples are attended to as below."""
    return query.device.type == "cpu" and query.dtype == torch.bfloat16 and max(sizes) <= LONGEST


def attention(
    q_1HTD: Tensor,
    k_1GTD: Tensor,
    v_1GTD: Tensor,
    scale: float,
    window: int | None,
    sizes: list[int],
) -> Tensor:
    """Causal attention within each sample of a row; returns [1, T, H, D]."""
    out: Tensor = _Attention.apply(q_1HTD, k_1GTD, v_1GTD, scale, window, sizes)  # type: ignore[no-untyped-call]
    return out


class _Context(torch.autograd.function.FunctionCtx):
    """What a forward pass leaves for its backward pass."""

    saved_tensors: tuple[Tensor, ...]
    scale: float
    sizes: list[int]


class _Attention(torch.autograd.Function):
    """Scores and their softmax in float32, as in torch's kernel; what is multiplied is in bfloat16."""

    @staticmethod
    def forward(
        ctx: _Context,
        q_1HTD: Tensor,
        k_1GTD: Tensor,
        v_1GTD: Tensor,
        scale: float,
        window: int | None,
        sizes: list[int],
    ) -> Tensor:
        _, heads, tokens, size = q_1HTD.shape
        shared = k_1GTD.shape[1]
        out_TGRD = q_1HTD.new_empty((tokens, shared, heads // shared, size))
        every = []
        for q_GXD, k_GND, v_GND, out_NGRD in zip(
            _grouped(q_1HTD, shared, sizes),
            *(_split(t[0], sizes, 1) for t in (k_1GTD, v_1GTD)),
            _split(out_TGRD, sizes),
            strict=True,
        ):
            count = k_GND.shape[1]
            scores_GXN = torch.bmm(q_GXD, k_GND.transpose(1, 2))
            scores_GRNN = scores_GXN.view(shared, -1, count, count)
            masked_GRNN = torch.add(_mask(count, window), scores_GRNN, alpha=scale)
            weights_GXN = masked_GRNN.softmax(-1).to(q_1HTD.dtype).view_as(scores_GXN)
            mixed_GXD = torch.bmm(weights_GXN, v_GND)
            out_NGRD.copy_(mixed_GXD.view(shared, -1, count, size).permute(2, 0, 1, 3))
            every.append(weights_GXN)
        ctx.save_for_backward(q_1HTD, k_1GTD, v_1GTD, *every)
        ctx.scale, ctx.sizes = scale, sizes
        return out_TGRD.view(1, tokens, heads, size)

    @staticmethod
    def backward(ctx: _Context, dout_1THD: Tensor) -> tuple[Tensor | None, ...]:
        q_1HTD, k_1GTD, v_1GTD, *every = ctx.saved_tensors
        shared = k_1GTD.shape[1]
        # In the order of memory that the projections have, so that nothing is moved behind this.
        dq_THD, dk_TGD, dv_TGD = (
            t.new_empty((t.shape[2], t.shape[1], t.shape[3])) for t in (q_1HTD, k_1GTD, v_1GTD)
        )
        for weights_GXN, q_GXD, dout_GXD, k_GND, v_GND, dq_NHD, dk_NGD, dv_NGD in zip(
            every,
            _grouped(q_1HTD, shared, ctx.sizes),
            _grouped(dout_1THD.transpose(1, 2), shared, ctx.sizes),
            *(_split(t[0], ctx.sizes, 1) for t in (k_1GTD, v_1GTD)),
            *(_split(t, ctx.sizes) for t in (dq_THD, dk_TGD, dv_TGD)),
            strict=True,
        ):
            dweights_GXN = torch.bmm(dout_GXD, v_GND.transpose(1, 2))
            dscores_GXN = torch._softmax_backward_data(  # noqa: SLF001 - autograd's own, in one pass
                dweights_GXN, weights_GXN, -1, weights_GXN.dtype
            )
            dq_GXD = torch.bmm(dscores_GXN, k_GND)
            count, size = k_GND.shape[1:]
            dq_GRND = dq_GXD.view(shared, -1, count, size)
            torch.mul(
                dq_GRND.permute(2, 0, 1, 3), ctx.scale, out=dq_NHD.view(count, shared, -1, size)
            )
            dk_GND = torch.bmm(dscores_GXN.transpose(1, 2), q_GXD)
            torch.mul(dk_GND.transpose(0, 1), ctx.scale, out=dk_NGD)
            dv_NGD.copy_(torch.bmm(weights_GXN.transpose(1, 2), dout_GXD).transpose(0, 1))
        dq, dk, dv = (t.transpose(0, 1)[None] for t in (dq_THD, dk_TGD, dv_TGD))
        return dq, dk, dv, None, None, None


def _grouped(x_1HTD: Tensor, shared: int, sizes: list[int]) -> list[Tensor]:
    """Each sample as [G, R · N, D]: the queries that share keys stand below each other."""
    return [part.reshape(shared, -1, part.shape[2]) for part in _split(x_1HTD[0], sizes, 1)]


def _split(x: Tensor, sizes: list[int], axis: int = 0) -> tuple[Tensor, ...]:
    parts: tuple[Tensor, ...] = torch.split(x, sizes, axis)  # type: ignore[no-untyped-call]
    return parts


def _mask(count: int, window: int | None) -> Tensor:
    """-inf where a token sees nothing: behind itself, and before its window."""
    mask_NN = torch.full((count, count), float("-inf")).triu_(1)
    if window is not None and count > window:
        mask_NN += torch.full((count, count), float("-inf")).tril_(-window)
    return mask_NN
