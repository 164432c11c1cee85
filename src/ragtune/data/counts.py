"""What the data report says of a split: how much was read, selected, dropped and cut, and what is too long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypedDict

import numpy as np

from ragtune.base.screen.console import note, warn
from ragtune.base.text import one_or_many
from ragtune.data.citations import cite, numbered
from ragtune.data.encode import EncodedExample, Encoder
from ragtune.data.example import Example
from ragtune.data.quotes import quoting
from ragtune.data.select import REASONS, accepted
from ragtune.recipe.data import Data
from ragtune.recipe.schema import Recipe

SplitName = Literal["train", "eval"]

_QIDS = 10
"""How many qids the report names."""
_DONE = {
    "drop": "left out",
    "refuse": "trained with the refusal",
    "keep": "kept as if nothing were lost",
}
ADVICE = "Raise evaluate.max_new_tokens."
"""What to do about answers that are too long."""


def on_cut(split: str, data: Data) -> str:
    """What becomes of an example whose prompt lost every positive: data.cut_positives.

    In the evaluation there is nothing to be taught: what is refused in training is left out there.
    """
    chosen = data.cut_positives
    return "drop" if (split, chosen) == ("eval", "refuse") else chosen


def what_becomes(split: str, data: Data) -> str:
    """The same in words."""
    return _DONE[on_cut(split, data)]


@dataclass(slots=True)
class TooLong:
    """How many answers have more tokens than the model may write, the stop token not counted."""

    max_new_tokens: int
    of: int = 0
    count: int = 0
    longest: int = 0
    """Tokens: with so many, each of them could be given."""
    qids: list[str] = field(default_factory=list)

    def add(self, qid: str, tokens: int) -> None:
        self.of += 1
        if tokens > self.max_new_tokens:
            self.count += 1
            self.longest = max(self.longest, tokens)
            self.qids += [qid] if len(self.qids) < _QIDS else []

    def words(self, split: str, of: str = "") -> str:
        """What was counted; of training what is trained, of the evaluation what would be right.

        Args:
            split: train or eval.
            of: how many were looked at, in words, where these are not all.
        """
        what = "trained answers" if split == "train" else "questions' accepted answers"
        return (
            f"{self.count:,} of {of or f'{self.of:,}'} {what} {'has' if self.count == 1 else 'have'} more "
            f"than {self.max_new_tokens:,} tokens "
            f"(the longest has {self.longest:,}): they can't be given whole"
        )


def accepted_whole(encoder: Encoder, examples: Sequence[Example]) -> list[list[str]]:
    """Each example's accepted answers, with what is to stand around them."""
    recipe = encoder.recipe
    behind = [1] if recipe.prompt.citations else []
    return [
        [cite(quoting(e, a, recipe, numbered(e, recipe)), behind) for a in accepted(e, recipe)]
        for e in examples
    ]


def shortest_accepted(encoder: Encoder, examples: Sequence[Example]) -> list[int]:
    """The tokens of each example's shortest accepted answer, with what is to stand around it; else 0."""
    answers = accepted_whole(encoder, examples)
    lengths = iter(encoder.answer_lengths([a for one in answers for a in one]))
    return [min((next(lengths) for _ in one), default=0) for one in answers]


def refusal_too_long(encoder: Encoder) -> str | None:
    """In words, if the refusal itself is longer than what the model may write."""
    refusal, limit = encoder.recipe.data.refusal, encoder.recipe.evaluate.max_new_tokens
    if refusal is None or (tokens := encoder.answer_lengths([refusal])[0]) <= limit:
        return None
    return f"data.refusal has {tokens:,} tokens, more than {limit:,}: it can't be given whole"


class SplitReport(TypedDict):
    """What the data report says of a split."""

    source: str
    read: int
    selected: int
    dropped: dict[str, int]
    positives_computed: int
    prompt_tokens: dict[str, float]
    completion_tokens: dict[str, float]
    too_long: dict[str, Any]
    truncated: dict[str, Any]
    positives_cut: dict[str, Any]
    unanswerable: int
    redrawn: int
    unquoted: int


class Counts:
    """Counts a split while it is read and selected."""

    def __init__(self, split: SplitName, source: str, recipe: Recipe) -> None:
        self.split: SplitName = split
        self.source = source
        self.on_cut = on_cut(split, recipe.data)
        self.read = 0
        self.computed = 0
        self.dropped: Counter[str] = Counter()
        self.prompt_tokens: list[int] = []
        self.completion_tokens: list[int] = []
        self.truncated: list[str] = []
        self.passages_dropped = 0
        self.characters_cut = 0
        self.positives_cut: list[str] = []
        """Examples whose prompt lost every positive, whatever became of them."""
        self.too_long = TooLong(recipe.evaluate.max_new_tokens)
        self.unanswerable = 0
        self.redrawn = 0
        """Of training, examples that have more negatives than they show (data.redraw_negatives)."""
        self.unquoted = 0
        """Of training, answers without a quote: they stand in no sentence of a positive (prompt.quote)."""

    @property
    def selected(self) -> int:
        return len(self.prompt_tokens)

    def select(self, one: EncodedExample, answer: int) -> None:
        """Count one that is selected.

        Args:
            one: as it is encoded.
            answer: the tokens of the answer that is trained, or of the shortest one that is accepted.
        """
        prompt, qid = one.prompt, one.example.qid
        self.unanswerable += not one.example.answers
        self.prompt_tokens.append(len(prompt.ids))
        self.completion_tokens.append(len(one.completion))
        self.too_long.add(qid, answer)
        if prompt.is_cut:
            self.truncated.append(qid)
            self.passages_dropped += prompt.passages_dropped
            self.characters_cut += prompt.characters_cut

    def report(self) -> SplitReport:
        return {
            "source": self.source,
            "read": self.read,
            "selected": self.selected,
            "dropped": {r: self.dropped[r] for r in REASONS if self.dropped[r]},
            "positives_computed": self.computed,
            "prompt_tokens": _lengths(self.prompt_tokens),
            "completion_tokens": _lengths(self.completion_tokens),
            "too_long": asdict(self.too_long),
            "truncated": {
                "examples": len(self.truncated),
                "passages_dropped": self.passages_dropped,
                "characters_cut": self.characters_cut,
                "qids": self.truncated[:_QIDS],
            },
            "positives_cut": {
                "examples": len(self.positives_cut),
                "done": _DONE[self.on_cut],
                "qids": self.positives_cut[:_QIDS],
            },
            "unanswerable": self.unanswerable,
            "redrawn": self.redrawn,
            "unquoted": self.unquoted,
        }

    def tell(self) -> None:
        """Say it on the screen."""
        dropped = f"; dropped: {self.dropped_text()}" if self.dropped.total() else ""
        note(f"{self.split}: {self.selected:,} of {self.read:,} selected{dropped}")
        if lengths := _lengths(self.prompt_tokens):
            low, middle, high = lengths["min"], lengths["median"], lengths["max"]
            note(f"  prompts of {low} to {high} tokens, median {middle:.0f}")
        if self.unanswerable:
            share = self.unanswerable / self.selected
            note(
                f"  {self.unanswerable:,} of them ({share:.1%}) {'has' if self.unanswerable == 1 else 'have'} "
                "no answer: to be refused"
            )
        if self.computed:
            note(
                f"  {one_or_many(self.computed, 'record')} had no positive_passage_indices: found by "
                "the answer's text in the passages"
            )
        if self.truncated:
            note(
                f"  {one_or_many(len(self.truncated), 'prompt was', 'prompts were')} too long and lost "
                f"{one_or_many(self.passages_dropped, 'passage')} and "
                f"{one_or_many(self.characters_cut, 'character')}"
            )
        if self.positives_cut:
            warn(
                f"{self.split}: {one_or_many(len(self.positives_cut), 'prompt')} lost every passage with an "
                f"answer: {_DONE[self.on_cut]} (data.cut_positives). Raise prompt.max_tokens, as far as the "
                "model reads."
            )
        if self.too_long.count:
            warn(f"{self.split}: {self.too_long.words(self.split)}. {ADVICE}")

    def dropped_text(self) -> str:
        """How many were dropped for each reason."""
        return ", ".join(
            f"{self.dropped[r]:,} {why}" for r, why in REASONS.items() if self.dropped[r]
        )


def _lengths(values: list[int]) -> dict[str, float]:
    if not values:
        return {}
    array = np.asarray(values)
    return {
        "min": int(array.min()),
        "median": float(np.median(array)),
        "p95": float(np.quantile(array, 0.95)),
        "max": int(array.max()),
        "total": int(array.sum()),
    }
