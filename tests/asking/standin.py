"""A reader of the shape of ragtune's, whose answers a test sets: for the page and for servers."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

from ragtune.asking.answer import Answer, Which
from ragtune.base.errors import UsageError
from ragtune.data.example import Passage, Place
from ragtune.data.words import find_answer

PASSAGES = (
    Passage("The pump runs at 12 bar. Never open it under pressure.", "Pump", "p#1", Place("manual.pdf", 0, 9, 12)),
    Passage("富士山は、日本で一番高い山である。標高は3776 mである。", "富士山", "f#1", Place("山.md", 0, 9, None, "富士山")),
)  # fmt: skip


@dataclass
class StandIn:
    """Answers from `answers`, by the model that is asked."""

    name: str = "pumps"
    retrieves: bool = True
    compares: bool = True
    found: tuple[Passage, ...] = PASSAGES
    answers: dict[str, str] = field(
        default_factory=lambda: {"tuned": "12 bar", "base": "About 12."}
    )
    refusals: tuple[str, ...] = ()
    error: BaseException | None = None
    gate: threading.Event | None = None
    """If there is one, an answer is begun and then waits for it."""
    asked: list[str] = field(default_factory=list)
    most: int = 0
    """How many were ever answered at one time."""
    _now: int = 0

    def retrieve(self, questions: Sequence[str]) -> list[list[Passage]]:
        if not self.retrieves:
            raise UsageError("There is no index.")
        return [list(self.found) for _ in questions]

    def stream(
        self,
        question: str,
        passages: Sequence[Passage | str] | None = None,
        *,
        which: Which = "tuned",
    ) -> Generator[str, None, Answer]:
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            if self.error:
                raise self.error
            self.asked.append(question)
            given = self.found if passages is None else passages
            shown = tuple(p if isinstance(p, Passage) else Passage(p) for p in given)
            text = self.answers[which]
            for start in range(0, len(text), 4):
                yield text[start : start + 4]
                if self.gate:
                    self.gate.wait(120)
            return Answer(
                question,
                text,
                shown,
                tuple(_spans(p.text, text) for p in shown),
                True,
                0.5,
                text in self.refusals,
                which,
            )
        finally:
            self._now -= 1


def _spans(text: str, answer: str) -> tuple[tuple[int, int], ...]:
    start = find_answer(text, answer) if answer else -1
    return ((start, start + len(answer)),) if start >= 0 else ()
