"""Who answers: a model of this machine, or a server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from weakref import WeakKeyDictionary

from ragtune.answering.prediction import Prediction
from ragtune.base.errors import RagtuneError
from ragtune.base.screen.progress import in_parts
from ragtune.data.encode import EncodedPrompt, Encoder
from ragtune.data.example import Example

PACKED, PADDED, EQUAL, SINGLE = "packed", "padded", "equal_lengths", "single"

IN_WORDS = {
    PACKED: "packed, without padding",
    PADDED: "in padded batches",
    EQUAL: "in batches of prompts of one length",
    SINGLE: "one at a time",
}

_KEPT = 4_000
"""Prompts that are kept for the next time: some 100 MB."""
_ASKED: WeakKeyDictionary[Encoder, dict[int, tuple[Example, EncodedPrompt | None]]] = (
    WeakKeyDictionary()
)
"""What each encoder made of questions, by the identity of these."""


@dataclass(frozen=True, slots=True)
class Way:
    """How prompts are asked (a key of `IN_WORDS`), and why."""

    how: str
    reason: str


class Engine(Protocol):
    """Answers questions greedily, and goes on after a break.

    `way` is how they were asked, known after `answer`; None if there was nothing to ask, or a server was
    asked.
    """

    @property
    def way(self) -> Way | None: ...

    def answer(
        self, encoder: Encoder, examples: Sequence[Example], partial: Path, title: str
    ) -> list[Prediction]:
        """The answers, in the order of the examples.

        Args:
            encoder: makes the prompts.
            examples: the questions, with their passages.
            partial: keeps what is answered, so that it is not asked again; stays there.
            title: of the progress bar.

        Raises:
            RagtuneError: a question doesn't fit, or can't be answered.
        """


def fitting(
    encoder: Encoder, examples: Sequence[Example]
) -> Iterator[tuple[Example, EncodedPrompt]]:
    """The examples with their encoded prompts.

    Raises:
        RagtuneError: a question of the prepared data no longer fits (another tokenizer).
    """
    for example, prompt in zip(examples, _prompts(encoder, examples), strict=True):
        if prompt is None:
            raise RagtuneError(
                f"The question {example.qid} no longer fits into the model's context.",
                "Run `ragtune prepare` again: the prepared data belong to another model.",
            )
        yield example, prompt


def _prompts(encoder: Encoder, examples: Sequence[Example]) -> list[EncodedPrompt | None]:
    """Their prompts: a run plans by them, asks them several times, and shows them, and encodes them once."""
    known = _ASKED.get(encoder, {})
    new = [one for one in examples if id(one) not in known]
    made = in_parts("tokenising", encoder.prompts, new, "prompts") if new else []
    now = {id(one): (one, prompt) for one, prompt in zip(new, made, strict=True)}
    found = known | now
    _ASKED[encoder] = found if len(found) <= _KEPT else now if len(now) <= _KEPT else {}
    return [found[id(one)][1] for one in examples]


def encode_prompts(encoder: Encoder, examples: Sequence[Example]) -> list[tuple[str, list[int]]]:
    """The examples' (qid, prompt ids). Raises as `fitting` does."""
    return [(example.qid, prompt.ids) for example, prompt in fitting(encoder, examples)]
