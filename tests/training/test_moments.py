from __future__ import annotations

import copy
import math
import os
from functools import partial
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import Trainer

from ragtune.training import moments, trainer
from ragtune.training.flat import flat_optimizer

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
interpreted = os.environ.get("TRITON_INTERPRET") == "1" and find_spec("triton")
kernel = pytest.mark.skipif(not GPU and not interpreted, reason="needs CUDA, or Triton on a CPU")
"""On a CPU: TRITON_INTERPRET=1."""
DECAY, RATE = 0.1, 1e-2


@pytest.fixture(name="kind")
def _kind() -> Any:
    moments.agrees.cache_clear()
    return pytest.importorskip("bitsandbytes.optim").AdamW


def made(kind: Any, p: nn.Parameter, **options: Any) -> Any:
    return kind([p], lr=RATE, weight_decay=DECAY, optim_bits=8, **options)


def drawn(size: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.randn(size, generator=generator).exp()
    return (torch.randn(size, generator=generator) * spread / 100).to(DEVICE)


def nearest(x: Tensor, among: Tensor) -> Tensor:
    return torch.bucketize(x, (among[1:] + among[:-1]) / 2)


class Plain:
    """The step from its definition: blocks of 256, each code the nearest, and what is negative stays so."""

    def __init__(self, p: Tensor, state: dict[str, Any]) -> None:
        self.p, self.step, self.signed, self.unsigned = p, 0, state["qmap1"], state["qmap2"]
        self.m = self.v = pad(torch.zeros_like(p), (0, -p.numel() % 256)).view(-1, 256)

    def update(self, gradient: Tensor) -> dict[str, Tensor]:
        self.step += 1
        size = self.p.numel()
        g = pad(gradient, (0, -size % 256)).view(-1, 256)
        m, v = 0.9 * self.m + 0.1 * g, 0.999 * self.v + 0.001 * g * g
        update = m / (1 - 0.9**self.step) / ((v / (1 - 0.999**self.step)).sqrt() + 1e-8)
        self.p = (self.p - RATE * update.view(-1)[:size]) * (1 - RATE * DECAY)
        most1, most2 = m.abs().amax(1, keepdim=True), v.amax(1, keepdim=True)
        code1, code2 = nearest(m / most1, self.signed), nearest(v / most2, self.unsigned)
        code1 = torch.where((code1 == 127) & (m < 0), 126, code1)
        self.m, self.v = self.signed[code1] * most1, self.unsigned[code2] * most2
        names = ("state1", "state2", "absmax1", "absmax2")
        found = (code1.view(-1)[:size], code2.view(-1)[:size], most1[:, 0], most2[:, 0])
        return dict(zip(names, found, strict=True))


def close(state: dict[str, Any], other: dict[str, Any], ties: float) -> None:
    for name in ("state1", "state2"):
        assert (state[name] != other[name]).float().mean() <= ties
    for name in ("absmax1", "absmax2"):
        torch.testing.assert_close(state[name], other[name], rtol=0.02, atol=0)


@kernel
@pytest.mark.parametrize("size", [256 * 16, 256 * 21, 256 * 16 + 77])
def test_steps_are_those_of_the_definition(kind: Any, size: int) -> None:
    p = nn.Parameter(drawn(size, 0))
    optimizer = made(kind, p)
    optimizer.init_state(optimizer.param_groups[0], p, 0, 0)
    plain = Plain(p.data.clone(), optimizer.state[p])
    for seed in range(1, 5):
        p.grad = drawn(size, seed)
        moments.step(optimizer, optimizer.param_groups[0], p, 0, 0)
        close(optimizer.state[p], plain.update(p.grad), ties=1e-3)
        assert ((p.data - plain.p).abs() > 1e-3 * RATE).float().mean() <= 2e-3
    assert optimizer.state[p]["step"] == 4


@kernel
def test_every_code_is_kept_and_a_tiny_negative_number_stays_negative(kind: Any) -> None:
    """With nothing new, and betas of one, each number of the maps is nearest to itself."""
    p = nn.Parameter(torch.zeros(4096, device=DEVICE))
    optimizer = made(kind, p, betas=(1 - 1e-9, 1 - 1e-9))
    group = optimizer.param_groups[0]
    optimizer.init_state(group, p, 0, 0)
    state = optimizer.state[p]
    codes = torch.arange(256, dtype=torch.uint8, device=DEVICE).repeat(16)
    for name in ("state1", "state2"):
        state[name].copy_(codes)
    state["absmax1"].fill_(0.5)
    state["absmax2"].fill_(3.0)
    p.grad = torch.zeros_like(p)
    moments.step(optimizer, group, p, 0, 0)
    assert torch.equal(state["state1"], codes)
    assert torch.equal(state["state2"], codes)
    state["state1"].fill_(255)
    state["absmax1"].fill_(1.0)
    group["betas"] = (0.5, 0.5)
    p.grad[::2] = 1.0
    p.grad[1::2] = -1.0000001
    moments.step(optimizer, group, p, 0, 0)
    assert set(state["state1"][1::2].tolist()) == {126}


@kernel
def test_no_gradient_and_what_is_no_number_move_nothing(kind: Any) -> None:
    p = nn.Parameter(torch.ones(4096, device=DEVICE))
    optimizer = made(kind, p)
    group = optimizer.param_groups[0] | {"weight_decay": 0.0}
    optimizer.init_state(group, p, 0, 0)
    p.grad = torch.zeros_like(p)
    p.grad[7], p.grad[9], p.grad[300] = math.nan, math.inf, 1.0
    moments.step(optimizer, group, p, 0, 0)
    expected = torch.ones_like(p)
    expected[300] -= RATE
    torch.testing.assert_close(p.data, expected)
    state = optimizer.state[p]
    assert state["absmax1"].count_nonzero() == state["absmax2"].count_nonzero() == 1
    assert state["state1"][300] == state["state2"][300] == 255


def test_what_is_on_a_cpu_steps_as_in_bitsandbytes(kind: Any) -> None:
    results = []
    for cls in (kind, moments.quick(kind)):
        p = nn.Parameter(drawn(5000, 0).cpu())
        optimizer = made(cls, p)
        for seed in (1, 2):
            p.grad = drawn(5000, seed).cpu()
            optimizer.step()
        results.append(p.data)
    assert torch.equal(*results)


def stepping(kind: Any) -> list[str]:
    """With whose kernel bitsandbytes' class and ours step, where it is said that there is CUDA."""
    used: list[str] = []
    p = nn.Parameter(torch.ones(4096))
    optimizer = made(moments.quick(kind), p)
    own, ours = kind.update_step, moments.step

    def watch(name: str, function: Any) -> Any:
        def call(*args: Any) -> None:
            used.append(name)
            function(*args)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moments, "usable", lambda *_: True)
        patch.setattr(kind.__mro__[1], "update_step", watch("bitsandbytes", own))
        patch.setattr(moments, "step", watch("ours", ours))
        for _ in range(2):
            p.grad = torch.ones(4096)
            optimizer.step()
    return used[-2:]


def test_a_kernel_that_does_the_same_is_used(
    kind: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(moments, "has_triton", lambda: True)
    monkeypatch.setattr(moments, "_TRIED", 4096)
    monkeypatch.setattr(moments, "step", kind.update_step)
    assert stepping(kind) == ["ours"] * 2
    assert moments.agrees(kind, torch.device("cpu"), paged=False)
    assert "kernel" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("rate", "100.00% other numbers"),
        ("fails", "fails on this GPU (no such instruction)"),
        ("missing", "Triton is missing"),
    ],
)
def test_a_kernel_that_does_not_is_left_alone_and_it_is_said(
    kind: Any,
    wrong: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def ours(optimizer: Any, group: dict[str, Any], *args: Any) -> None:
        if wrong == "fails":
            raise RuntimeError("no such instruction")
        kind.update_step(optimizer, group | {"lr": 2 * group["lr"]}, *args)

    monkeypatch.setattr(moments, "has_triton", lambda: wrong != "missing")
    monkeypatch.setattr(moments, "_TRIED", 4096)
    monkeypatch.setattr(moments, "step", ours)
    for _ in range(2):
        assert not moments.agrees(kind, torch.device("cpu"), paged=False)
    printed = capsys.readouterr()
    assert (printed.out + printed.err).replace("\n", " ").count(said) == 1


@pytest.mark.gpu
@pytest.mark.parametrize("paged", [False, True])
def test_five_steps_are_those_of_bitsandbytes_kernel(kind: Any, paged: bool) -> None:
    size = 256 * 1001 + 37
    results = []
    for cls in (kind, moments.quick(kind)):
        p = nn.Parameter(drawn(size, 0))
        optimizer = made(cls, p, is_paged=paged)
        for seed in range(1, 6):
            p.grad = drawn(size, seed)
            optimizer.step()
        results.append((p.data, optimizer.state[p]))
    assert moments.agrees(kind, p.device, paged=paged)
    (right, state), (found, other) = results
    close(state, other, ties=1e-3)
    assert ((right - found).abs() > 1e-3 * RATE).float().mean() <= 2e-3


@pytest.mark.parametrize("others", [None, True, False], ids=["alone", "alike", "another rank"])
def test_the_trainer_steps_with_it(
    kind: Any, others: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one of several ranks can't, none does: their adapters would differ."""
    monkeypatch.setattr(
        Trainer, "get_optimizer_cls_and_kwargs", lambda *_: (kind, {"optim_bits": 8})
    )
    monkeypatch.setattr(Trainer, "create_optimizer", lambda one, _: one.optimizer)
    one = object.__new__(trainer.PackedTrainer)
    one.optimizer = one.model = one.lora_plus = None
    one.plan = SimpleNamespace(optimizer="adamw_8bit")
    one.args = SimpleNamespace(fp16=False, weight_decay=0.0, device=torch.device("cuda"))
    world = SimpleNamespace(any=lambda flag: (flag or not others,))
    one.world = None if others is None else world
    one.learning = [nn.Parameter(torch.ones(64, 64))]
    monkeypatch.setattr(moments, "usable", lambda *_: True)
    monkeypatch.setattr(trainer, "agrees", lambda *_, **__: True)
    used: list[Any] = []
    monkeypatch.setattr(moments, "step", lambda *args: used.append(args))
    optimizer = one.create_optimizer()
    one.learning[0].grad = torch.ones(64, 64)
    optimizer.step()
    assert len(used) == (others is not False)


def checkpointed(p: nn.Parameter, cls: Any, *, paged: bool) -> Any:
    return flat_optimizer([p], lambda t: cls(t, lr=RATE, optim_bits=8, is_paged=paged))


@pytest.mark.gpu
@pytest.mark.parametrize("paged", [False, True])
def test_a_checkpoint_of_either_kernel_goes_on_with_the_other(kind: Any, paged: bool) -> None:
    size = 256 * 500
    quick = moments.quick(kind)
    results = []
    for first, second in ((kind, kind), (kind, quick), (quick, kind)):
        p = nn.Parameter(drawn(size, 0))
        make = partial(checkpointed, p, paged=paged)
        optimizer = make(first)
        for seed in (1, 2, 3, 4):
            if seed == 3:
                saved = copy.deepcopy(optimizer.state_dict())
                optimizer = make(second)
                optimizer.load_state_dict(saved)
            p.grad = drawn(size, seed)
            optimizer.step()
        results.append(p.data)
    for found in results[1:]:
        assert ((found - results[0]).abs() > 1e-3 * RATE).float().mean() <= 2e-3


@pytest.mark.parametrize(("free", "away"), [(1.0, True), (2.0, True), (2.1, False)])
def test_paged_moments_are_asked_for_where_memory_was_all_taken(
    monkeypatch: pytest.MonkeyPatch, free: float, away: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 100.0))
    on_gpu: Any = SimpleNamespace(is_cuda=True, device="cuda")
    assert moments._may_be_away(on_gpu) is away
    assert moments._may_be_away(nn.Parameter(torch.ones(1)))  # as ever, elsewhere
