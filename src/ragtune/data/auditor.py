"""Looking for what is audited, while data are read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ragtune.base.screen.console import note, warn
from ragtune.data.audit import Audit, AuditReport, all_audits
from ragtune.data.citations import said
from ragtune.data.counts import SplitName
from ragtune.data.encode import EncodedExample, Encoder
from ragtune.data.example import Example, Passage
from ragtune.data.overlap import TrainingText, question_key
from ragtune.data.select import nearly_positive, target_answer
from ragtune.data.words import find_answer, stands

_AROUND = 60
"""Characters shown on each side of a match."""

_SHORT = 2
"""An answer of at most so many characters may stand in a passage by accident."""


class Auditor:
    """Looks at the data, batch by batch: first at training, then at the evaluation.

    Args:
        encoder: the one that made the prompts and completions.
        train: train.jsonl, whole by the time of the first evaluation batch.
    """

    def __init__(self, encoder: Encoder, train: Path) -> None:
        self._encoder = encoder
        self._audits = {(audit.name, audit.split): audit for audit in all_audits()}
        self._training = TrainingText(train)
        self._qids: dict[SplitName, list[str]] = {"train": [], "eval": []}
        self._first: dict[SplitName, dict[int, int]] = {"train": {}, "eval": {}}
        """By a question's hash the first row with it, of a split's rows in the order of its file."""
        self._answers: dict[SplitName, dict[int, frozenset[int]]] = {"train": {}, "eval": {}}
        self._computed: dict[SplitName, int] = {"train": 0, "eval": 0}
        """Records whose positives were found by the answer's text."""

    def add(self, split: SplitName, selected: Iterable[EncodedExample]) -> None:
        """Look at a batch of a split's selected examples, in the order of its file."""
        for one in selected:
            example = one.example
            key = question_key(example.question)
            self._conflicting(split, key, example)
            if split == "eval":
                self._leaked(key, example)
            if key in self._first[split]:
                self._compared("duplicate_questions", split, split, key, example)
            self._know(split, key, example)
            self._positives(split, example)
            self._control(split, example)
            self._truncated(split, one)
            self._changed(split, one)

    def training_lies_in(self, train: Path) -> None:
        """Read train.jsonl there: its folder was renamed when it was whole."""
        self._training.path = train

    def know_training(self, examples: Iterable[Example]) -> None:
        """Take up the examples of a train.jsonl that was made and looked at before."""
        for example in examples:
            self._know("train", question_key(example.question), example)

    def _know(self, split: SplitName, key: int, example: Example) -> None:
        number = len(self._qids[split])
        self._first[split].setdefault(key, number)
        self._qids[split].append(example.qid)
        if split == "train":
            kept = example.passages[: self._encoder.recipe.data.kept_passages]
            self._training.add(number, (p.text for p in kept))

    def read(self, split: SplitName, example: Example) -> None:
        """Look at a record that was read, selected or not: what is nearly a positive."""
        if not example.positives_computed:
            return
        self._computed[split] += 1
        shown = self._shown(example)
        without = not any(i < len(shown) for i in example.positive_passage_indices)
        for name, (index, answer) in nearly_positive(example, len(shown)).items():
            text = shown[index].text
            self._audits[name, split].add(
                example.qid,
                _around(text, answer) if answer in text else text,
                detail=f"passage {index + 1}, answer {answer} to: {example.question}"
                + (" (no positive: left out)" if without else ""),
            )

    def report(self, *splits: str) -> list[AuditReport]:
        """The audits of splits (train, eval, both) in a fixed order, those of nothing with count 0."""
        return [
            {
                "name": audit.name,
                "split": audit.split,
                "title": audit.title,
                "count": audit.count,
                "of": self._of(audit),
                "note": audit.note,
                "examples": audit.examples,
            }
            for audit in self._audits.values()
            if audit.split in splits
        ]

    def tell(self) -> None:
        """Say on the screen what was found; what was cut off is told with the split's counts."""
        for audit in self._audits.values():
            if not audit.count or audit.name == "truncated_prompts":
                continue
            where = "" if audit.split == "both" else f" ({audit.split})"
            line = f"{audit.title}{where}: {audit.count:,} of {self._of(audit):,}"
            if audit.serious:
                warn(f"{line}. {audit.note}")
            else:
                note(f"{line}.")

    def _of(self, audit: Audit) -> int:
        """Of how many; what compares both splits counts evaluation questions."""
        split: SplitName = "train" if audit.split == "train" else "eval"
        if audit.name in ("inside_words", "other_forms"):
            return self._computed[split]
        return len(self._qids[split])

    def _shown(self, example: Example) -> tuple[Passage, ...]:
        return example.passages[: self._encoder.recipe.data.max_passages]

    def _conflicting(self, split: SplitName, key: int, example: Example) -> None:
        answers = frozenset(question_key(answer) for answer in example.answers)
        # One whose answers were hidden says nothing of what they are.
        before = self._answers[split].setdefault(key, answers) if answers else answers
        if before and answers and not before & answers:
            here = f"here: {', '.join(example.answers)}"
            self._compared("conflicting_answers", split, split, key, example, detail=here)

    def _compared(
        self, name: str, split: str, against: SplitName, key: int, example: Example, **detail: str
    ) -> None:
        """Count a question that a row of a split has before it."""
        other = self._qids[against][self._first[against][key]]
        self._audits[name, split].add(example.qid, example.question, other_qid=other, **detail)

    def _leaked(self, key: int, example: Example) -> None:
        """Compare an evaluation question with all of training."""
        if key in self._first["train"]:
            self._compared("same_question", "both", "train", key, example)
        shown = self._shown(example)
        equal = {i: self._training.equal(p.text) for i, p in enumerate(shown) if p.text.strip()}
        rows = {i: row for i, row in equal.items() if row is not None}
        positive = [i for i in rows if i in example.positive_passage_indices]
        for name, found in (("same_passage", list(rows)), ("same_positive", positive)):
            for i in found[:1]:
                self._audits[name, "both"].add(
                    example.qid,
                    shown[i].text,
                    other_qid=self._qids["train"][rows[i]],
                    detail=f"passage {i + 1}",
                )
        for i, passage in enumerate(shown):
            if i not in rows and (common := self._training.shared(passage.text)):
                row, text = common
                self._audits["shared_text", "both"].add(
                    example.qid,
                    text,
                    other_qid=self._qids["train"][row],
                    detail=f"{len(text):,} characters of passage {i + 1}",
                )
                break  # questions are counted, not passages

    def _positives(self, split: SplitName, example: Example) -> None:
        """Look at the shown positives: whether their answers stand there by accident."""
        count = len(self._shown(example))
        texts = [example.passages[i].text for i in example.positive_passage_indices if i < count]
        found = [(text, a) for text in texts for a in example.answers if a in text]
        if not found:
            return
        if max(len(answer) for _, answer in found) <= _SHORT:
            first = min(found, key=lambda pair: example.answers.index(pair[1]))
            self._holding("accidental_positives", split, example, *first)
        # Those that were computed are whole words.
        if not example.positives_computed and not any(stands(text, a) for text, a in found):
            self._holding("positives_inside_words", split, example, *found[0])

    def _holding(
        self, name: str, split: SplitName, example: Example, text: str, answer: str
    ) -> None:
        detail = f"answer {answer} to: {example.question}"
        self._audits[name, split].add(example.qid, _around(text, answer), detail=detail)

    def _control(self, split: SplitName, example: Example) -> None:
        found = self._encoder.control.written_out(example, len(self._shown(example)))
        if found:
            text, token = next(iter(found.values()))
            detail = f"in {', '.join(found)}"
            self._audits["control_tokens", split].add(
                example.qid, _around(text, token), detail=detail
            )

    def _truncated(self, split: SplitName, one: EncodedExample) -> None:
        dropped, cut = one.prompt.passages_dropped, one.prompt.characters_cut
        if dropped or cut:
            detail = f"passages lost: {dropped:,}, characters lost: {cut:,}"
            audit = self._audits["truncated_prompts", split]
            audit.add(one.example.qid, one.example.question, detail=detail)

    def _changed(self, split: SplitName, one: EncodedExample) -> None:
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
        back = said(encoder.recipe, back)
        if back != answer:
            self._audits["changed_answers", split].add(
                one.example.qid, answer, detail=f"{answer!r} comes back as {back!r}"
            )


def _around(text: str, match: str) -> str:
    """The first match with the text around it."""
    start = max(find_answer(text, match), text.find(match))
    first, last = max(0, start - _AROUND), start + len(match) + _AROUND
    return ("…" if first else "") + text[first:last] + ("…" if last < len(text) else "")
