"""What the data report says of a split: how much was read, selected, dropped and cut."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from ragtune.base.console import note, warn
from ragtune.data.encode import EncodedPrompt
from ragtune.data.example import Example
from ragtune.data.select import REASONS
from ragtune.data.too_long import ADVICE, TooLong
from ragtune.data.unanswerable import refusing
from ragtune.recipe.schema import Data, Recipe

_QIDS = 10
_DONE = {
    "drop": "left out",
    "refuse": "trained with the refusal",
    "keep": "kept as if nothing were lost",
}


def on_cut(split: str, data: Data) -> str:
    """What becomes of an example whose prompt lost every positive: data.cut_positives.

    In the evaluation there is nothing to be taught: what is refused in training is left out there.
    """
    chosen = data.cut_positives
    return "drop" if (split, chosen) == ("eval", "refuse") else chosen


def what_becomes(split: str, data: Data) -> str:
    """The same in words."""
    return _DONE[on_cut(split, data)]


class Counts:
    """What the data report says of a split."""

    def __init__(self, split: str, source: str, recipe: Recipe, rows: int) -> None:
        self.split = split
        self.source = source
        self.rows = rows
        """Of the model's embedding."""
        self.on_cut = on_cut(split, recipe.data)
        self.read = 0
        self.selected = 0
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
        self.special_text = 0
        self.unanswerable = 0
        self.seen = 0
        self.hidden = 0
        """Training examples that could be trained so far, and those of them whose answers were hidden."""
        self.spare: list[tuple[float, Example, EncodedPrompt, list[int]]] = []
        """Training examples without an answer, of which the share that the recipe wants is taken."""

    def without_positive(self, example: Example) -> tuple[Example, str | None]:
        """What becomes of an example whose prompt lost every positive; and why it is dropped, if it is."""
        self.positives_cut.append(example.qid)
        if self.on_cut == "drop":
            self.seen -= 1
            return example, "positive_cut"
        if self.on_cut == "refuse":
            self.hidden += 1
            return refusing(example), None
        return example, None

    def select(
        self, example: Example, prompt: EncodedPrompt, completion: list[int], answer: int
    ) -> None:
        """Take one up.

        Args:
            example: with the prompt and the completion as they are encoded.
            prompt: its prompt.
            completion: its completion.
            answer: the tokens of the answer that is trained, or of the shortest one that is accepted.
        """
        self.selected += 1
        self.unanswerable += not example.answers
        self.prompt_tokens.append(len(prompt.ids))
        self.completion_tokens.append(len(completion))
        self.too_long.add(example.qid, answer)
        if prompt.passages_dropped or prompt.characters_cut:
            self.truncated.append(example.qid)
            self.passages_dropped += prompt.passages_dropped
            self.characters_cut += prompt.characters_cut

    def report(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "read": self.read,
            "selected": self.selected,
            "dropped": {r: self.dropped[r] for r in REASONS if self.dropped[r]},
            "positives_computed": self.computed,
            "prompt_tokens": _lengths(self.prompt_tokens),
            "completion_tokens": _lengths(self.completion_tokens),
            "too_long": self.too_long.report(),
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
            "special_tokens_in_text": self.special_text,
            "unanswerable": self.unanswerable,
        }

    def tell(self) -> None:
        """Say it on the screen."""
        dropped = dropped_text(self.dropped)
        note(
            f"{self.split}: {self.selected:,} of {self.read:,} selected"
            + (f"; dropped: {dropped}" if dropped else "")
        )
        if lengths := _lengths(self.prompt_tokens):
            low, middle, high = (lengths[k] for k in ("min", "median", "max"))
            note(f"  prompts of {low} to {high} tokens, median {middle:.0f}")
        if self.unanswerable:
            share = self.unanswerable / self.selected
            note(f"  {self.unanswerable:,} of them ({share:.1%}) have no answer: to be refused")
        if self.computed:
            note(
                f"  {self.computed:,} records had no positive_passage_indices: found by "
                "the answer's text in the passages"
            )
        if self.special_text:
            warn(
                f"{self.special_text:,} questions write out one of the tokenizer's special "
                "tokens, in question or passages; the model reads it as that token."
            )
        if self.truncated:
            note(
                f"  {len(self.truncated):,} prompts were too long and lost "
                f"{self.passages_dropped:,} passages and {self.characters_cut:,} characters"
            )
        if self.positives_cut:
            warn(
                f"{self.split}: {len(self.positives_cut):,} prompts lost every passage with an answer: "
                f"{_DONE[self.on_cut]} (data.cut_positives). Raise prompt.max_tokens, as far as the "
                "model reads."
            )
        if self.too_long.count:
            warn(f"{self.split}: {self.too_long.words(self.split)}. {ADVICE}")


def dropped_text(dropped: Counter[str]) -> str:
    """How many were dropped for each reason."""
    return ", ".join(f"{dropped[r]:,} {why}" for r, why in REASONS.items() if dropped[r])


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
