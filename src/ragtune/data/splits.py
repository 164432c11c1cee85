"""What becomes of the records of a split, batch by batch: selected, encoded, counted, audited."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

from ragtune.base.errors import UsageError
from ragtune.base.screen.console import note, warn
from ragtune.data.auditor import Auditor
from ragtune.data.counts import Counts, SplitName, shortest_accepted
from ragtune.data.encode import EncodedExample, EncodedPrompt, Encoder
from ragtune.data.example import Example
from ragtune.data.quotes import quote_of
from ragtune.data.redraw import can_redraw, kept_for_training
from ragtune.data.select import is_asked_too, loses_positives, rejection, target_answer
from ragtune.data.tokenizer import require_rows
from ragtune.data.unanswerable import draw, refusing, wanted, without_oracle
from ragtune.recipe.schema import Recipe

T = TypeVar("T")
Row = dict[str, Any]
"""A line of a split's file."""


@dataclass(slots=True)
class Record:
    """A record on its way: why it is left out, if it is, and how it is encoded, if it is."""

    example: Example
    reason: str | None
    spare: bool = False
    """Has no answer, but may be trained as one that is to be refused."""
    prompt: EncodedPrompt | None = None
    completion: list[int] = field(default_factory=list)


@dataclass
class Split(ABC):
    """Makes the rows of a split's file, and counts on the way.

    Args:
        recipe: what is selected, and how.
        encoder: of prompts and answers.
        auditor: sees all that is read and all that is selected.
        rows: of the model's embedding; an id beyond them is refused.
        source: of the records, for the report.
    """

    name: ClassVar[SplitName]
    hub_name: ClassVar[str]
    """Where the source is a dataset of the Hub and names no split."""

    recipe: Recipe
    encoder: Encoder
    auditor: Auditor
    rows: int
    source: str

    def __post_init__(self) -> None:
        self.counts = Counts(self.name, self.source, self.recipe)

    @abstractmethod
    def chosen(self, batch: list[Example]) -> Iterator[Row]:
        """The rows that the file gets of a batch."""

    def rest(self) -> Iterator[Row]:
        """The rows behind those of the last batch."""
        yield from ()

    def tell(self) -> None:
        """Say on the screen what was counted."""
        self.counts.tell()

    def _records(self, batch: list[Example]) -> list[Record]:
        """Look at what was read, and reject what has no answer or shows no positive."""
        for example in batch:
            self.auditor.read(self.name, example)
        self.counts.read += len(batch)
        self.counts.computed += sum(e.positives_computed for e in batch)
        return [Record(e, rejection(e, self.recipe.data.max_passages)) for e in batch]

    def _encode(self, prompted: Sequence[Record], answered: Sequence[Record]) -> None:
        """Encode the prompts of some records, and the answers of some of these."""
        prompts = _named(self.encoder.prompts, [r.example for r in prompted])
        for record, prompt in zip(prompted, prompts, strict=True):
            record.prompt = prompt
        known = {r.example.qid: r.prompt for r in answered}
        targets = _named(
            lambda asked: self.encoder.targets(asked, [known[e.qid] for e in asked]),
            [r.example for r in answered],
        )
        for record, target in zip(answered, targets, strict=True):
            record.completion = target
        for record in prompted:
            ids = (record.prompt.ids if record.prompt else []) + record.completion
            where = f"Question {record.example.qid}"
            require_rows(self.encoder.tokenizer, ids, self.rows, where)

    def _select(self, one: EncodedExample, answer: int) -> None:
        """Count one that is selected, whose answer has so many tokens."""
        self.counts.select(one, answer)


class TrainingSplit(Split):
    """Of training, what is selected goes into the file, with the passages that are shown."""

    name = "train"
    hub_name = "train"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._seen = self._hidden = self._blinded = 0
        """Examples that could be trained so far; of them those whose answers were hidden, and those that keep
        them without a passage that holds one."""
        self._spare: list[EncodedExample] = []
        """Examples without an answer, of which the share that the recipe wants is taken."""

    def chosen(self, batch: list[Example]) -> Iterator[Row]:
        records = self._records(batch)
        if self.recipe.data.unanswerable or self.recipe.data.without_oracle:
            self._hide_answers(records)
        trainable = [r for r in records if r.reason is None]
        self._encode(trainable, trainable)
        selected = []
        for record in records:
            one = self._fitted(record)
            if isinstance(one, str):
                self.counts.dropped[one] += 1
                continue
            short = kept_for_training(one.example, self.recipe.data)
            if record.spare:
                self._spare.append(replace(one, example=short))
                continue
            selected.append(one)
            self._select(one, len(one.completion) - 1)
            self.counts.unquoted += self._lacks_quote(one)
            self.counts.redrawn += can_redraw(short, self.recipe.data.max_passages)
            yield short.to_dict()
        self.auditor.add(self.name, selected)

    def _lacks_quote(self, one: EncodedExample) -> bool:
        """Whether an answer is trained without the quote that the recipe wants."""
        if not (self.recipe.prompt.quote and one.example.answers):
            return False
        answer = target_answer(one.example, self.recipe.data, self.recipe.seed)
        return not quote_of(one.example, answer, self.encoder.kept(one.example, one.prompt))

    def rest(self) -> Iterator[Row]:
        """As many of the spare examples as the recipe wants, drawn by the seed."""
        # Those whose positives were cut away may be refused already.
        refused = self.counts.unanswerable
        share, seed = self.recipe.data.unanswerable, self.recipe.seed
        count = max(0, wanted(self.counts.selected - refused, share) - refused)
        self._spare.sort(key=lambda one: (draw("real", seed, one.example.qid), one.example.qid))
        taken, left = self._spare[:count], self._spare[count:]
        self.counts.dropped["no_answer"] += len(left)
        for one in taken:
            self.counts.select(one, len(one.completion) - 1)
            self.counts.redrawn += can_redraw(one.example, self.recipe.data.max_passages)
            yield one.example.to_dict()
        self.auditor.add(self.name, taken)

    def tell(self) -> None:
        """Say what was counted, and if the share of unanswerable examples is not what is asked for."""
        super().tell()
        data, selected, found = self.recipe.data, self.counts.selected, self.counts.unanswerable
        if data.redraw_negatives is not None:
            (note if self.counts.redrawn else warn)(
                f"train: each epoch draws the negatives of {self.counts.redrawn:,} of {selected:,} "
                "examples anew (data.redraw_negatives); the others have no more of them than they show"
            )
        if unquoted := self.counts.unquoted:
            note(
                f"train: {unquoted:,} of {selected:,} answers "
                + (
                    "has no quote before it: it stands"
                    if unquoted == 1
                    else "have no quote before them: they stand"
                )
                + " in no sentence of a positive"
            )
        if data.without_oracle:
            note(
                f"train: {self._blinded:,} of {self._seen:,} answerable examples "
                f"{'keeps its' if self._blinded == 1 else 'keep their'} answer, and "
                f"{'shows' if self._blinded == 1 else 'show'} "
                "no passage with it (data.without_oracle)"
            )
        if selected and found < 0.9 * data.unanswerable * selected:
            more = (
                "there are no more records with `answers: []`"
                if data.unanswerable_from == "real"
                else "of the others every passage holds an answer"
            )
            warn(
                f"data.unanswerable asks for {data.unanswerable:.1%}, and "
                f"{found / selected:.1%} were found: {more}."
            )

    def _hide_answers(self, records: list[Record]) -> None:
        """Take the passages with an answer from some that are selected, or set those without an answer aside.

        The share holds over all batches so far, to one example; which of a batch, the seed draws.
        """
        data, seed = self.recipe.data, self.recipe.seed
        selected = [r for r in records if r.reason is None]
        self._seen += len(selected)
        pairs = [(r, left) for r in selected if (left := without_oracle(r.example, data))]
        pairs.sort(key=lambda pair: draw("removed", seed, pair[0].example.qid))
        real = data.unanswerable_from == "real"
        count = 0 if real else max(0, round(data.unanswerable * self._seen) - self._hidden)
        for record, left in pairs[:count]:
            record.example = refusing(left)
        self._hidden += len(pairs[:count])
        blind = max(0, round(data.without_oracle * self._seen) - self._blinded)
        for record, left in pairs[count : count + blind]:
            record.example = left
        self._blinded += len(pairs[count : count + blind])
        for record in records if real and data.unanswerable else ():
            if record.reason == "no_answer":
                record.reason, record.spare = None, True

    def _fitted(self, record: Record) -> EncodedExample | str:
        """A record as it is trained, or why it is left out."""
        example, prompt, completion = record.example, record.prompt, record.completion
        if record.reason is not None:
            return record.reason
        if prompt is None:
            return "question_too_long"
        if not record.spare and positives_cut(self.encoder, example, prompt):
            self.counts.positives_cut.append(example.qid)
            if self.counts.on_cut == "drop":
                self._seen -= 1
                return "positive_cut"
            if self.counts.on_cut == "refuse":
                self._hidden += 1
                example = refusing(example)
                completion = self.encoder.target(example)
        if len(prompt.ids) + len(completion) > self.encoder.context:
            return "answer_too_long"
        return EncodedExample(example, prompt, completion)


class EvaluationSplit(Split):
    """Of the evaluation, every question with all its passages goes into the file: the denominator."""

    name = "eval"
    hub_name = "validation"

    def chosen(self, batch: list[Example]) -> Iterator[Row]:
        records = self._records(batch)
        selected = [r for r in records if r.reason is None]
        # A question that is not selected may be asked all the same.
        self._encode(records, selected)
        # What is trained of them says nothing of what is accepted.
        lengths = shortest_accepted(self.encoder, [r.example for r in selected])
        answers = dict(zip((r.example.qid for r in selected), lengths, strict=True))
        asked = []
        for record in records:
            example, prompt, reason = record.example, record.prompt, self._reason(record)
            if prompt is not None and (reason is None or is_asked_too(self.recipe, reason)):
                asked.append(EncodedExample(example, prompt, record.completion))
            if reason is None:
                self._select(asked[-1], answers[example.qid])
            else:
                self.counts.dropped[reason] += 1
            yield self._row(example, prompt, reason)
        self.auditor.add(self.name, asked)

    def _reason(self, record: Record) -> str | None:
        """Why a question is not selected, if it isn't."""
        if record.prompt is None:
            return "question_too_long"  # not even evaluate.questions: all can ask it
        if record.reason is None and positives_cut(self.encoder, record.example, record.prompt):
            self.counts.positives_cut.append(record.example.qid)
            return "positive_cut" if self.counts.on_cut == "drop" else None
        return record.reason

    def _row(self, example: Example, prompt: EncodedPrompt | None, reason: str | None) -> Row:
        """Whether a question is selected, why not, and what a cut prompt shows."""
        left = None
        if prompt is not None and prompt.is_cut:
            left = [[index, len(text)] for index, text in self.encoder.kept(example, prompt)]
        more = {"selected": reason is None, "reason": reason, "left_in_prompt": left}
        row = example.to_dict() | more  # prepared before, it has some of these already
        return {k: v for k, v in row.items() if v is not None or k not in more}


def positives_cut(encoder: Encoder, example: Example, prompt: EncodedPrompt) -> bool:
    """Whether the prompt was cut, and of the example's positives nothing is left in it."""
    if not prompt.is_cut or not example.positive_passage_indices:
        return False
    return loses_positives(example, encoder.kept(example, prompt))


def _named(encode: Callable[[list[Example]], list[T]], examples: list[Example]) -> list[T]:
    """The examples, encoded; where that fails, the record that it fails for is named."""
    try:
        return encode(examples)
    except UsageError:
        for example in examples:
            try:
                encode([example])
            except UsageError as error:
                raise UsageError(f"Question {example.qid}: {error.message}", error.advice) from None
        raise
