"""Citation recall and precision after ALCE (Gao et al. 2023, https://arxiv.org/abs/2305.14627), by string.

ALCE asks an NLI model whether what is cited entails a statement. Here an answer is one statement, and a cited
passage supports it if it is a positive of the question, and an accepted answer stands in the answer, or the
answer in the passage. So a passage supports it alone or not at all, and ALCE's definitions become: recall is 1
if a cited passage supports the answer; precision is the share of the citations that do, and 0 without any.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, TypedDict

from ragtune.data.citations import numbered, parse
from ragtune.data.example import Example
from ragtune.data.words import refused, stands_by_rule
from ragtune.recipe.schema import Recipe
from ragtune.scoring.statistics import Figure, figures

KINDS: tuple[Literal["recall", "precision", "cited"], ...] = ("recall", "precision", "cited")


@dataclass
class Citations:
    """A value for each answered question: one that was selected, asked, and not refused."""

    recall: list[float] = field(default_factory=list)
    precision: list[float] = field(default_factory=list)
    cited: list[float] = field(default_factory=list)
    """1 if the answer cites anything."""
    malformed: int = 0
    """Citations of numbers that no passage has: [9] of three. They count as not supporting."""


class CitationFigures(TypedDict):
    """Over the `n` answered questions."""

    n: int
    recall: Figure
    precision: Figure
    cited: Figure
    malformed: int


def citations(
    recipe: Recipe, asked: Iterable[tuple[Example, str | None, float]]
) -> Citations | None:
    """What the answers cite; None where the recipe asks for no citations.

    Args:
        recipe: the refusal, which passages are shown.
        asked: selected questions, what the model wrote, and the metric `contains` of its answer.
    """
    if not recipe.prompt.citations:
        return None
    found = Citations()
    for example, text, holds in asked:
        if text is None:
            continue
        one = parse(text, recipe.prompt)
        if refused(one.answer, recipe.data.refusal):
            continue
        shown = numbered(example, recipe)
        cited = [shown[n - 1] for n in one.numbers if 0 < n <= len(shown)]
        positives = set(example.positive_passage_indices)
        supporting = sum(
            index in positives and (holds == 1 or stands_by_rule(passage, one.answer))
            for index, passage in cited
        )
        found.recall.append(float(supporting > 0))
        found.precision.append(supporting / max(1, len(one.numbers)))
        found.cited.append(float(bool(one.numbers)))
        found.malformed += len(one.numbers) - len(cited)
    return found


def citation_figures(found: Citations | None, seed: int) -> CitationFigures | None:
    """The figures, with intervals; None where there are no citations, or no question was answered."""
    if found is None or not found.recall:
        return None
    every = figures({kind: getattr(found, kind) for kind in KINDS}, seed)
    return {
        "n": len(found.recall),
        "recall": every["recall"],
        "precision": every["precision"],
        "cited": every["cited"],
        "malformed": found.malformed,
    }
