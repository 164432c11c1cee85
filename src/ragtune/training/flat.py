"""An adapter's many small tensors as one for the optimizer.

bitsandbytes' 8-bit optimizers update one tensor after the other and wait for the GPU after each: with
448 of them the GPU stands still for a tenth of the step. Its quantisation works in blocks of 256
numbers, so tensors that begin at such a border in one long tensor get the values that they would get
alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

_BLOCK = 256
_LEAST = 4096
"""bitsandbytes keeps the moments of smaller tensors in float32; they stay on their own."""


def split_rates(optimizer: Optimizer, model: nn.Module, ratio: float) -> None:
    """Give the B matrices of an adapter a learning rate of their own (LoRA+, Hayou et al. 2024).

    Of the optimizer's groups each is split in two, before a step is made and a schedule begins:
    https://arxiv.org/abs/2402.12354.

    Args:
        optimizer: over the model's parameters.
        model: with an adapter.
        ratio: how often the rate of the other parameters.
    """
    second = {id(p) for name, p in model.named_parameters() if ".lora_B." in name}
    for group in list(optimizer.param_groups):
        chosen = [p for p in group["params"] if id(p) in second]
        if chosen:
            group["params"] = [p for p in group["params"] if id(p) not in second]
            optimizer.add_param_group({**group, "params": chosen, "lr": ratio * group["lr"]})


def flat_optimizer(
    parameters: Iterable[nn.Parameter], make: Callable[[list[nn.Parameter]], Optimizer]
) -> Optimizer:
    """An optimizer over one long tensor, of which the parameters become views.

    Args:
        parameters: float32, of one device, of one group.
        make: builds the optimizer over the tensors it is given.

    Returns:
        The optimizer. Before a step it takes the parameters' gradients, which are gone afterwards.
    """
    every = list(parameters)
    large = [p for p in every if p.numel() >= _LEAST]
    alone = [p for p in every if p.numel() < _LEAST]
    if not large:
        return make(alone)
    ends = list(accumulate((-(-p.numel() // _BLOCK) * _BLOCK for p in large), initial=0))
    flat = nn.Parameter(torch.zeros(ends[-1], dtype=large[0].dtype, device=large[0].device))

    def views(whole: Tensor) -> list[Tensor]:
        return [
            whole[start : start + p.numel()].view(p.shape)
            for start, p in zip(ends, large, strict=False)
        ]

    with torch.no_grad():
        for parameter, view in zip(large, views(flat.data), strict=True):
            view.copy_(parameter)
            parameter.data = view
    optimizer = make([flat, *alone])

    def gather(*_: object) -> None:
        # What no gradient is for must be 0: a gap behind a tensor, and one that got none.
        whole = ends[-1] == sum(p.numel() for p in large if p.grad is not None)
        flat.grad = torch.empty_like(flat) if whole else torch.zeros_like(flat)
        found = [
            (view, p.grad)
            for view, p in zip(views(flat.grad), large, strict=True)
            if p.grad is not None
        ]
        if found:
            torch._foreach_copy_([v for v, _ in found], [g for _, g in found])
        for parameter in large:
            parameter.grad = None

    def forget(*_: object) -> None:
        flat.grad = None

    optimizer.register_step_pre_hook(gather)
    optimizer.register_step_post_hook(forget)
    return optimizer
