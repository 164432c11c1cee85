"""Which kernels a run will use on this machine: they are compiled while it does something else."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from itertools import chain

import torch

from ragtune.model.fast.ahead import Use, Wanted, compile_ahead, uses_of
from ragtune.model.fast.cache import is_flat
from ragtune.model.fast.liger import has_liger
from ragtune.stages.context import Context
from ragtune.training.moments import step_once

_ASKING = {"before", "after", "general before", "general after"}


def compile_kernels(context: Context, left: Collection[str]) -> None:
    """Begin to compile the kernels that stages will use: where there is a GPU, and this rank leads.

    Args:
        context: the run, whose check has found nothing wrong.
        left: names of the stages that are yet to be made.
    """
    device, dtype = context.hardware.device, context.hardware.dtype
    if not is_flat(device):
        return
    recipe, trains = context.recipe, "adapter" in left
    asks = not (context.remote or _ASKING.isdisjoint(left))
    gradients = trains and recipe.train.products == "fp8"
    fused = trains and not (recipe.full or recipe.lora.dora)
    wanted = Wanted(
        answers=asks,
        products=gradients or (asks and recipe.evaluate.products == "fp8"),
        gradients=gradients,
        dropout=fused and recipe.lora.dropout > 0,
        # Here, and not in the thread: two that import parts of Liger could find each other's halves.
        norms=trains and not recipe.full and has_liger(context.config),
    )
    own: list[Use] = []
    if trains and recipe.train.optimizer != "adamw" and dtype != torch.float16:
        own = [partial(step_once, device)]
    if asks or trains:
        compile_ahead(chain(uses_of(context.config, wanted, device, dtype), own), device)
