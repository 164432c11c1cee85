"""Whether samples share rows, and whether these have once what samples begin with: tried on the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch.nn import Dropout
from transformers import PreTrainedModel

from ragtune.data.encode import Sample
from ragtune.model.fast.probe import probe_shared, probe_texts
from ragtune.model.plan import Plan
from ragtune.recipe.schema import Recipe


def packing(model: PreTrainedModel, plan: Plan, recipe: Recipe, samples: Sequence[Sample]) -> Plan:
    """The plan with what was found on a model that is to be trained on these samples."""
    texts = [s.prompt_ids + s.completion_ids for s in samples]
    unpackable = probe_texts(model, texts, training=True)
    shares = (
        unpackable is None
        and model.device.type == "cpu"  # on a GPU torch's kernel is faster
        and recipe.train.preference is None  # rows of pairs are laid out otherwise
        and _draws_nothing(model, recipe)
        and probe_shared(model, [s.prompt_ids for s in samples])
    )
    return dataclasses.replace(
        plan,
        packed=unpackable is None,
        packed_reason=unpackable or "packed rows give the logits of single samples",
        shared_prefix=shares,
    )


def _draws_nothing(model: PreTrainedModel, recipe: Recipe) -> bool:
    """Whether what samples begin with is the same in each: dropout and noise are drawn for every sample."""
    drops = any(isinstance(module, Dropout) and module.p > 0 for module in model.modules())
    drops = drops or (not recipe.full and recipe.lora.dropout > 0)
    return not (drops or recipe.train.arguments.get("neftune_noise_alpha"))
