"""From a question and what was found for it to an example: which passages are positive, and on which side.

Training and evaluation are parted by document: each side searches its own documents alone, so that no
passage of an evaluation example was trained.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ragtune.base.errors import UsageError
from ragtune.building.questions import Question
from ragtune.data.example import Example, Passage
from ragtune.data.words import stands

Side = Literal["train", "eval"]
SIDES: tuple[Side, ...] = ("train", "eval")


@dataclass(frozen=True, slots=True)
class Gold:
    """Where the answer stands, as the questions' file names it."""

    documents: frozenset[str] = frozenset()
    passages: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.documents or self.passages)


@dataclass(frozen=True, slots=True)
class Judged:
    """Which of some passages answer a question."""

    by_answer: tuple[int, ...]
    """An answer stands in the text, at word borders."""
    by_gold: tuple[int, ...]
    """Of the named passage, or of the named document and an answer stands in it."""
    named: bool
    """Whether a passage or document was named: then it decides."""

    @property
    def positive(self) -> tuple[int, ...]:
        return self.by_gold if self.named else self.by_answer


def judge(
    question: Question, gold: Gold, passages: Sequence[Passage], documents: Mapping[str, str]
) -> Judged:
    """Which passages are positive.

    Args:
        question: with its answers.
        gold: what its file names.
        passages: that were found, best first.
        documents: the document of each passage, by the passage's id.
    """
    by_answer = tuple(
        i for i, p in enumerate(passages) if any(stands(p.text, a) for a in question.answers)
    )
    names = [str(p.passage_id) for p in passages]
    by_gold = tuple(
        i
        for i, name in enumerate(names)
        if name in gold.passages
        or (documents.get(name) in gold.documents and (i in by_answer or not question.answers))
    )
    return Judged(by_answer, by_gold, bool(gold))


def example(question: Question, passages: Sequence[Passage], judged: Judged) -> Example:
    """The example in the schema that every stage speaks.

    What was retrieved and isn't positive is a hard negative.
    """
    positive = judged.positive
    extra = {
        **question.extra,
        "positives_by": "gold" if judged.named else "answer",
        "answer_passage_indices": list(judged.by_answer),
        "gold_passage_indices": list(judged.by_gold),
    }
    negative = tuple(
        i for i in range(len(passages)) if i not in positive and i not in judged.by_answer
    )
    return Example(
        question.qid,
        question.question,
        question.answers,
        tuple(passages),
        positive,
        negative,
        extra,
    )


def sides_of(
    documents: Iterable[str], asked: Collection[str], share: float, seed: int
) -> dict[str, Side]:
    """On which side each document is: drawn by its id, so that it stays there when others come.

    Args:
        documents: all ids.
        asked: those with questions; of them both sides get one at least.
        share: of the documents that are for evaluation.
        seed: of the draw.

    Raises:
        UsageError: all questions are of one document.
    """
    drawn = {one: _draw(one, seed) for one in documents}
    sides: dict[str, Side] = {one: "eval" if n < share else "train" for one, n in drawn.items()}
    with_questions = sorted(asked, key=drawn.__getitem__)
    if len(with_questions) == 1:
        raise UsageError(
            f"All questions are answered by one document, {with_questions[0]}: none is left to evaluate with.",
            "Training and evaluation are parted by document. Name other questions in questions.eval.",
        )
    if with_questions:
        sides[with_questions[0]] = "eval"
        sides[with_questions[-1]] = "train"
    return sides


def side_of_unanswered(qid: str, share: float, seed: int) -> Side:
    """The side of a question that no document answers."""
    return "eval" if _draw(f"question {qid}", seed) < share else "train"


def _draw(name: str, seed: int) -> float:
    """From 0 to 1, the same wherever it is asked."""
    digest = hashlib.sha256(f"{seed} {name}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8]) / 2**64
