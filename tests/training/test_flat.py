from __future__ import annotations

import pytest
import torch
from torch import nn

from ragtune.training.flat import flat_optimizer

SHAPES = [(16, 300), (4100,), (70, 70), (5, 5), (3,)]


def parameters(device: str = "cpu") -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(s, generator=generator).to(device)) for s in SHAPES]


def steps(
    tensors: list[nn.Parameter], optimizer: torch.optim.Optimizer, *, missing: bool = True
) -> None:
    generator = torch.Generator().manual_seed(1)
    for step in range(4):
        for i, tensor in enumerate(tensors):
            gradient = torch.randn(tensor.shape, generator=generator).to(tensor.device)
            if not missing or (step, i) != (2, 1):  # a tensor may be without a gradient once
                tensor.grad = gradient
        optimizer.step()
        optimizer.zero_grad()
        for tensor in tensors:
            tensor.grad = None


def test_a_flat_optimizer_steps_as_one_over_the_tensors() -> None:
    plain, flat = parameters(), parameters()
    make = lambda tensors: torch.optim.SGD(tensors, lr=0.1, momentum=0)  # noqa: E731
    steps(plain, make(plain))
    optimizer = flat_optimizer(flat, make)
    assert len(optimizer.param_groups[0]["params"]) == 3
    steps(flat, optimizer)
    for one, other in zip(plain, flat, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("missing", [False, True])
def test_what_got_no_gradient_is_zero_where_nothing_was_written(
    monkeypatch: pytest.MonkeyPatch, missing: bool
) -> None:
    """Memory that isn't zeroed holds anything: of tensors that fill their blocks all of it is written."""
    empty = torch.empty_like
    monkeypatch.setattr(torch, "empty_like", lambda t: empty(t).fill_(float("nan")))
    whole = [nn.Parameter(torch.ones(16, 256)), nn.Parameter(torch.ones(32, 256))]
    optimizer = flat_optimizer(whole, lambda tensors: torch.optim.SGD(tensors, lr=1.0))
    for one in whole[missing:]:
        one.grad = torch.full(one.shape, 0.25)
    optimizer.step()
    assert torch.equal(whole[0], torch.full((16, 256), 1.0 if missing else 0.75))
    assert torch.equal(whole[1], torch.full((32, 256), 0.75))


def test_values_that_are_loaded_into_the_tensors_reach_the_optimizer() -> None:
    flat = parameters()
    optimizer = flat_optimizer(flat, lambda tensors: torch.optim.SGD(tensors, lr=1.0))
    with torch.no_grad():
        flat[0].copy_(torch.ones(SHAPES[0]))
    flat[0].grad = torch.full(SHAPES[0], 0.25)
    optimizer.step()
    assert torch.equal(flat[0], torch.full(SHAPES[0], 0.75))


def test_tiny_adapters_are_left_as_they_are() -> None:
    small = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2, 2))]
    optimizer = flat_optimizer(small, lambda tensors: torch.optim.SGD(tensors, lr=1.0))
    assert optimizer.param_groups[0]["params"] == small


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["AdamW8bit", "PagedAdamW8bit"])
def test_8_bit_steps_are_those_of_the_tensors_alone(kind: str) -> None:
    optim = pytest.importorskip("bitsandbytes.optim")
    plain, flat = parameters("cuda"), parameters("cuda")
    make = lambda tensors: getattr(optim, kind)(tensors, lr=0.01)  # noqa: E731
    steps(plain, make(plain), missing=False)
    steps(flat, flat_optimizer(flat, make), missing=False)
    for one, other in zip(plain, flat, strict=True):
        assert torch.equal(one, other)
