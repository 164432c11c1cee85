"""Pairs of answers to one prompt, of which one is chosen and the other rejected, and the tensors of their rows.

Axes in names: K trained tokens of a row, P pairs of a row, A their answers: chosen, rejected, chosen, ….
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ragtune.data.encode import Sample
from ragtune.training.rows import RowCollator


@dataclasses.dataclass(frozen=True, slots=True)
class Pair(Sample):
    """A sample whose completion is the chosen answer, with the rejected one: both stand in one row."""

    rejected_ids: list[int] = dataclasses.field(default_factory=list)
    reference: float = 0.0
    """By how much the chosen answer's log probability is above the other's before training."""

    def __len__(self) -> int:
        return 2 * len(self.prompt_ids) + self.trained

    @property
    def trained(self) -> int:
        """The tokens of both answers."""
        return len(self.completion_ids) + len(self.rejected_ids)

    def answers(self) -> tuple[Sample, Sample]:
        """Both as samples of their own; dropout draws the same for them."""
        chosen, rejected = (
            Sample(self.qid, self.prompt_ids, ids, self.number)
            for ids in (self.completion_ids, self.rejected_ids)
        )
        return chosen, rejected


def trained_tokens(sample: Sample) -> int:
    """The tokens of a sample, or of a pair, whose logits are needed."""
    return sample.trained if isinstance(sample, Pair) else len(sample.completion_ids)


def divisor(step: Sequence[Sample]) -> int:
    """What the loss of a step is the mean over: its trained tokens, or its pairs."""
    pairs = sum(isinstance(sample, Pair) for sample in step)
    return pairs or sum(len(sample.completion_ids) for sample in step)


class PairCollator(RowCollator):
    """Makes the tensors of a row of pairs; one without pairs stays as it is.

    Returns, beside those of `RowCollator`:
        answer: [K], the place in A of each trained token's answer; reference: [P].
    """

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        (row,) = features
        pairs = [sample for sample in row["samples"] if isinstance(sample, Pair)]
        if not pairs:
            return super().__call__(features)
        every = [answer for pair in pairs for answer in pair.answers()]
        batch = super().__call__([{**row, "samples": every}])
        counts = torch.tensor([len(answer.completion_ids) for answer in every])
        batch["answer"] = torch.arange(len(every)).repeat_interleave(counts)
        batch["reference"] = torch.tensor([pair.reference for pair in pairs])
        return batch


def margins(logits_KV: Tensor, row: dict[str, Any]) -> Tensor:
    """[P]: by how much each pair's chosen answer's log probability is above the rejected one's."""
    losses_K = functional.cross_entropy(logits_KV.float(), row["targets"], reduction="none")
    sums_A = losses_K.new_zeros(2 * len(row["reference"])).index_add(0, row["answer"], -losses_K)
    return sums_A[0::2] - sums_A[1::2]
