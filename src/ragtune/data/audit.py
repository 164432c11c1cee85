"""What may make the figures of a run mean less than they seem to, looked for while data are read.

Nothing is changed or left out: each finding is counted, with examples, and says what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypedDict

from ragtune.base.text import shortened
from ragtune.data.counts import SplitName
from ragtune.data.overlap import SHARED

EXAMPLES = 10
"""How many examples of a finding are kept."""

_SHOWN = 160
"""Characters of a text that are shown."""

SPLITS: tuple[SplitName, SplitName] = ("train", "eval")


class AuditReport(TypedDict):
    """What the data report says of one audit."""

    name: str
    split: str
    title: str
    count: int
    of: int
    note: str
    examples: list[dict[str, str]]


@dataclass(slots=True)
class Audit:
    """One thing that is looked for in a split, or in `both`: how often it was found, and examples."""

    name: str
    split: str
    title: str
    note: str
    serious: bool = False
    count: int = 0
    examples: list[dict[str, str]] = field(default_factory=list)

    def add(self, qid: str, text: str, **more: str) -> None:
        """Count one; `more` is other_qid and detail."""
        self.count += 1
        if len(self.examples) < EXAMPLES:
            shown = {k: v if k == "other_qid" else _short(v) for k, v in more.items()}
            self.examples.append({"qid": qid, "text": _short(text), **shown})


def all_audits() -> list[Audit]:
    """All of them, in the order of the report."""
    return [*_of_both(), *_of_each_split()]


def _of_both() -> Iterator[Audit]:
    """What compares the evaluation with training."""
    yield Audit(
        "same_question", "both", "Evaluation questions that are trained, too",
        "The model has seen the answers: remove these questions from one of the two splits.",
        serious=True,
    )  # fmt: skip
    yield Audit(
        "same_passage", "both", "Evaluation questions with a passage that training shows, too",
        "To be expected where both splits are retrieved from one corpus; those that matter are the "
        "positives, which are counted next.",
    )  # fmt: skip
    yield Audit(
        "same_positive", "both", "Evaluation questions with a positive that training shows, too",
        "A tuned model may recall what it should read: compare the score with and without them, or "
        "split by document.",
        serious=True,
    )  # fmt: skip
    yield Audit(
        "shared_text", "both",
        f"Evaluation questions with a passage that shares {SHARED} characters or more with training",
        "These passages are not the same, but cut from one text or copied: if answers stand in what "
        "is shared, split by document.",
    )  # fmt: skip


def _of_each_split() -> Iterator[Audit]:
    """What is looked for in both splits, each for itself."""
    yield from _of_each(
        "duplicate_questions", "Questions that occur again",
        "They weigh more than the others; keep one record of each.",
    )  # fmt: skip
    yield from _of_each(
        "conflicting_answers", "Repeated questions with other answers than before",
        "No accepted answer is the same: correct them, or ask for what tells the answers apart.",
    )  # fmt: skip
    yield from _of_each(
        "accidental_positives",
        "Examples whose positives hold only answers of one or two characters",
        "So short a text may stand there by accident (in Japanese it may as well be a whole "
        "word): read the examples, and set positive_passage_indices where they are wrong.",
    )  # fmt: skip
    for split in SPLITS:
        yield Audit(
            "inside_words", split, "Records with a passage that holds an answer only inside a word",
            "Such a passage (eyes, for the answer yes) is no positive, and without another positive the "
            "record is left out: where it is one, name it in positive_passage_indices.",
        )  # fmt: skip
        yield Audit(
            "other_forms", split, "Records with a passage that holds an answer only in another form",
            "In another width or case, or with other spaces and signs. It is no positive, for an answer is "
            "to be copied as it stands there: correct the answer, or name the passage in "
            "positive_passage_indices.",
        )  # fmt: skip
    yield from _of_each(
        "positives_inside_words", "Examples whose positives hold their answers only inside words",
        "The records name these passages, so they count; but that is no place where the answer "
        "stands: read the examples, and correct positive_passage_indices.",
    )  # fmt: skip
    for split, what in zip(SPLITS, ("trained", "first accepted"), strict=True):
        yield Audit(
            "changed_answers", split, "Answers that the tokenizer does not give back",
            f"The {what} answer, encoded and decoded, is another text, so that exact match without "
            "normalisation can't be reached: correct the characters, or choose another tokenizer.",
            serious=True,
        )  # fmt: skip
    yield from _of_each(
        "control_tokens", "Records that write out tokens of the chat template",
        "They are encoded as text, in training and in answering: the model reads no turn and no end "
        "there. A server, which encodes by itself, gets them broken by a blank (< |im_end|>).",
    )  # fmt: skip
    yield from _of_each(
        "truncated_prompts", "Prompts that lost passages or text",
        "What was cut the model does not see, and the answer may be in it: lower "
        "data.max_passages, or raise prompt.max_tokens.",
    )  # fmt: skip


def _of_each(name: str, title: str, note: str) -> Iterator[Audit]:
    for split in SPLITS:
        yield Audit(name, split, title, note)


def in_order(reports: Iterable[AuditReport]) -> list[AuditReport]:
    """Reports of audits in the order that all of them have."""
    order = [(audit.name, audit.split) for audit in all_audits()]
    return sorted(reports, key=lambda report: order.index((report["name"], report["split"])))


def _short(text: str) -> str:
    return shortened(" ".join(text.split()), _SHOWN)
