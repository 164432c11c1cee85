"""Which examples are used, and why the others are not."""

from __future__ import annotations

import random

from ragtune.data.example import Example, Passage
from ragtune.recipe import Data

REASONS = {
    "no_answer": "no accepted answer",
    "no_positive": "no passage contains an answer",
    "positive_too_low": "no positive among the first max_passages",
    "question_too_long": "the question alone leaves no room for a passage",
    "answer_too_long": "prompt and answer together are longer than the model's context",
}


def rejection(example: Example, max_passages: int) -> str | None:
    """Why an example is not selected (a key of REASONS), or None.

    The rule is the notebook's: a positive among the first `max_passages`.
    """
    if not example.answers:
        return "no_answer"
    if not example.positive_passage_indices:
        return "no_positive"
    if min(example.positive_passage_indices) >= max_passages:
        return "positive_too_low"
    return None


def shown_passages(
    example: Example, max_passages: int, *, shuffle: bool, seed: int
) -> tuple[Passage, ...]:
    """The passages that the model sees: the first ones, as retrieved or shuffled.

    The shuffle depends on seed and qid alone, so it is the same in training and evaluation and for
    any order of the file.
    """
    shown = list(example.passages[:max_passages])
    if shuffle:
        random.Random(f"passages:{seed}:{example.qid}").shuffle(shown)
    return tuple(shown)


def target_answer(example: Example, data: Data, seed: int) -> str:
    """The answer that is trained: the first, or one drawn by seed and qid; the refusal where there is none."""
    if not example.answers:
        return data.refusal or ""
    if data.target == "random":
        return random.Random(f"target:{seed}:{example.qid}").choice(example.answers)
    return example.answers[0]
