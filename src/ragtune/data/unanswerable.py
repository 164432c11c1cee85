"""Training examples whose passages hold no answer: to be refused, or to be answered all the same."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

from ragtune.data.example import Example, Passage
from ragtune.data.words import stands, stands_by_rule
from ragtune.recipe.data import Data


def draw(kind: str, seed: int, qid: str) -> float:
    """A number in [0, 1) that depends on nothing but its arguments, so on no order of a file."""
    return random.Random(f"{kind}:{seed}:{qid}").random()


def holds(passage: Passage, answers: Sequence[str]) -> bool:
    """Whether one of the answers stands in a passage or its title, as written or by AI王's rule.

    What is to hold no answer must not hold it in another width or case, either.
    """
    return any(
        stands(text, a) or stands_by_rule(text, a)
        for a in answers
        for text in (passage.text, passage.title)
    )


def without_oracle(example: Example, data: Data) -> Example | None:
    """The example with every passage removed that is a positive or holds an answer or an alternative.

    Its answers stay: RAFT trains a share of its examples so (Zhang et al. 2024,
    https://arxiv.org/abs/2403.10131).

    Returns:
        An example of the best passages that are left, as many as are kept; None if none is left.
    """
    answers = (*example.answers, *example.alternatives(data.alternatives))
    positive = set(example.positive_passage_indices)
    left = [
        passage
        for index, passage in enumerate(example.passages)
        if index not in positive and not holds(passage, answers)
    ]
    if not left:
        return None
    shown = tuple(left[: data.kept_passages])
    return dataclasses.replace(
        example,
        passages=shown,
        positive_passage_indices=(),
        negative_passage_indices=tuple(range(len(shown))),
    )


def refusing(example: Example) -> Example:
    """The example as one that is to be refused, with all its passages: its prompt shows no answer."""
    return dataclasses.replace(
        example,
        answers=(),
        positive_passage_indices=(),
        negative_passage_indices=tuple(range(len(example.passages))),
        extra=example.extra | {"removed_answers": list(example.answers)},
    )


def wanted(answerable: int, share: float) -> int:
    """How many unanswerable examples beside so many answerable ones make up a share of all."""
    return round(answerable * share / (1 - share))
