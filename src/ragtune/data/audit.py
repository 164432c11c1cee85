"""What may make the figures of a run mean less than they seem to, looked for while data are read.

Nothing is changed or left out: each finding is counted, with examples, and says what to do.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ragtune.base.console import note, warn
from ragtune.data.encode import EncodedPrompt, Encoder
from ragtune.data.example import Example, Passage
from ragtune.data.overlap import SHARED, TrainingText, text_hash
from ragtune.data.select import nearly_positive, target_answer
from ragtune.data.words import find_answer, stands

EXAMPLES = 10
"""How many examples of a finding are kept."""

_SHOWN = 160
_AROUND = 60
"""Characters shown of a text, and on each side of a match."""

_SHORT = 2
"""An answer of at most so many characters may stand in a passage by accident."""


@dataclass(frozen=True, slots=True)
class Selected:
    """An example that is trained or asked, as it is encoded."""

    example: Example
    prompt: EncodedPrompt
    completion: list[int]


@dataclass(slots=True)
class Finding:
    """One thing that is looked for: how often it was found, and examples."""

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

    def report(self, of: int) -> dict[str, Any]:
        return {
            "name": self.name,
            "split": self.split,
            "title": self.title,
            "count": self.count,
            "of": of,
            "note": self.note,
            "examples": self.examples,
        }


def _findings() -> Iterator[Finding]:
    """All of them, in the order of the report."""
    yield Finding(
        "same_question", "both", "Evaluation questions that are trained, too",
        "The model has seen the answers: remove these questions from one of the two splits.",
        serious=True,
    )  # fmt: skip
    yield Finding(
        "same_passage", "both", "Evaluation questions with a passage that training shows, too",
        "To be expected where both splits are retrieved from one corpus; those that matter are the "
        "positives, which are counted next.",
    )  # fmt: skip
    yield Finding(
        "same_positive", "both", "Evaluation questions with a positive that training shows, too",
        "A tuned model may recall what it should read: compare the score with and without them, or "
        "split by document.",
        serious=True,
    )  # fmt: skip
    yield Finding(
        "shared_text", "both",
        f"Evaluation questions with a passage that shares {SHARED} characters or more with training",
        "These passages are not the same, but cut from one text or copied: if answers stand in what "
        "is shared, split by document.",
    )  # fmt: skip
    for split in ("train", "eval"):
        yield Finding(
            "duplicate_questions", split, "Questions that occur again",
            "They weigh more than the others; keep one record of each.",
        )  # fmt: skip
    for split in ("train", "eval"):
        yield Finding(
            "conflicting_answers", split, "Repeated questions with other answers than before",
            "No accepted answer is the same: correct them, or ask for what tells the answers apart.",
        )  # fmt: skip
    for split in ("train", "eval"):
        yield Finding(
            "accidental_positives", split,
            "Examples whose positives hold only answers of one or two characters",
            "So short a text may stand there by accident (in Japanese it may as well be a whole "
            "word): read the examples, and set positive_passage_indices where they are wrong.",
        )  # fmt: skip
    for split in ("train", "eval"):
        yield Finding(
            "inside_words", split, "Records with a passage that holds an answer only inside a word",
            "Such a passage (eyes, for the answer yes) is no positive, and without another positive the "
            "record is left out: where it is one, name it in positive_passage_indices.",
        )  # fmt: skip
        yield Finding(
            "other_forms", split, "Records with a passage that holds an answer only in another form",
            "In another width or case, or with other spaces and signs. It is no positive, for an answer is "
            "to be copied as it stands there: correct the answer, or name the passage in "
            "positive_passage_indices.",
        )  # fmt: skip
    for split in ("train", "eval"):
        yield Finding(
            "positives_inside_words", split,
            "Examples whose positives hold their answers only inside words",
            "The records name these passages, so they count; but that is no place where the answer "
            "stands: read the examples, and correct positive_passage_indices.",
        )  # fmt: skip
    for split, what in (("train", "trained"), ("eval", "first accepted")):
        yield Finding(
            "changed_answers", split, "Answers that the tokenizer does not give back",
            f"The {what} answer, encoded and decoded, is another text, so that exact match without "
            "normalisation can't be reached: correct the characters, or choose another tokenizer.",
            serious=True,
        )  # fmt: skip
    for split in ("train", "eval"):
        yield Finding(
            "truncated_prompts", split, "Prompts that lost passages or text",
            "What was cut the model does not see, and the answer may be in it: lower "
            "data.max_passages, or raise prompt.max_tokens.",
        )  # fmt: skip


class Audits:
    """Gathers the findings, batch by batch: first of training, then of the evaluation.

    Args:
        encoder: the one that made the prompts and completions.
        train: train.jsonl, whole by the time of the first evaluation batch.
    """

    def __init__(self, encoder: Encoder, train: Path) -> None:
        self._encoder = encoder
        self._training = TrainingText(train)
        self._findings = {(f.name, f.split): f for f in _findings()}
        self._qids: dict[str, list[str]] = {"train": [], "eval": []}
        self._first: dict[str, dict[int, int]] = {"train": {}, "eval": {}}
        self._answers: dict[str, dict[int, frozenset[int]]] = {"train": {}, "eval": {}}
        self._computed = {"train": 0, "eval": 0}
        """Records whose positives were found by the answer's text."""

    def add(self, split: str, selected: Sequence[Selected]) -> None:
        """Look at a batch of a split's selected examples, in the order of its file."""
        for one in selected:
            key = question_key(one.example.question)
            self._conflicting(split, key, one.example)
            if split == "train":
                shown = self._shown(one.example)
                self._training.add(len(self._qids["train"]), (p.text for p in shown))
            else:
                self._leaked(key, one.example)
            self._repeated(split, key, one.example)
            self._qids[split].append(one.example.qid)
            self._accidental(split, one.example)
            self._inside_words(split, one.example)
            self._truncated(split, one)
            self._changed(split, one)

    def read(self, split: str, example: Example) -> None:
        """Look at a record that was read, selected or not: what is nearly a positive."""
        if not example.positives_computed:
            return
        self._computed[split] += 1
        shown = self._shown(example)
        without = not any(i < len(shown) for i in example.positive_passage_indices)
        for name, (index, answer) in nearly_positive(example, len(shown)).items():
            text = shown[index].text
            self._findings[name, split].add(
                example.qid,
                _around(text, answer) if answer in text else text,
                detail=f"passage {index + 1}, answer {answer} to: {example.question}"
                + (" (no positive: left out)" if without else ""),
            )

    def report(self) -> list[dict[str, Any]]:
        """All findings in a fixed order, those that were not found with count 0."""
        return [finding.report(self._of(finding)) for finding in self._findings.values()]

    def tell(self) -> None:
        """Say on the screen what was found; what was cut off is told with the split's counts."""
        for finding in self._findings.values():
            if not finding.count or finding.name == "truncated_prompts":
                continue
            where = "" if finding.split == "both" else f" ({finding.split})"
            line = f"{finding.title}{where}: {finding.count:,} of {self._of(finding):,}"
            if finding.serious:
                warn(f"{line}. {finding.note}")
            else:
                note(f"{line}.")

    def _of(self, finding: Finding) -> int:
        """Of how many; what compares both splits counts evaluation questions."""
        if finding.name in ("inside_words", "other_forms"):
            return self._computed[finding.split]
        return len(self._qids["train" if finding.split == "train" else "eval"])

    def _shown(self, example: Example) -> tuple[Passage, ...]:
        return example.passages[: self._encoder.recipe.data.max_passages]

    def _conflicting(self, split: str, key: int, example: Example) -> None:
        answers = frozenset(question_key(answer) for answer in example.answers)
        # One whose answers were hidden says nothing of what they are.
        before = self._answers[split].setdefault(key, answers) if answers else answers
        if before and answers and not before & answers:
            self._findings["conflicting_answers", split].add(
                example.qid,
                example.question,
                other_qid=self._qids[split][self._first[split][key]],
                detail=f"here: {', '.join(example.answers)}",
            )

    def _repeated(self, split: str, key: int, example: Example) -> None:
        number = len(self._qids[split])
        first = self._first[split].setdefault(key, number)
        if first != number:
            self._findings["duplicate_questions", split].add(
                example.qid, example.question, other_qid=self._qids[split][first]
            )

    def _leaked(self, key: int, example: Example) -> None:
        """Compare an evaluation question with all of training."""
        trained = self._first["train"].get(key)
        if trained is not None:
            self._findings["same_question", "both"].add(
                example.qid, example.question, other_qid=self._qids["train"][trained]
            )
        shown = self._shown(example)
        rows = {i: row for i, p in enumerate(shown) if (row := self._equal(p)) is not None}
        if rows:
            self._same_passage(example, rows)
        for i, passage in enumerate(shown):
            if i not in rows and (found := self._training.shared(passage.text)):
                self._findings["shared_text", "both"].add(
                    example.qid,
                    found[1],
                    other_qid=self._qids["train"][found[0]],
                    detail=f"{len(found[1]):,} characters of passage {i + 1}",
                )
                break  # questions are counted, not passages

    def _equal(self, passage: Passage) -> int | None:
        return self._training.equal(passage.text) if passage.text.strip() else None

    def _same_passage(self, example: Example, rows: dict[int, int]) -> None:
        positive = [i for i in rows if i in example.positive_passage_indices]
        for name, found in (("same_passage", list(rows)), ("same_positive", positive)):
            if found:
                self._findings[name, "both"].add(
                    example.qid,
                    example.passages[found[0]].text,
                    other_qid=self._qids["train"][rows[found[0]]],
                    detail=f"passage {found[0] + 1}",
                )

    def _accidental(self, split: str, example: Example) -> None:
        if all(len(answer) > _SHORT for answer in example.answers):
            return
        texts = self._positives(example)
        found = [a for a in example.answers if any(a in text for text in texts)]
        if found and max(map(len, found)) <= _SHORT:
            text = next(text for text in texts if found[0] in text)
            self._findings["accidental_positives", split].add(
                example.qid,
                _around(text, found[0]),
                detail=f"answer {found[0]} to: {example.question}",
            )

    def _inside_words(self, split: str, example: Example) -> None:
        if example.positives_computed:
            return  # by whole words
        texts = self._positives(example)
        inside = [(t, a) for t in texts for a in example.answers if a in t]
        if inside and not any(stands(t, a) for t, a in inside):
            text, answer = inside[0]
            self._findings["positives_inside_words", split].add(
                example.qid,
                _around(text, answer),
                detail=f"answer {answer} to: {example.question}",
            )

    def _positives(self, example: Example) -> list[str]:
        """The texts of the positives that are shown."""
        shown = len(self._shown(example))
        return [example.passages[i].text for i in example.positive_passage_indices if i < shown]

    def _truncated(self, split: str, one: Selected) -> None:
        dropped, cut = one.prompt.passages_dropped, one.prompt.characters_cut
        if dropped or cut:
            self._findings["truncated_prompts", split].add(
                one.example.qid,
                one.example.question,
                detail=f"passages lost: {dropped:,}, characters lost: {cut:,}",
            )

    def _changed(self, split: str, one: Selected) -> None:
        encoder = self._encoder
        data, seed = encoder.recipe.data, encoder.recipe.seed
        if split == "train":
            answer, ids = target_answer(one.example, data, seed), one.completion
        elif not one.example.answers:
            return
        else:
            answer = one.example.answers[0]
            ids = one.completion if data.target == "first" else []
            ids = ids or encoder.completion(answer)
        # As predictions are: up to the stop token, without special tokens.
        ids = ids[: ids.index(encoder.stop_id)]
        back = encoder.turn.answer(encoder.tokenizer.decode(ids, skip_special_tokens=True))
        if back != answer:
            self._findings["changed_answers", split].add(
                one.example.qid, answer, detail=f"{answer!r} comes back as {back!r}"
            )


def question_key(text: str) -> int:
    """A hash that is the same for texts that differ in width, case, white space or the last signs."""
    plain = "".join(unicodedata.normalize("NFKC", text).casefold().split())
    end = len(plain)
    while end and unicodedata.category(plain[end - 1]).startswith("P"):
        end -= 1
    return text_hash(plain[:end] or plain)


def _around(text: str, match: str) -> str:
    """The first match with the text around it."""
    start = max(find_answer(text, match), text.find(match))
    first, last = max(0, start - _AROUND), start + len(match) + _AROUND
    return ("…" if first else "") + text[first:last] + ("…" if last < len(text) else "")


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _SHOWN else flat[: _SHOWN - 1] + "…"
