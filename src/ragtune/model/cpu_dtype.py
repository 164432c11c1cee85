"""The dtype of a model on a CPU: measured at the model's width, not looked up by the processor's name."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch.nn.functional import linear
from transformers import PreTrainedConfig

from ragtune.model.hardware import Hardware
from ragtune.recipe.schema import Recipe

CLEARLY = 1.3
"""How many times faster products in bfloat16 must be. They are half of a step or more, so that a step then
takes a tenth less at least; for less, float32 isn't given up, which is exact and the same on any CPU.
With instructions for bfloat16 it is 2 and more, without them less than 1: no measurement falls near it."""

_TOKENS = (16, 64, 256, 256, 256, 256, 256, 256)
"""Of the products, one after the other: few at first, since bfloat16 without instructions may take long."""
_WIDEST = 1024
_SECONDS = 0.2


@dataclass(frozen=True)
class Speeds:
    """What a thread of this CPU reaches in a linear layer, in 10⁹ operations a second."""

    float32: float
    bfloat16: float

    @property
    def chosen(self) -> torch.dtype:
        return torch.bfloat16 if self.bfloat16 >= CLEARLY * self.float32 else torch.float32

    def __str__(self) -> str:
        return (
            f"measured: a thread computes {self.float32:,.0f} GFLOP/s in float32, {self.bfloat16:,.0f} in "
            "bfloat16"
        )


def is_measured(hardware: Hardware, recipe: Recipe) -> bool:
    """Whether the dtype is left to a measurement: by `model.dtype: auto` on a CPU.

    All weights of a model are trained in float32 there, whatever is faster.
    """
    return hardware.device.type == "cpu" and recipe.model.dtype == "auto" and not recipe.full


def settle(
    hardware: Hardware, recipe: Recipe, config: Callable[[], PreTrainedConfig], begun: str | None
) -> Hardware:
    """The hardware with the dtype that `model.dtype: auto` means on a CPU; any other as it is.

    Args:
        hardware: as it was chosen.
        recipe: its dtype, and what is trained.
        config: reads the model's configuration.
        begun: the dtype in which the run was begun, which then stays.
    """
    if not is_measured(hardware, recipe):
        return hardware
    if begun:
        dtype, reason = getattr(torch, begun), "as the run was begun"
    else:
        width = getattr(config().get_text_config(), "hidden_size", _WIDEST)
        speeds = measure(min(int(width), _WIDEST))
        dtype, reason = speeds.chosen, str(speeds)
    return dataclasses.replace(hardware, dtype=dtype, reason=reason)


@cache
def measure(width: int) -> Speeds:
    """The best of several products of a layer `width` wide, both formats in turn, in 0.3 s at most.

    By one thread: several wait for each other, so that a process beside them would decide.
    """
    best = {torch.float32: 0.0, torch.bfloat16: 0.0}
    threads, start = torch.get_num_threads(), time.perf_counter()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            layers = {dtype: torch.ones(width, width, dtype=dtype) for dtype in best}
            for tokens in _TOKENS:
                begin = time.perf_counter()
                for dtype, weight in layers.items():
                    speed = _speed(weight, tokens)
                    best[dtype] = max(best[dtype], speed)
                now = time.perf_counter()
                if now - start + 4 * (now - begin) > _SECONDS:  # the next has four times as many
                    break
    finally:
        torch.set_num_threads(threads)
    return Speeds(best[torch.float32], best[torch.bfloat16])


def _speed(weight: torch.Tensor, tokens: int) -> float:
    x = torch.ones(tokens, weight.shape[1], dtype=weight.dtype)
    linear(x, weight)  # the first of a shape makes its kernel
    begin = time.perf_counter()
    linear(x, weight)
    seconds = time.perf_counter() - begin
    return 2e-9 * tokens * weight.numel() / max(seconds, 1e-9)
