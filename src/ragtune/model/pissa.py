"""PiSSA: an adapter that begins with the largest singular values of the weight that it adapts.

Meng et al. 2024 (https://arxiv.org/abs/2404.02948) train W = (W - s·B₀A₀) + s·BA, where B₀ and A₀ are those of
the weight. PEFT puts W - s·B₀A₀ in the place of the base's weights, rounded to their dtype, and turns the
adapter into one of twice the rank when it is saved, for the base as it was. Here the adapter has twice the rank
from the beginning, of which the half that is -B₀ and A₀ is never trained: the base is untouched, and what is
trained is what is saved, merged and published.
"""

from __future__ import annotations

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from ragtune.base.errors import UsageError
from ragtune.base.screen.progress import busy
from ragtune.model.skeleton import is_linear
from ragtune.model.spread import is_spread
from ragtune.model.wrapping import ADAPTER, adapters

_ITERATIONS = 16
"""Of the singular values' approximation, as of PEFT's `pissa_niter_16`. The adapter begins as nothing, to the
last bit of a sum, however near they are."""


def begin(tuned: PeftModel) -> None:
    """Give a fresh adapter of twice the rank its first weights, and let one half of it learn.

    Raises:
        UsageError: an adapted weight is none of a plain linear layer in 16 or 32 bits.
    """
    every = adapters(tuned)
    for name, layer in every.items():
        base = layer.get_base_layer()
        whole = is_linear(base) and base.weight.dtype in (
            torch.float32,
            torch.bfloat16,
            torch.float16,
        )
        if not whole or is_spread(tuned.get_base_model()):
            raise UsageError(
                f"lora.init: pissa needs the numbers of each weight that it adapts, and those of {name} are "
                f"{'spread over several GPUs' if whole else 'packed, or of experts'}.",
                "Set lora.init=null, or take a base that is whole and not quantised.",
            )
    with (
        busy("taking the weights' largest singular values (PiSSA)", len(every)) as update,
        torch.no_grad(),
    ):
        for done, layer in enumerate(every.values()):
            update(done)
            _begin(layer)


def unlike() -> UsageError:
    """What is wrong where ranks compute on devices that differ, by name or by how they sum."""
    # A processor's singular values depend on how many threads sum, too.
    return UsageError(
        "lora.init: pissa, and the ranks compute on devices that differ, each of which finds other last "
        "digits of the weights' singular values: they would train unlike adapters.",
        "Set devices to a list of those that are alike, or lora.init=null.",
    )


def _begin(layer: LoraLayer) -> None:
    a_RI, b_OR = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    base = layer.get_base_layer()
    weight_OI = base.weight if isinstance(base, nn.Linear) else base.weight.T
    half = a_RI.shape[0] // 2
    rank = min(half, *weight_OI.shape)
    u_OR, values_R, v_IR = torch.svd_lowrank(weight_OI.float(), q=rank, niter=_ITERATIONS)
    root_R = (values_R / layer.scaling[ADAPTER]).sqrt()
    a_RI.zero_()
    b_OR.zero_()
    for start, sign in ((0, 1), (half, -1)):
        a_RI[start : start + rank] = root_R[:, None] * v_IR.T
        b_OR[:, start : start + rank] = sign * root_R * u_OR
    _keep(a_RI, torch.arange(2 * half, device=a_RI.device)[:, None] < half)
    _keep(b_OR, torch.arange(2 * half, device=b_OR.device) < half)


def _keep(weight: Tensor, trained: Tensor) -> None:
    """Give no gradient to the part of a weight that isn't trained."""
    weight.register_hook(lambda gradient: gradient * trained)  # type: ignore[no-untyped-call]
