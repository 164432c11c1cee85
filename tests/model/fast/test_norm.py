from __future__ import annotations

import pytest
import torch

from ragtune.model.fast.liger import fuse_kernels
from ragtune.model.fast.norm import norm_gradient
from tests.conftest import tiny_model


@pytest.mark.gpu
@pytest.mark.parametrize("width", [640, 256, 4096, 100])
@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("in_place", [False, True])
def test_the_gradient_is_that_of_the_plain_norm(
    width: int, offset: float, *, in_place: bool
) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 37, width, device="cuda", requires_grad=True)
    weight, dy = torch.randn(width, device="cuda"), torch.randn(1, 37, width, device="cuda")
    scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
    (x * scale * (weight + offset)).backward(dy)
    given = dy.clone()
    found = norm_gradient(
        given, x.detach()[0], weight, scale.detach().view(-1), offset, in_place=in_place
    )
    torch.testing.assert_close(found, x.grad, rtol=1e-4, atol=1e-4)
    assert (found.data_ptr() == given.data_ptr()) == in_place
    if not in_place:
        assert torch.equal(given, dy)


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3"])
@pytest.mark.parametrize("frozen", [True, False])
def test_a_models_gradients_are_those_without_ligers_kernels(family: str, *, frozen: bool) -> None:
    pytest.importorskip("liger_kernel")
    gradients = []
    for liger in (False, True):
        model = tiny_model(family).cuda()
        if liger:
            fuse_kernels(model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("norm" not in name or not frozen)
        ids = torch.arange(40, device="cuda")[None]
        model(input_ids=ids, labels=ids).loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    plain, found = gradients
    assert all((found[n] is None) == (frozen and "norm" in n) for n in plain)
    for name, expected in plain.items():
        if expected is not None:
            torch.testing.assert_close(found[name], expected, rtol=1e-3, atol=1e-5)
