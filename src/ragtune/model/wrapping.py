"""PEFT's adapters around a model's weights, which are named one by one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.tuners.lora import model as lora_model
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from ragtune.base.sparing import spared
from ragtune.model.quiet import quiet
from ragtune.model.skeleton import is_linear
from ragtune.recipe.lora import Lora

ADAPTER = "default"
"""PEFT's name for the only adapter of a model."""
Tuned = PeftModel | PreTrainedModel
"""A model with an adapter, or one of which all weights are trained."""


def wrap(
    model: PreTrainedModel,
    lora: Lora,
    layers: Sequence[str],
    by_weight: Sequence[str] = (),
    experts: Sequence[str] = (),
    *,
    weightless: bool = False,
) -> PeftModel:
    """PEFT's model around a model, with a LoRA adapter on these weights, by their whole names.

    With `weightless`, or around a model without weights, the adapter has none, either.

    Raises:
        ValueError: PEFT refuses a layer.
    """
    by_name = [name for name in layers if name not in by_weight]
    weights = [*experts, *(f"{name}.weight" for name in by_weight)]
    config = LoraConfig(
        r=lora.saved_rank,
        lora_alpha=lora.saved_alpha,
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        # PEFT refuses dropout beside an adapted weight; `lora.attach` gives it to the other layers.
        lora_dropout=0.0 if weights else lora.dropout,
        task_type=TaskType.CAUSAL_LM,
        target_modules=_shortened(by_name, [name for name, _ in model.named_modules()]),
        target_parameters=_shortened(weights, [name for name, _ in model.named_parameters()])
        or None,
    )
    weightless = weightless or model.get_input_embeddings().weight.is_meta
    with quiet(), spared(lora_model):
        return get_peft_model(model, config, low_cpu_mem_usage=weightless)


def _shortened(names: Sequence[str], every: Sequence[str]) -> list[str]:
    """The ends of names where these choose the same of all names, as PEFT does; else the names."""
    ends = sorted({name.rpartition(".")[2] for name in names})
    chosen = {n for n in every if n in ends or n.endswith(tuple(f".{end}" for end in ends))}
    return ends if ends and chosen == set(names) else list(names)


def adapters(tuned: PeftModel) -> dict[str, LoraLayer]:
    """The LoRA layers of a PEFT model, by the whole name of the layer or weight that they adapt."""
    found = {}
    for name, module in tuned.get_base_model().named_modules():
        if isinstance(module, LoraLayer):
            own = name.replace(".base_layer", "")
            weight = getattr(module, "parameter_name", None)
            if weight and not is_matrix(module):
                own = f"{own}.{weight}"
            found[own] = module
    return found


def is_matrix(adapter: LoraLayer) -> bool:
    """Whether a LoRA layer adapts a linear layer, and not the weights of experts."""
    return is_linear(adapter.get_base_layer())


def trainable_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def digest_of(model: nn.Module, *, trained: bool = False) -> str:
    """The same for the same weights, on any device: sums of their bits, one after the other.

    Weights that are spread over ranks were compared before, and don't count; with `trained` only those do
    that are trained.
    """
    names, sums = [], []
    for name, parameter in model.named_parameters():
        if isinstance(parameter, DTensor) or (trained and not parameter.requires_grad):
            continue
        names.append(name)
        sums.append(torch.stack([*map(_sum_of_bits, _parts(parameter.detach()))]).sum())
    total = 0
    # All at once: to read each by itself would wait for the GPU, hundreds of times.
    read = torch.stack([one.to(sums[0].device) for one in sums]).tolist() if sums else []
    for name, one in zip(names, read, strict=True):
        total = (total * 31 + one + len(name)) % (2**61 - 1)
    return f"{total:x}"


def _parts(data: Tensor) -> Sequence[Tensor]:
    """A tensor in parts of at most `_AT_A_TIME` numbers or, if these are more, single rows."""
    if not data.numel() or not data.dim():
        return [data]
    return torch.split(data, max(1, _AT_A_TIME // (data.numel() // len(data))))  # type: ignore[no-untyped-call, no-any-return]


def _sum_of_bits(data: Tensor) -> Tensor:
    data = data.contiguous()
    return data.view(_BITS[data.element_size()]).sum(dtype=torch.int64)


_AT_A_TIME = 2**24
"""To sum them, torch makes whole numbers of 8 bytes of them first."""
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Whole numbers of as many bytes."""
