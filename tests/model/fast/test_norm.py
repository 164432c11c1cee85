from __future__ import annotations

import sys
from inspect import Parameter, Signature
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from ragtune.model.fast import liger as liger_module
from ragtune.model.fast import norm as norm_module
from ragtune.model.fast.liger import fuse_kernels
from ragtune.model.fast.norm import lighten_norms, norm_gradient
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


@pytest.mark.parametrize("more", [(), ("bias",)], ids=["known", "another"])
def test_norms_of_a_liger_that_is_unknown_stay_as_they_are(
    more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a stand-in for Liger, which needs Triton."""

    class LigerRMSNorm:
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    names = ("ctx", "X", "W", "eps", "offset", "casting_mode", "in_place", "row_mode", *more)
    parameters = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in names]

    def forward(*_: object) -> None: ...

    forward.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    for name, found in (
        ("ops", {"LigerRMSNormFunction": SimpleNamespace(forward=forward)}),
        ("transformers", {"LigerRMSNorm": LigerRMSNorm}),
    ):
        monkeypatch.setitem(
            sys.modules,
            f"liger_kernel.{name}.rms_norm",
            SimpleNamespace(**found),  # type: ignore[arg-type]
        )
        monkeypatch.setitem(sys.modules, f"liger_kernel.{name}", ModuleType(name))
    monkeypatch.setitem(sys.modules, "liger_kernel", ModuleType("liger_kernel"))
    norms = torch.nn.ModuleList(torch.nn.RMSNorm(4) for _ in range(3))
    for one in norms[:2]:
        one.forward = LigerRMSNorm.forward.__get__(one)
    assert lighten_norms(norms) == (0 if more else 2)
    kept = [getattr(one.forward, "__func__", None) is LigerRMSNorm.forward for one in norms]
    assert kept == [bool(more), bool(more), False]
    assert ("backward passes are Liger's own" in " ".join(capsys.readouterr().out.split())) == bool(
        more
    )


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3"])
@pytest.mark.parametrize("frozen", [True, False])
def test_a_models_gradients_are_those_without_ligers_kernels(
    family: str, *, frozen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every norm has the pass of ours, which is used where its weight is frozen."""
    pytest.importorskip("liger_kernel")
    gradients, replaced, reached = [], list[int](), list[bool]()

    def replacing(model: torch.nn.Module) -> None:
        replaced.append(lighten_norms(model))

    def reaching(*given: Any, **named: Any) -> torch.Tensor:
        reached.append(True)
        return norm_gradient(*given, **named)

    monkeypatch.setattr(liger_module, "lighten_norms", replacing)
    monkeypatch.setattr(norm_module, "norm_gradient", reaching)
    for liger in (False, True):
        model = tiny_model(family).cuda()
        if liger:
            fuse_kernels(model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("norm" not in name or not frozen)
        ids = torch.arange(40, device="cuda")[None]
        model(input_ids=ids, labels=ids).loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    norms = sum(type(module).__name__.endswith("RMSNorm") for module in model.modules())
    assert replaced == [norms]
    assert len(reached) == (norms if frozen else 0)
    plain, found = gradients
    assert all((found[n] is None) == (frozen and "norm" in n) for n in plain)
    for name, expected in plain.items():
        if expected is not None:
            torch.testing.assert_close(found[name], expected, rtol=1e-3, atol=1e-5)
