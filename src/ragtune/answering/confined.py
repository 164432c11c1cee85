"""What may follow in an answer, decided for every question in a batch, and what follows then.

A tensor's name ends in its axes: A all questions of the batch, N those that are still in it, S ways to
begin, V the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """Lets no answer begin as the refusal does; most of the time that is one look, at the first token.

    Args:
        starts: tokens with which the refusal begins, in several ways; see `refusal_starts`.
        questions: of the batch.
        device: of the model.
    """

    def __init__(
        self, starts: Sequence[Sequence[int]], questions: int, device: torch.device
    ) -> None:
        self._starts = starts
        self._step = 0
        self._on_SA = torch.ones(len(starts), questions, dtype=torch.bool, device=device)
        """Whether an answer has had the tokens of each start so far."""

    def allow(self, logits_NV: Tensor, samples_N: Tensor) -> Tensor:
        """See `Confined`: the last token of a start doesn't follow the others."""
        pairs = zip(self._starts, self._on_SA, strict=True)
        ending = [(start[-1], on_A) for start, on_A in pairs if len(start) == self._step + 1]
        if ending:
            logits_NV = logits_NV.clone()
        for token, on_A in ending:
            logits_NV[:, token].masked_fill_(on_A[samples_N], float("-inf"))
        return logits_NV

    def advance(self, token_N: Tensor, samples_N: Tensor) -> None:
        """See `Confined`."""
        for start, on_A in zip(self._starts, self._on_SA, strict=True):
            if len(start) > self._step + 1:
                on_A[samples_N] &= token_N == start[self._step]
        self._step += 1


def refusal_starts(encoder: Encoder) -> list[list[int]]:
    """How the refusal may begin, where a threshold refuses instead of the model; else nothing.

    That is with `evaluate.refuse_below`. A model that may not write "No answer" writes "no answer": so it is
    in capitals, and others, and with a blank before it, too. Each goes as far as the first whole letter that
    isn't a blank: some tokens are one byte of a letter, with which many others begin.
    """
    recipe = encoder.recipe
    if recipe.evaluate.refuse_below is None or recipe.data.refusal is None:
        return []
    words = recipe.data.refusal.strip()
    cases = {words, words.lower(), words.upper(), words.capitalize(), words.title()}
    texts = sorted(encoder.turn.lead + blank + one for one in cases for blank in ("", " "))
    starts = {_start(encoder, ids) for ids in encoder.behind_prompt(texts)}
    return sorted(map(list, starts))


def _start(encoder: Encoder, ids: Sequence[int]) -> tuple[int, ...]:
    for count in range(1, len(ids)):
        text = encoder.tokenizer.decode(ids[:count]).strip()
        if text and not text.endswith("\ufffd"):
            return (*ids[:count],)
    return (*ids,)
