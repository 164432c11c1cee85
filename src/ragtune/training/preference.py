"""Preference tuning: of two answers to a prompt one is to become likelier than the other (DPO).

Rafailov et al. 2023 (https://arxiv.org/abs/2305.18290): the loss of a pair is -log σ(β·(m - m₀)), where m is by
how much the chosen answer's log probability is above the rejected one's, and m₀ what it was before training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers.trainer_utils import TrainOutput

from ragtune.base.errors import UsageError, is_out_of_memory
from ragtune.base.screen.progress import busy
from ragtune.data.encode import Sample
from ragtune.model.hardware import autocast, free_gpu
from ragtune.model.spread import is_spread
from ragtune.model.wrapping import Tuned
from ragtune.recipe.schema import Train
from ragtune.training.pairs import PairCollator, margins
from ragtune.training.rows import read_row
from ragtune.training.trainer import PackedTrainer


class PreferenceTrainer(PackedTrainer):
    """Trains on rows of pairs.

    Args:
        beta: how far the model may go from what it was: the smaller, the farther.
        options: PackedTrainer's. The rows get their references before the first step, from the model as it is.

    Raises:
        UsageError: no pair stands in a row, as rows can't be packed; or the ranks share the weights.
    """

    def __init__(self, *, beta: float, **options: Any) -> None:  # noqa: ANN401 - as PackedTrainer has them
        super().__init__(**options)
        if is_spread(self.model):
            raise UsageError(
                "train.preference needs the whole model on each GPU, and this one is spread over them.",
                "Leave it out, or take a smaller model.",
            )
        if not self.plan.packed:
            raise UsageError(
                f"train.preference needs rows of several samples: {self.plan.packed_reason}.",
                "Leave it out, or take a model whose rows can be packed.",
            )
        self.beta = beta
        self.data_collator = PairCollator(packed=True)
        self.graphs.drop()  # which fill rows up with what is no pair

    def train(self, *arguments: Any, **options: Any) -> TrainOutput:  # noqa: ANN401 - Trainer's
        """Trainer's, when the references are known."""
        self.model.eval()
        with busy("reading the pairs before training", len(self.rows), unit="rows") as update:
            for index, row in enumerate(self.rows):
                update(index)
                self.rows[index] = referenced(self.model, row)
        return super().train(*arguments, **options)

    def total_loss(self, logits_KV: Tensor, inputs: dict[str, Any]) -> Tensor:
        """DPO's over the pairs of a row; cross entropy over one without pairs."""
        if "reference" not in inputs:
            assert not (self.model.training and len(inputs["targets"])), "a row lost its pairs"
            return super().total_loss(logits_KV, inputs)
        return functional.softplus(
            -self.beta * (margins(logits_KV, inputs) - inputs["reference"])
        ).sum()


def referenced(model: Tuned, row: list[Sample]) -> list[Sample]:
    """A row with each pair's margin by the model as it is; in halves where memory runs out."""
    device = model.get_input_embeddings().weight.device
    batch = {
        k: v.to(device) if isinstance(v, Tensor) else v
        for k, v in PairCollator(packed=True)([{"index": 0, "samples": row}]).items()
    }
    if "reference" not in batch:
        return row
    try:
        with torch.no_grad(), autocast(model):
            values = margins(read_row(model, batch)[1], batch).tolist()
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not is_out_of_memory(error) or len(row) == 1:
            raise
    else:
        pairs = zip(row, values, strict=True)
        return [dataclasses.replace(pair, reference=value) for pair, value in pairs]  # type: ignore[call-arg]
    free_gpu()  # only here the exception is gone, and with it what its frames held
    half = len(row) // 2
    return [*referenced(model, row[:half]), *referenced(model, row[half:])]


def trainer_of(train: Train) -> Callable[..., PackedTrainer]:
    """Who trains, as the recipe has it."""
    if train.preference is None:
        return PackedTrainer
    return partial(PreferenceTrainer, beta=train.preference_beta)
