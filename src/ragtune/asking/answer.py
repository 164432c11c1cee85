"""What a reader answered: the text, the passages that it was shown, and where in them the answer stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ragtune.data.example import Passage

Which = Literal["tuned", "base"]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to one question."""

    question: str
    text: str
    """Without what the chat template writes around it; "" if the model wrote nothing."""
    passages: tuple[Passage, ...]
    """As they stood in the prompt, best first; shortened where the prompt was too long."""
    stands_at: tuple[tuple[tuple[int, int], ...], ...]
    """For each passage where the answer stands in its text: (start, end) in characters."""
    finished: bool
    """Whether the model ended its answer, before it was cut off at evaluate.max_new_tokens."""
    seconds: float
    """From the question to the answer, retrieval included; of a batch each one's share."""
    refused: bool = False
    """Whether it is the refusal that was trained (`data.refusal`): the passages don't say it."""
    which: Which = "tuned"

    @property
    def is_found(self) -> bool:
        """Whether the answer stands in a passage."""
        return any(self.stands_at)
