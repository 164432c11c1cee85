"""Attention within the samples of a row in bfloat16 on a CPU, where torch's kernel takes twice the time.

Axes in names: T tokens of a row, N tokens of one of its samples, K those that they see (with what the row's
samples begin with, where it has that once), H heads of queries, G of keys and values, R queries that share one
(H = G · R), X = R · N, D numbers a head; ∂ is written d.
"""

from __future__ import annotations

import torch
from torch import Tensor

LONGEST = 512
"""Tokens of a sample up to which all of its scores at once are faster than torch's kernel, which keeps none
(SmolLM2's heads on an AMD EPYC with avx512_bf16, forward and backward: 220 tokens 4.0 ms instead of 9.1, 450
tokens 17 instead of 28, 1,000 tokens 171 instead of 76)."""


def attends(query: Tensor, sizes: list[int], *, shared: bool = False) -> bool:
    """Whether a row's samples are attended to as below."""
    longest = sizes[0] * shared + max(sizes)
    return query.device.type == "cpu" and query.dtype == torch.bfloat16 and longest <= LONGEST


def attention(
    q_1HTD: Tensor,
    k_1GTD: Tensor,
    v_1GTD: Tensor,
    scale: float,
    window: int | None,
    sizes: list[int],
    shared: bool,
) -> Tensor:
    """Causal attention within each sample of a row; returns [1, T, H, D].

    Where that is `shared`, the first part of the row is what all samples, the others, begin with.
    """
    out: Tensor = _Attention.apply(q_1HTD, k_1GTD, v_1GTD, scale, window, sizes, shared)  # type: ignore[no-untyped-call]
    return out


class _Context(torch.autograd.function.FunctionCtx):
    """What a forward pass leaves for its backward pass."""

    saved_tensors: tuple[Tensor, ...]
    scale: float
    sizes: list[int]
    shared: bool


class _Attention(torch.autograd.Function):
    """Scores and their softmax in float32, as in torch's kernel; what is multiplied is in bfloat16."""

    @staticmethod
    def forward(  # noqa: PLR0913 - what autograd hands on
        ctx: _Context,
        q_1HTD: Tensor,
        k_1GTD: Tensor,
        v_1GTD: Tensor,
        scale: float,
        window: int | None,
        sizes: list[int],
        shared: bool,
    ) -> Tensor:
        _, heads, tokens, size = q_1HTD.shape
        groups = k_1GTD.shape[1]
        out_TGRD = q_1HTD.new_empty((tokens, groups, heads // groups, size))
        every = []
        for q_GXD, k_GKD, v_GKD, out_NGRD in zip(
            _grouped(q_1HTD, groups, sizes),
            *(_seen(t, sizes, shared=shared) for t in (k_1GTD, v_1GTD)),
            _split(out_TGRD, sizes),
            strict=True,
        ):
            count = len(out_NGRD)
            scores_GXK = torch.bmm(q_GXD, k_GKD.transpose(1, 2))
            scores_GRNK = scores_GXK.view(groups, -1, count, k_GKD.shape[1])
            mask_NK = _mask(count, k_GKD.shape[1], window)
            masked_GRNK = torch.add(mask_NK, scores_GRNK, alpha=scale)
            weights_GXK = masked_GRNK.softmax(-1).to(q_1HTD.dtype).view_as(scores_GXK)
            mixed_GXD = torch.bmm(weights_GXK, v_GKD)
            out_NGRD.copy_(mixed_GXD.view(groups, -1, count, size).permute(2, 0, 1, 3))
            every.append(weights_GXK)
        ctx.save_for_backward(q_1HTD, k_1GTD, v_1GTD, *every)
        ctx.scale, ctx.sizes, ctx.shared = scale, sizes, shared
        return out_TGRD.view(1, tokens, heads, size)

    @staticmethod
    def backward(ctx: _Context, dout_1THD: Tensor) -> tuple[Tensor | None, ...]:
        q_1HTD, k_1GTD, v_1GTD, *every = ctx.saved_tensors
        groups, size = k_1GTD.shape[1], k_1GTD.shape[3]
        # In the order of memory that the projections have, so that nothing is moved behind this.
        dq_THD, dk_TGD, dv_TGD = (
            t.new_empty((t.shape[2], t.shape[1], t.shape[3])) for t in (q_1HTD, k_1GTD, v_1GTD)
        )
        first = ctx.sizes[0] if ctx.shared else 0
        # What every sample begins with has a gradient of each: added up before it is rounded.
        dk_first, dv_first = (torch.zeros(groups, first, size) for _ in range(2))
        for weights_GXK, q_GXD, dout_GXD, k_GKD, v_GKD, dq_NHD, dk_NGD, dv_NGD in zip(
            every,
            _grouped(q_1HTD, groups, ctx.sizes),
            _grouped(dout_1THD.transpose(1, 2), groups, ctx.sizes),
            *(_seen(t, ctx.sizes, shared=ctx.shared) for t in (k_1GTD, v_1GTD)),
            *(_split(t, ctx.sizes) for t in (dq_THD, dk_TGD, dv_TGD)),
            strict=True,
        ):
            dweights_GXK = torch.bmm(dout_GXD, v_GKD.transpose(1, 2))
            dscores_GXK = torch._softmax_backward_data(  # noqa: SLF001 - autograd's own, in one pass
                dweights_GXK, weights_GXK, -1, weights_GXK.dtype
            )
            dq_GRND = torch.bmm(dscores_GXK, k_GKD).view(groups, -1, len(dq_NHD), size)
            own_NGRD = dq_NHD.view(len(dq_NHD), groups, -1, size)
            torch.mul(dq_GRND.permute(2, 0, 1, 3), ctx.scale, out=own_NGRD)
            dk_GKD = torch.bmm(dscores_GXK.transpose(1, 2), q_GXD)
            dv_GKD = torch.bmm(weights_GXK.transpose(1, 2), dout_GXD)
            own = dk_GKD.shape[1] - len(dk_NGD)
            torch.mul(dk_GKD[:, own:].transpose(0, 1), ctx.scale, out=dk_NGD)
            dv_NGD.copy_(dv_GKD[:, own:].transpose(0, 1))
            if own:
                dk_first += dk_GKD[:, :own]
                dv_first += dv_GKD[:, :own]
        if first:
            dk_TGD[:first] += dk_first.transpose(0, 1) * ctx.scale
            dv_TGD[:first] += dv_first.transpose(0, 1)
        dq, dk, dv = (t.transpose(0, 1)[None] for t in (dq_THD, dk_TGD, dv_TGD))
        return dq, dk, dv, None, None, None, None


def _grouped(x_1HTD: Tensor, groups: int, sizes: list[int]) -> list[Tensor]:
    """Each sample as [G, R · N, D]: the queries that share keys stand below each other."""
    return [part.reshape(groups, -1, part.shape[2]) for part in _split(x_1HTD[0], sizes, 1)]


def _seen(x_1GTD: Tensor, sizes: list[int], *, shared: bool) -> list[Tensor]:
    """The keys or values [G, K, D] that each sample sees."""
    first, *rest = _split(x_1GTD[0], sizes, 1)
    return [first, *(torch.cat([first, own], 1) if shared else own for own in rest)]


def _split(x: Tensor, sizes: list[int], axis: int = 0) -> tuple[Tensor, ...]:
    parts: tuple[Tensor, ...] = torch.split(x, sizes, axis)  # type: ignore[no-untyped-call]
    return parts


def _mask(queries: int, keys: int, window: int | None) -> Tensor:
    """-inf where a token, of the last ones, sees nothing: behind itself, and before its window."""
    before = keys - queries
    mask_NK = torch.full((queries, keys), float("-inf")).triu_(before + 1)
    if window is not None and keys > window:
        mask_NK += torch.full((queries, keys), float("-inf")).tril_(before - window)
    return mask_NK
