"""Preference tuning: of two answers to a prompt one is to become likelier than the other (DPO).

Rafailov et al. 2023 (https://arxiv.org/abs/2305.18290): the loss of a pair is -log σ(β·(m - m₀)), where m is by
how much the chosen answer's log probability is above the rejected one's, and m₀ what it was before training.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers.trainer_utils import TrainOutput

from ragtune.base.errors import UsageError, is_out_of_memory
from ragtune.base.screen.progress import busy
from ragtune.base.stopping import asked, finishing, stop_if_asked
from ragtune.data.encode import Sample
from ragtune.model.fast.lora import drop_waiting
from ragtune.model.hardware import autocast, free_gpu
from ragtune.model.spread import is_spread
from ragtune.model.wrapping import Tuned
from ragtune.recipe.schema import Train
from ragtune.training.pairs import Pair, PairCollator, margins
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
        """Trainer's, when the references are known.

        Raises:
            Stopped: a signal came while the pairs were read.
        """
        self.model.eval()
        known: dict[str, float] = {}
        with (
            finishing("this row of pairs is read first"),
            busy("reading the pairs before training", len(self.rows), unit="rows") as update,
        ):
            for index, row in enumerate(self.rows):
                update(index)
                self._look_for_a_stop()
                self.rows[index] = referenced(self.model, row, known)
        return super().train(*arguments, **options)

    def _look_for_a_stop(self) -> None:
        """Stop before a row, on every rank, if it is asked for on one: all have as many rows."""
        if self.world:
            self._stop_with_others(*self.world.any(asked()))
        if self.stops:
            stop_if_asked("The pairs were being read, which begins again; no step is lost.")

    def total_loss(self, logits_KV: Tensor, inputs: dict[str, Any]) -> Tensor:
        """DPO's over the pairs of a row; cross entropy over one without pairs."""
        if "reference" not in inputs:
            assert not (self.model.training and len(inputs["targets"])), "a row lost its pairs"
            return super().total_loss(logits_KV, inputs)
        return functional.softplus(
            -self.beta * (margins(logits_KV, inputs) - inputs["reference"])
        ).sum()


def referenced(model: Tuned, row: list[Sample], known: dict[str, float]) -> list[Sample]:
    """A row with each pair's margin by the model as it is.

    Args:
        model: in its mode for answers.
        row: samples; what is no pair stays as it is.
        known: the margins that were found before, of other epochs' rows: those of this row are added.
    """
    unknown = {_content(one): one for one in row if isinstance(one, Pair)}
    found = [one for content, one in unknown.items() if content not in known]
    known.update(zip(map(_content, found), _margins(model, found), strict=True))
    return [
        dataclasses.replace(one, reference=known[_content(one)]) if isinstance(one, Pair) else one
        for one in row
    ]


def _content(pair: Pair) -> str:
    """What a pair's margin is made of: the same in every epoch that shows the passages as they were."""
    read = [pair.prompt_ids, pair.completion_ids, pair.rejected_ids]
    return hashlib.sha256(json.dumps(read).encode()).hexdigest()


def _margins(model: Tuned, pairs: list[Pair]) -> list[float]:
    """Of pairs that are read as one row; in halves where memory runs out."""
    if not pairs:
        return []
    device = model.get_input_embeddings().weight.device
    row = PairCollator(packed=True)([{"index": 0, "samples": pairs}])
    batch = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in row.items()}
    try:
        with torch.no_grad(), autocast(model):
            return margins(read_row(model, batch)[1], batch).tolist()  # type: ignore[no-any-return]
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not is_out_of_memory(error) or len(pairs) == 1:
            raise
    drop_waiting(model)  # only here the exception is gone, and with it what its frames held
    free_gpu()
    half = len(pairs) // 2
    return _margins(model, pairs[:half]) + _margins(model, pairs[half:])


def trainer_of(train: Train) -> Callable[..., PackedTrainer]:
    """Who trains, as the recipe has it."""
    if train.preference is None:
        return PackedTrainer
    return partial(PreferenceTrainer, beta=train.preference_beta)
