"""Answers that are longer than what the model may write: they can't be given whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ragtune.data.encode import Encoder
from ragtune.data.example import Example
from ragtune.data.select import accepted

_QIDS = 10


@dataclass(slots=True)
class TooLong:
    """How many of some answers have more than `limit` tokens, the stop token not counted."""

    limit: int
    of: int = 0
    count: int = 0
    longest: int = 0
    """Tokens: with so many, each of them could be given."""
    qids: list[str] = field(default_factory=list)

    def add(self, qid: str, tokens: int) -> None:
        self.of += 1
        if tokens > self.limit:
            self.count += 1
            self.longest = max(self.longest, tokens)
            self.qids += [qid] if len(self.qids) < _QIDS else []

    def report(self) -> dict[str, Any]:
        return {
            "max_new_tokens": self.limit,
            "of": self.of,
            "count": self.count,
            "longest": self.longest,
            "qids": self.qids,
        }

    def words(self, split: str) -> str:
        """What was counted; of training what is trained, of the evaluation what would be right."""
        what = "trained answers" if split == "train" else "questions' accepted answers"
        return (
            f"{self.count:,} of {self.of:,} {what} have more than {self.limit:,} tokens "
            f"(the longest has {self.longest:,}): they can't be given whole"
        )


ADVICE = "Raise evaluate.max_new_tokens."


def shortest_accepted(encoder: Encoder, examples: Sequence[Example]) -> list[int]:
    """The tokens of each example's shortest accepted answer; 0 where there is none."""
    answers = [accepted(e, encoder.recipe) for e in examples]
    lengths = iter(encoder.answer_lengths([a for one in answers for a in one]))
    return [min((next(lengths) for _ in one), default=0) for one in answers]


def refusal_too_long(encoder: Encoder) -> str | None:
    """In words, if the refusal itself is longer than what the model may write."""
    refusal, limit = encoder.recipe.data.refusal, encoder.recipe.evaluate.max_new_tokens
    if refusal is None or (tokens := encoder.answer_lengths([refusal])[0]) <= limit:
        return None
    return f"data.refusal has {tokens:,} tokens, more than {limit:,}: it can't be given whole"
