"""What may follow in an answer, decided for every question in a batch, and what follows then.

A tensor's name ends in its axes: A all questions of the batch, N those that are still in it, V the vocabulary.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ragtune.data.encode import Encoder


class Confined(Protocol):
    """Lets only some tokens follow, on the device; never waits for it."""

    def allow(self, logits_NV: Tensor, samples_N: Tensor) -> Tensor:
        """The logits with -inf for what may not follow."""

    def advance(self, token_N: Tensor, samples_N: Tensor) -> None:
        """Go on to where the tokens that were chosen lead."""


def chosen(
    logits_NV: Tensor, samples_N: Tensor, confined: Confined | None
) -> tuple[Tensor, Tensor]:
    """The most likely token_N that may follow, and the logarithm of its probability.

    It is the probability with which the model would write it if it might write anything: among what may be
    copied a word can be certain that the model would never say.
    """
    token_N = (confined.allow(logits_NV, samples_N) if confined else logits_NV).argmax(dim=-1)
    if confined:
        confined.advance(token_N, samples_N)
    log_p_N = logits_NV.gather(1, token_N[:, None])[:, 0] - logits_NV.logsumexp(dim=-1)
    return token_N, log_p_N


class Answering:
    """Lets no answer begin with the token with which the refusal does.

    Args:
        start: token ids of the refusal, up to the first that isn't a blank; see `refusal_start`.
        questions: of the batch.
        device: of the model.
    """

    def __init__(self, start: list[int], questions: int, device: torch.device) -> None:
        self._start = torch.tensor([*start, -1], device=device)
        self._last = len(start) - 1
        self._begun_A = torch.zeros(questions, dtype=torch.long, device=device)
        """How many tokens of the start an answer has; behind another token one more than there are."""

    def allow(self, logits_NV: Tensor, samples_N: Tensor) -> Tensor:
        """See `Confined`."""
        barred = self._start[self._last, None]
        other_NV = logits_NV.index_fill(1, barred, float("-inf"))
        return torch.where((self._begun_A[samples_N] == self._last)[:, None], other_NV, logits_NV)

    def advance(self, token_N: Tensor, samples_N: Tensor) -> None:
        """See `Confined`."""
        begun_N = self._begun_A[samples_N]
        goes_on_N = token_N == self._start[begun_N]
        self._begun_A[samples_N] = torch.where(goes_on_N, begun_N + 1, self._last + 1)


def refusal_start(encoder: Encoder) -> list[int] | None:
    """The ids of the refusal up to its first word, where a threshold refuses instead of the model; else None.

    That is with `evaluate.refuse_below`. Blanks before an answer are those of the chat template.
    """
    recipe = encoder.recipe
    if recipe.evaluate.refuse_below is None or recipe.data.refusal is None:
        return None
    ids = encoder.completion(recipe.data.refusal)
    words = (n for n in range(1, len(ids)) if encoder.tokenizer.decode(ids[:n]).strip())
    return ids[: next(words, 1)]
