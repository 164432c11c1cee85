"""Attention in bfloat16 on a CPU, against torch's in float32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ragtune.model.fast import attention, half


def row(tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [1, heads, tokens, 16] in the order of memory that projections give."""
    torch.manual_seed(0)
    q, k, v = (
        torch.randn(1, tokens, h, 16, dtype=torch.bfloat16).transpose(1, 2) for h in (6, 2, 2)
    )
    return q.requires_grad_(), k.requires_grad_(), v.requires_grad_()


@pytest.mark.parametrize("window", [None, 1, 7, 35, 100])
@pytest.mark.parametrize("shared", [False, True])
def test_it_is_torchs_attention_forward_and_backward(window: int | None, shared: bool) -> None:
    sizes = [5, 40, 1, 35]
    given = row(sum(sizes))
    wide = tuple(t.float() for t in given)
    dout = torch.randn(1, sum(sizes), 6, 16)
    expected = attention._by_sample(*wide, 0.3, window, sizes, shared)
    found = half.attention(*given, 0.3, window, sizes, shared)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=2e-2, atol=2e-2)
    gradients = torch.autograd.grad(found, given, dout.bfloat16())
    for one, other in zip(gradients, torch.autograd.grad(expected, given, dout), strict=True):
        assert one.shape == other.shape
        assert (
            float((one.float() - other.float()).norm()) <= 0.01 * float(other.float().norm()) + 1e-2
        )


def test_a_sample_sees_no_other_to_the_bit() -> None:
    q, k, v = (t.detach() for t in row(12))
    found = half.attention(q, k, v, 0.25, None, [5, 7], shared=False)
    for start, end in ((0, 5), (5, 12)):
        own = (t[:, :, start:end] for t in (q, k, v))
        alone = half.attention(*own, 0.25, None, [end - start], shared=False)
        assert torch.equal(found[:, start:end], alone)


def test_only_bfloat16_on_a_cpu_and_short_samples() -> None:
    query = row(3)[0]
    assert half.attends(query, [3])
    assert half.attends(query, [half.LONGEST, 3])
    assert not half.attends(query, [half.LONGEST + 1, 3])
    assert half.attends(query, [12, half.LONGEST - 12], shared=True)
    assert not half.attends(query, [12, half.LONGEST - 11], shared=True)
    assert not half.attends(query.float(), [3])
    assert not half.attends(query.to("meta"), [3])
