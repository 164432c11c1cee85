"""Answers that are copied: of every question in a batch the places where its answer may stand by now.

A tensor's name ends in its axes: A all questions of the batch, N those that are still in it, E the edges of
`Paths`, P its nodes and one more, V the vocabulary. Edges that are filled up begin and end at that node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, PreTrainedModel

from ragtune.answering.prediction import Prediction
from ragtune.answering.shared import Batch
from ragtune.data.encode import Encoder
from ragtune.data.spans import Paths, Shown, Spans
from ragtune.data.tokenizer import special_ids


class Copying:
    """Lets only what goes on to a whole span follow (`Confined`).

    Args:
        every: the answers that may be given to each question.
        stops: the tokens that end an answer.
    """

    def __init__(self, every: Sequence[Paths], stops: Tensor) -> None:
        self._stops = stops
        nowhere = max(paths.nodes for paths in every)

        def filled(columns: Sequence[list[int]], value: int) -> Tensor:
            rows = [torch.tensor(column, dtype=torch.long) for column in columns]
            return pad_sequence(rows, batch_first=True, padding_value=value).to(stops.device)

        def marked(columns: Sequence[list[int]]) -> Tensor:
            marks = torch.zeros(len(columns), nowhere + 1, dtype=torch.bool)
            for row, column in zip(marks, columns, strict=True):
                row[column] = True
            return marks.to(stops.device)

        self._starts_AE = filled([paths.starts for paths in every], nowhere)
        self._tokens_AE = filled([paths.tokens for paths in every], 0)
        self._ends_AE = filled([paths.ends for paths in every], nowhere)
        self._alive_AP = marked([paths.first for paths in every])
        self._last_AP = marked([paths.last for paths in every])

    def allow(self, logits_NV: Tensor, samples_N: Tensor) -> Tensor:
        """See `Confined`."""
        alive_NP = self._alive_AP[samples_N]
        count = logits_NV.shape[1]
        tokens_NE = torch.where(self._open(samples_N), self._tokens_AE[samples_N], count)
        allowed_NV = torch.zeros(
            len(logits_NV), count + 1, dtype=torch.bool, device=logits_NV.device
        )
        allowed_NV.scatter_(1, tokens_NE, True)  # the last column takes the edges that are closed
        allowed_NV[:, self._stops] = (alive_NP & self._last_AP[samples_N]).any(1, keepdim=True)
        # What the model's settings forbid (to stop before `min_new_tokens`) may be all that is left.
        least = torch.finfo(logits_NV.dtype).min
        return logits_NV.clamp(min=least).masked_fill(~allowed_NV[:, :count], float("-inf"))

    def advance(self, token_N: Tensor, samples_N: Tensor) -> None:
        """See `Confined`."""
        taken_NE = self._open(samples_N) & (self._tokens_AE[samples_N] == token_N[:, None])
        alive_NP = torch.zeros_like(self._alive_AP[samples_N])
        nowhere = alive_NP.shape[1] - 1
        alive_NP.scatter_(1, torch.where(taken_NE, self._ends_AE[samples_N], nowhere), True)
        alive_NP[:, nowhere] = False
        self._alive_AP[samples_N] = alive_NP

    def _open(self, samples_N: Tensor) -> Tensor:
        """Which edges begin where an answer may be by now."""
        return self._alive_AP[samples_N].gather(1, self._starts_AE[samples_N])


@dataclass
class Copies:
    """What the answers to some questions are copied from."""

    spans: Spans
    shown: Mapping[str, Shown] = field(default_factory=dict)
    """By qid the passages of the prompt."""

    @staticmethod
    def of(encoder: Encoder) -> Copies:
        """What an encoder's prompts let be copied. Raises as `Spans` does."""
        control = special_ids(encoder.tokenizer) | encoder.control.texts.keys()
        recipe = encoder.recipe
        # Below a threshold it takes an answer's place: the model itself only answers.
        refusal = recipe.data.refusal if recipe.evaluate.refuse_below is None else None
        return Copies(Spans(encoder.tokenizer, encoder.turn, control, refusal))

    def copying(self, model: PreTrainedModel, batch: Batch, settings: GenerationConfig) -> Copying:
        """What lets a batch's answers only be copied."""
        stops = torch.tensor(
            settings.eos_token_id, device=model.get_input_embeddings().weight.device
        )
        every = [self.spans.paths([text for _, text in self.shown[qid]]) for qid, _ in batch]
        return Copying(every, stops)

    def read(self, one: Prediction) -> Prediction:
        """An answer with its text as it stands in its source."""
        shown = self.shown[one.qid]
        text, source = self.spans.read(one.token_ids, shown, stopped=one.stopped)
        return replace(one, prediction=text, source=source)
