"""Which examples are used, and why the others are not."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

from ragtune.data.example import Example, Passage
from ragtune.data.words import stands, stands_by_rule
from ragtune.recipe.data import Data
from ragtune.recipe.schema import Recipe

REASONS = {
    "no_answer": "no accepted answer",
    "no_positive": "no passage contains an answer",
    "positive_too_low": "no positive among the first max_passages",
    "question_too_long": "the question alone leaves no room for a passage",
    "positive_cut": "prompt.max_tokens (or the context) cuts every passage with an answer away",
    "answer_too_long": "prompt and answer together are longer than the model's context",
}


def rejection(example: Example, max_passages: int) -> str | None:
    """Why an example is not selected (a key of REASONS), or None.

    The rule is the notebook's: a positive among the first `max_passages`.
    """
    if not example.answers:
        return "no_answer"
    if not example.positive_passage_indices:
        return "no_positive"
    if min(example.positive_passage_indices) >= max_passages:
        return "positive_too_low"
    return None


def nearly_positive(example: Example, max_passages: int) -> dict[str, tuple[int, str]]:
    """What keeps the first passages from being positives: the audits' names, first passage and answer.

    `inside_words`: an answer stands there, but only inside a word; `other_forms`: only in another width
    or case, or with other spaces and signs. Empty for a record that names its positives.
    """
    found: dict[str, tuple[int, str]] = {}
    if not example.positives_computed:
        return found
    positive = set(example.positive_passage_indices)
    for index, passage in enumerate(example.passages[:max_passages]):
        if index not in positive:
            for answer in example.answers:
                if answer in passage.text:
                    found.setdefault("inside_words", (index, answer))
                elif "other_forms" not in found and stands_by_rule(passage.text, answer):
                    found["other_forms"] = (index, answer)
    return found


def shown_passages(example: Example, recipe: Recipe) -> tuple[Passage, ...]:
    """The passages that the model sees: the first ones, as retrieved or shuffled."""
    return tuple(example.passages[i] for i in shown_indices(example, recipe))


def shown_indices(example: Example, recipe: Recipe) -> list[int]:
    """Which of its passages those are, in their order.

    The shuffle depends on seed and qid alone, so it is the same in training and evaluation and for
    any order of the file.
    """
    shown = list(range(len(example.passages[: recipe.data.max_passages])))
    if recipe.data.shuffle_passages:
        random.Random(f"passages:{recipe.seed}:{example.qid}").shuffle(shown)
    return shown


def reordered(example: Example, lot: str) -> Example:
    """The example with its passages in an order that the lot and its qid draw."""
    order = list(range(len(example.passages)))
    random.Random(f"{lot}:{example.qid}").shuffle(order)

    def moved(indices: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(order.index(i) for i in indices))

    return dataclasses.replace(
        example,
        passages=tuple(example.passages[i] for i in order),
        positive_passage_indices=moved(example.positive_passage_indices),
        negative_passage_indices=moved(example.negative_passage_indices),
    )


def texts_shown(example: Example, max_passages: int) -> list[str]:
    """The texts of the first passages; of a prepared question, as far as its prompt holds them."""
    left = example.extra.get("left_in_prompt")
    if left is not None:
        return [example.passages[index].text[:length] for index, length in left]
    return [passage.text for passage in example.passages[:max_passages]]


def loses_positives(example: Example, kept: Sequence[tuple[int, str]]) -> bool:
    """Whether a prompt that was cut to fit lost every positive.

    A positive is still there if its whole text is, or if an answer stands in what is left of it. Of
    one in whose whole text no answer stands (the record names it all the same) nothing may be missing.

    Args:
        example: with at least one positive.
        kept: index and text of each passage of the prompt (`Encoder.kept`).
    """
    return not positives_left(example, kept)


def positives_left(example: Example, kept: Sequence[tuple[int, str]]) -> list[int]:
    """The places in a prompt, from 1, at which a positive is still there; arguments as of `loses_positives`."""
    positives = set(example.positive_passage_indices)
    return [
        place
        for place, (index, text) in enumerate(kept, 1)
        if index in positives
        and (text == example.passages[index].text or any(stands(text, a) for a in example.answers))
    ]


def target_answer(example: Example, data: Data, seed: int) -> str:
    """The answer that is trained: the first, or one drawn by seed and qid; the refusal where there is none."""
    if not example.answers:
        return data.refusal or ""
    if data.target == "random":
        return random.Random(f"target:{seed}:{example.qid}").choice(example.answers)
    return example.answers[0]


def drawn(examples: Sequence[Example], count: int, lot: str) -> list[Example]:
    """So many of the examples, in their order: of more, those of fewer are a part. Another lot draws others."""
    order = list(range(len(examples)))
    random.Random(lot).shuffle(order)
    return [examples[i] for i in sorted(order[:count])]


def accepted(example: Example, recipe: Recipe, choice: str | None = None) -> tuple[str, ...]:
    """The answers that count as right; `choice` is evaluate.answers unless given."""
    choice = choice or recipe.evaluate.answers
    if choice == "first":
        return example.answers[:1]
    more = example.alternatives(recipe.data.alternatives) if "alternatives" in choice else ()
    return (*example.answers, *more)


def is_asked_too(recipe: Recipe, reason: str | None) -> bool:
    """Whether a question that is not selected, for this reason, is asked all the same."""
    if reason is None or reason == "question_too_long":
        return False
    refused = recipe.data.refusal is not None and reason == "no_answer"
    return recipe.evaluate.questions == "all" or refused
