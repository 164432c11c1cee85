"""Gradients in pieces: here alone, where the sum is what was given; with others: test_ranks.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import distributed as dist
from torch import nn

from ragtune.distributed import summing
from ragtune.distributed.summing import Summing


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, float]]]:
    """What goes to the other ranks, as sizes and sums, in order; each parameter is a piece of its own."""
    found: list[tuple[int, float]] = []
    monkeypatch.setattr(summing, "_BYTES", 1)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    original = dist.all_reduce

    def told(tensor: torch.Tensor, **how: Any) -> Any:
        found.append((tensor.numel(), float(tensor.sum())))
        return original(tensor, **how)

    monkeypatch.setattr(summing.dist, "all_reduce", told)
    yield found
    dist.destroy_process_group()


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 5, bias=False))


def run(model: nn.Module, x: torch.Tensor) -> None:
    model(x).sum().backward()


def test_only_the_last_pass_sends_and_the_last_layer_goes_first(
    sent: list[tuple[int, float]],
) -> None:
    model, alone = layers(), layers()
    of_all = Summing(list(model.parameters()))
    inputs = torch.ones(1, 3), torch.full((1, 3), 2.0)
    run(model, inputs[0])
    assert not sent
    of_all.last_pass()
    run(model, inputs[1])
    assert [size for size, _ in sent] == [20, 12]  # both went during the pass
    of_all.send(valid=True)
    of_all.receive()
    assert len(sent) == 2
    for x in inputs:
        run(alone, x)
    for ours, theirs in zip(model.parameters(), alone.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)  # type: ignore[arg-type]


def test_what_has_no_gradient_counts_as_zero(
    sent: list[tuple[int, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that isn't zeroed holds anything."""
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: empty(*a, **k).fill_(float("nan")))
    monkeypatch.setattr(summing, "_BYTES", 1 << 20)  # one piece
    model = layers()
    first, last = model.parameters()
    of_all = Summing([first, last])
    for missing in (None, torch.ones_like(first)):
        first.grad, last.grad = missing, torch.ones_like(last)
        of_all.send(valid=True)
        of_all.receive()
        assert sent[-1] == (32, 20.0 if missing is None else 32.0)
        assert torch.equal(last.grad, torch.ones(5, 4))


def test_a_rank_that_failed_sends_as_many_pieces_of_zeros(sent: list[tuple[int, float]]) -> None:
    model = layers()
    of_all = Summing(list(model.parameters()))
    run(model, torch.ones(1, 3))
    of_all.send(valid=False)
    of_all.receive()
    assert sent == [(20, 0.0), (12, 0.0)]
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert not parameter.grad.any()


def test_a_pass_that_breaks_off_leaves_the_rest_to_send(sent: list[tuple[int, float]]) -> None:
    model = layers()
    of_all = Summing(list(model.parameters()))
    hook = model[0].register_full_backward_pre_hook(_break)
    x = torch.ones(1, 3, requires_grad=True)
    of_all.last_pass()
    with pytest.raises(RuntimeError, match="no memory"):
        run(model, x)
    hook.remove()
    before = len(sent)
    of_all.send(valid=False)
    of_all.receive()
    assert before < 2
    assert [size for size, _ in sent] == [20, 12]
    of_all.last_pass()  # and the next step is whole again
    run(model, x)
    of_all.send(valid=True)
    of_all.receive()
    assert [size for size, _ in sent] == [20, 12, 20, 12]


def _break(*_: object) -> None:
    raise RuntimeError("no memory")
