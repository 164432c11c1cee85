"""What quotes before answers are worth (prompt.quote): whether they stand in a passage and hold the answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, TypedDict

from ragtune.data.citations import numbered, parse
from ragtune.data.example import Example
from ragtune.data.quotes import is_verbatim
from ragtune.data.words import refused, stands_by_rule
from ragtune.recipe.schema import Recipe
from ragtune.scoring.statistics import Figure, figures

KINDS: tuple[Literal["quoted", "verbatim", "supporting"], ...] = (
    "quoted", "verbatim", "supporting",
)  # fmt: skip


@dataclass
class Quotes:
    """A value for each answered question: one that was selected, asked, and not refused."""

    quoted: list[float] = field(default_factory=list)
    """1 if a quote stands before the answer; what can't be read so counts as the answer, as it stands."""
    verbatim: list[float] = field(default_factory=list)
    """1 if that quote stands in a shown passage, but for white space."""
    supporting: list[float] = field(default_factory=list)
    """1 if that passage is a positive, and the answer stands in the quote."""


class QuoteFigures(TypedDict):
    """Over the `n` answered questions."""

    n: int
    quoted: Figure
    verbatim: Figure
    supporting: Figure
    unparsed: int
    """Answers without a quote that could be told from them."""


def quotes(recipe: Recipe, asked: Iterable[tuple[Example, str | None]]) -> Quotes | None:
    """What the answers quote; None where the recipe asks for no quotes.

    Args:
        recipe: the refusal, which passages are shown.
        asked: selected questions, and what the model wrote.
    """
    if not recipe.prompt.quote:
        return None
    found = Quotes()
    for example, written in asked:
        if written is None:
            continue
        one = parse(written, recipe.prompt)
        if refused(one.answer, recipe.data.refusal):
            continue
        shown = [index for index, text in numbered(example, recipe) if is_verbatim(one.quote, text)]
        positive = bool(set(shown) & set(example.positive_passage_indices))
        found.quoted.append(float(bool(one.quote)))
        found.verbatim.append(float(bool(shown)))
        found.supporting.append(float(positive and stands_by_rule(one.quote, one.answer)))
    return found


def quote_figures(found: Quotes | None, seed: int) -> QuoteFigures | None:
    """The figures, with intervals; None where there are no quotes, or no question was answered."""
    if found is None or not found.quoted:
        return None
    every = figures({kind: getattr(found, kind) for kind in KINDS}, seed)
    return {
        "n": len(found.quoted),
        "quoted": every["quoted"],
        "verbatim": every["verbatim"],
        "supporting": every["supporting"],
        "unparsed": found.quoted.count(0),
    }
