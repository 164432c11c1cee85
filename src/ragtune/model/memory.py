"""The plan: how the recipe's batch is laid out on this hardware.

The effective batch is the user's. How many samples share a row, and whether activations are
recomputed, follows from memory: an estimate first, corrected when it was wrong. On CPU the plan
depends on the recipe alone, so that a run is the same on any machine of a kind.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

from ragtune.model.load import Hardware
from ragtune.recipe import Recipe

CPU_SAMPLES_PER_ROW = 2
CPU_EVALUATION_BATCH = 25
GPU_EVALUATION_BATCH = 64
MAX_ROW_TOKENS = 12_000
"""Longer rows gain nothing: the matrix products fill the GPU long before."""

_SPARE = 0.85  # of the free memory; the allocator's fragments need the rest


@dataclass(frozen=True)
class Plan:
    """What was chosen for this hardware; written to run.json before the first step and kept."""

    device: str
    dtype: str
    quantization: str | None
    packed: bool
    packed_reason: str
    samples_per_row: int
    recompute: bool
    optimizer: str
    evaluation_batch: int
    changes: tuple[str, ...] = ()

    @property
    def max_samples_per_row(self) -> int:
        return self.samples_per_row if self.packed else 1

    def rows(self, batch_size: int) -> int:
        """Rows an optimizer step (the accumulation)."""
        return -(-batch_size // self.max_samples_per_row)

    def smaller(self, step: int) -> Plan | None:
        """The plan after an out-of-memory at a step: half the row, then recompute, then None."""
        if self.max_samples_per_row > 1:
            half = self.max_samples_per_row // 2
            change = f"step {step}: out of memory, {half} samples a row"
            return dataclasses.replace(self, samples_per_row=half, changes=(*self.changes, change))
        if not self.recompute:
            change = f"step {step}: out of memory, recompute activations"
            return dataclasses.replace(self, recompute=True, changes=(*self.changes, change))
        return None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Plan:
        return cls(**{**values, "changes": tuple(values.get("changes", ()))})


def evaluation_batch(recipe: Recipe, hardware: Hardware) -> int:
    """Questions answered at a time; on a GPU the first try, halved when memory runs out."""
    if recipe.evaluate.batch_size != "auto":
        return recipe.evaluate.batch_size
    return GPU_EVALUATION_BATCH if hardware.device.type == "cuda" else CPU_EVALUATION_BATCH


def make_plan(
    recipe: Recipe, hardware: Hardware, model: Any, unpackable: str | None, longest: int
) -> Plan:
    """Lay out a recipe's batch for a loaded model with its adapter.

    Args:
        recipe: the batch size, and what it fixes itself.
        hardware: the device.
        model: the model, on its device, adapter included.
        unpackable: why it can't be trained on packed rows, or None.
        longest: the longest sample, in tokens.
    """
    train = recipe.train
    fits = _fitting_samples(
        hardware, model, longest, recompute=False, dropout=recipe.lora.dropout > 0
    )
    recompute = train.recompute if train.recompute != "auto" else fits < 1
    if recompute:
        fits = _fitting_samples(
            hardware, model, longest, recompute=True, dropout=recipe.lora.dropout > 0
        )
    if train.samples_per_row != "auto":
        per_row = train.samples_per_row
    else:
        per_row = max(1, min(fits, MAX_ROW_TOKENS // max(1, longest)))
    return Plan(
        device=hardware.name,
        dtype=hardware.dtype_name,
        quantization=recipe.model.quantization,
        packed=unpackable is None,
        packed_reason=unpackable or "packed rows give the logits of single samples",
        samples_per_row=min(per_row, train.batch_size) if unpackable is None else 1,
        recompute=recompute,
        optimizer=train.optimizer,
        evaluation_batch=evaluation_batch(recipe, hardware),
    )


def _fitting_samples(
    hardware: Hardware, model: Any, longest: int, *, recompute: bool, dropout: bool
) -> int:
    """How many of the longest samples fit into one row; 0 if none does."""
    if hardware.device.type != "cuda":
        return CPU_SAMPLES_PER_ROW
    free, _ = torch.cuda.mem_get_info(hardware.device)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    optimizer = trained * 4 + trained * 8  # gradients and two moments in float32
    budget = free * _SPARE - optimizer
    return max(
        0,
        int(
            budget
            // (activation_bytes(model.config, recompute=recompute, dropout=dropout) * longest)
        ),
    )


def activation_bytes(config: Any, *, recompute: bool, dropout: bool) -> int:
    """Bytes of activations that a token keeps for the backward pass.

    A layer with LoRA on its seven projections was measured to keep 10.6 bytes (without dropout) and
    15.6 bytes (with it, in seven copies) for each unit of its hidden and intermediate size, at a 7B
    Llama's shape; recomputing keeps a layer's input, and one layer's activations at a time.
    """
    text = config.get_text_config()
    hidden = int(text.hidden_size)
    inner = int(getattr(text, "intermediate_size", 0) or 4 * hidden)
    layers = int(text.num_hidden_layers)
    layer = (hidden + inner) * (17 if dropout else 12)
    return layer + layers * hidden * 2 if recompute else layers * layer
