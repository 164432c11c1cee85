"""bitsandbytes' AdamW with moments in 8 bits, stepping with a kernel of ours.

Its own kernel searches a table for every number that it stores, and takes several times as long as memory
would. The state is the same, and so are checkpoints: a run goes on with either.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ragtune.base.screen.console import note
from ragtune.base.text import first_line
from ragtune.model.hardware import has_triton

_BLOCKS, _WARPS = 1, 1
"""Blocks of 256 numbers for a program, and its warps."""
_TRIED = 1 << 20
"""Numbers that both kernels step over before ours is used: enough for bitsandbytes to page them, too."""
_TIES = 5e-4
"""Of them, those that may lie so near to the middle between two codes that rounding chooses."""
_SPARE = 0.02
"""Of a GPU's memory: with so much free nothing has to leave it."""
_RATE, _SLIGHT = 1e-3, 1e-3
"""A rate to try with, and the part of it by which parameters may differ: powers are rounded otherwise."""


def quick(kind: type[Optimizer]) -> type[Optimizer]:
    """A class like bitsandbytes' AdamW whose steps on CUDA are our kernel's; of no use where not `agrees`.

    Args:
        kind: bitsandbytes' AdamW.
    """

    class Quick(kind):  # type: ignore[misc,valid-type]
        @torch.no_grad()
        def step(self, _: None = None) -> None:
            """As bitsandbytes' own, which waits for the GPU behind every tensor."""
            _update(self)

        def state_dict(self) -> dict[str, Any]:
            """As ever, once the GPU is through: what is paged is read by the processor."""
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            return super().state_dict()  # type: ignore[no-any-return]

        def update_step(self, group: dict[str, Any], p: nn.Parameter, *place: int) -> None:
            if usable(p, self.state[p]):
                step(self, group, p, *place)
            else:
                super().update_step(group, p, *place)

    return Quick


def _update(optimizer: Any) -> None:  # noqa: ANN401 - bitsandbytes has no types
    if not optimizer.initialized:
        optimizer.check_overrides()
        optimizer.to_gpu()
        optimizer.initialized = True
    for number, group in enumerate(optimizer.param_groups):
        for place, p in enumerate(group["params"]):
            if p.grad is None:
                continue
            if not optimizer.state[p]:
                optimizer.init_state(group, p, number, place)
            if _may_be_away(p):
                optimizer.prefetch_state(p)
            optimizer.update_step(group, p, number, place)


def _may_be_away(p: nn.Parameter) -> bool:
    """Whether paged moments may have left a parameter's GPU, as they do where its memory is all taken.

    In a profile a GPU stood still for a millisecond before each step of the optimizer, probably to be asked for
    what was there. What is away after all comes when it is read.
    """
    free, total = torch.cuda.mem_get_info(p.device) if p.is_cuda else (0, 0)
    return free <= _SPARE * total


def usable(p: Tensor, state: dict[str, Any]) -> bool:
    """Whether the kernel is made for a parameter and its moments: float32 on CUDA, and 8 bits."""
    return p.is_cuda and p.dtype == torch.float32 and state["state1"].dtype == torch.uint8


def step(optimizer: Any, group: dict[str, Any], p: nn.Parameter, *place: int) -> None:  # noqa: ANN401 - bitsandbytes has no types
    """Update a parameter and its moments, as bitsandbytes' `update_step`."""
    from ragtune.model.fast import kernels  # noqa: PLC0415 - Triton is on GPU machines alone

    state, config = optimizer.state[p], optimizer.get_config(*place, group)
    state["step"] += 1
    beta1, beta2 = config["betas"][:2]
    rate, root = config["lr"], math.sqrt(1 - beta2 ** state["step"])
    kernels.adam[(-(-p.numel() // (_BLOCKS * 256)),)](
        p, p.grad, state["state1"], state["state2"], state["absmax1"], state["absmax2"],
        state["qmap1"], state["qmap2"], p.numel(), beta1, beta2,
        -rate * root / (1 - beta1 ** state["step"]), root * config["eps"],
        1 - rate * config["weight_decay"], _BLOCKS, num_warps=_WARPS,
    )  # fmt: skip


@cache
def agrees(kind: type[Optimizer], device: torch.device, *, paged: bool) -> bool:
    """Whether our kernel does what bitsandbytes' does, tried on a device; if not, it is said why."""
    reason = "Triton is missing"
    if has_triton():
        try:
            off = _difference(kind, device, paged=paged)
            if off <= _TIES:
                return True
            reason = f"ragtune's gives {off:.2%} other numbers on this GPU"
        except Exception as error:  # noqa: BLE001 - whatever a driver, a compiler or a library says
            reason = f"ragtune's fails on this GPU ({first_line(error)[:160]})"
    note(f"The optimizer's kernel is bitsandbytes' own, which takes longer: {reason}.")
    return False


def _difference(kind: type[Optimizer], device: torch.device, *, paged: bool) -> float:
    """The largest share, of parameters, codes and blocks' scales, that differs after two steps."""
    generator = torch.Generator().manual_seed(0)
    start, *gradients = (
        torch.randn(_TRIED, generator=generator).to(device) / 100 for _ in range(3)
    )
    results = []
    for ours in (False, True):
        p = nn.Parameter(start.clone())
        options: dict[str, Any] = {
            "lr": _RATE,
            "weight_decay": 0.1,
            "optim_bits": 8,
            "is_paged": paged,
        }
        optimizer: Any = kind([p], **options)
        group = optimizer.param_groups[0]
        optimizer.init_state(group, p, 0, 0)
        for gradient in gradients:
            p.grad = gradient.clone()
            if ours:
                step(optimizer, group, p, 0, 0)
            else:
                optimizer.update_step(group, p, 0, 0)
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # paged moments are read by the CPU
        results.append((p.data, optimizer.state[p]))
    (right, state), (found, other) = results
    # What is paged comes first: not every system lets the CPU read it while the GPU computes.
    shares = [
        *((state[k] != other[k]).float().mean() for k in ("state1", "state2")),
        ((right - found).abs() > _SLIGHT * _RATE).float().mean(),
        *(
            ((state[k] - other[k]).abs() > _SLIGHT * state[k]).float().mean()
            for k in ("absmax1", "absmax2")
        ),
    ]
    return max(map(float, shares))
