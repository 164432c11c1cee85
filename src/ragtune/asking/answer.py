"""What a reader is asked, and what it answered: the text, the passages it was shown, where it is in them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ragtune.base.errors import UsageError
from ragtune.base.text import shortened
from ragtune.data.example import Passage, is_text
from ragtune.data.spans import Source

Which = Literal["tuned", "base"]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to one question."""

    question: str
    text: str
    """Without what the chat template writes around it, without quote and citations; "" if nothing is there."""
    passages: tuple[Passage, ...]
    """As they stood in the prompt, best first (with prompt.citations in the order of their numbers);
    shortened where the prompt was too long."""
    stands_at: tuple[tuple[tuple[int, int], ...], ...]
    """For each passage where the answer stands in its text: (start, end) in characters."""
    finished: bool
    """Whether the model ended its answer, before it was cut off at evaluate.max_new_tokens."""
    seconds: float
    """From the question to the answer, retrieval included; of a batch each one's share."""
    refused: bool = False
    """Whether it is the refusal that was trained (`data.refusal`): the passages don't say it."""
    which: Which = "tuned"
    citations: tuple[int, ...] = ()
    """Places in `passages`, from 1, that the answer names behind it (prompt.citations)."""
    malformed: tuple[int, ...] = ()
    """Numbers that it names and no passage has."""
    quote: str = ""
    """What it quotes before it (prompt.quote)."""
    quote_found: bool = False
    """Whether that stands in a passage, but for white space."""
    probability: float | None = None
    """Of these words, by the model, if it might write anything; None of a server's answer, and where
    the model was `unsure`."""
    source: Source | None = None
    """With evaluate.copy where it was copied from: of `passages`, the first one where it stands."""
    unsure: bool = False
    """Whether evaluate.refuse_below refused: the model gave no answer that is probable enough."""

    @property
    def is_found(self) -> bool:
        """Whether the answer stands in a passage."""
        return any(self.stands_at)


def require_questions(questions: Iterable[str]) -> list[str]:
    """The questions, every one of which is a text. Raises UsageError: one is empty, or not in UTF-8."""
    if isinstance(questions, str):
        raise UsageError("The questions are one string.", "Give a list: reader.ask([question]).")
    found = list(questions)
    for question in found:
        if not isinstance(question, str):
            raise UsageError(f"A question is no text: {shortened(repr(question))}", "Give strings.")
        if not question.strip():
            raise UsageError("A question is empty.", "Ask something.")
        if not is_text(question):
            raise UsageError(
                f"A question is not in UTF-8: {shortened(question)}",
                "Write it, or save it, in UTF-8.",
            )
    return found
