"""What differs from row to row beside what the model reads: in the device's memory, where kernels find it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import TrainingArguments

from ragtune.model.fast.dropout import Masks
from ragtune.training.noise import Noise


class Announcing:
    """Says which row is run next.

    Args:
        masks: what dropout draws from.
        noise: on the embeddings, if there is one.
        trained: the trained tokens of every step, of all ranks.
        args: the rows of a step, and the device.
    """

    def __init__(
        self,
        masks: Masks,
        noise: Noise | None,
        trained: Sequence[int],
        args: TrainingArguments,
    ) -> None:
        self.masks = masks
        self.noise = noise
        self.trained = trained
        self.args = args
        self.divisor = torch.ones((), device=args.device)
        """The trained tokens of the row's step."""

    def __call__(self, row: dict[str, Any]) -> None:
        """Before a row of the collator is run; it is on the device."""
        step = row["row"] // self.args.gradient_accumulation_steps
        self.masks.read(step, row["places"])
        self.divisor.fill_(self.trained[step])
        if self.noise:
            self.noise.borders = row.get("cu_seq_lens_q")
