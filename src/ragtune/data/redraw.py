"""Negatives of a training example that are drawn anew in each epoch, from what was retrieved for it."""

from __future__ import annotations

import dataclasses
import random

from ragtune.data.example import Example
from ragtune.data.select import reordered
from ragtune.data.unanswerable import holds
from ragtune.recipe.data import Data
from ragtune.recipe.schema import Recipe


def kept_for_training(example: Example, data: Data) -> Example:
    """A training example with the passages that it may show; `redrawn` draws from its negatives.

    With data.redraw_negatives these are the passages in which no accepted answer stands, in whatever form. One
    that is to be refused, although an answer stands in it that a prompt has no room for, has none: other
    passages might leave room.
    """
    short = example.first_passages(data.kept_passages)
    if data.redraw_negatives is None:
        return short
    answers = (*example.answers, *example.alternatives(data.alternatives), *removed(example))
    free = [i for i in short.negative_passage_indices if not holds(short.passages[i], answers)]
    if _hides(short):
        free = []
    return dataclasses.replace(short, negative_passage_indices=tuple(sorted(free)))


def can_redraw(example: Example, max_passages: int) -> bool:
    """Whether there are more negatives than are shown."""
    return any(i >= max_passages for i in example.negative_passage_indices) and any(
        i < max_passages for i in example.negative_passage_indices
    )


def redrawn(example: Example, max_passages: int, lot: str) -> Example:
    """The example as it is shown with other negatives, which lot and qid draw.

    The chance of a negative goes by one over its rank among them, as they were retrieved: the hard ones, which
    are most like what was asked for, come more often. Positives stay where they are.
    """
    shown = list(range(len(example.passages[:max_passages])))
    negatives = example.negative_passage_indices
    places = [i for i in shown if i in set(negatives)]
    draw = random.Random(f"{lot}:{example.qid}")
    # The largest of u^(1/weight) are a draw without replacement by weights (Efraimidis and Spirakis 2006).
    keys = {index: draw.random() ** rank for rank, index in enumerate(negatives, 1)}
    taken = sorted(sorted(negatives, key=keys.__getitem__, reverse=True)[: len(places)])
    for place, index in zip(places, taken, strict=True):
        shown[place] = index
    return dataclasses.replace(
        example.first_passages(max_passages), passages=tuple(example.passages[i] for i in shown)
    )


def varied(example: Example, recipe: Recipe, epoch: int) -> Example:
    """A training example as an epoch shows it: with other negatives, in another order, as the recipe says."""
    if _hides(example):
        return example
    count = recipe.data.max_passages
    if recipe.data.redraw_negatives is not None:
        example = redrawn(example, count, f"redraw:{recipe.seed}:{epoch}")
    if recipe.train.reorder_passages:
        example = reordered(example.first_passages(count), f"reorder:{recipe.seed}:{epoch}")
    return example


def removed(example: Example) -> tuple[str, ...]:
    """The answers that were taken from an example that is to be refused."""
    return tuple(example.extra.get("removed_answers", ()))


def _hides(example: Example) -> bool:
    """Whether it is to be refused only because its prompt has no room for the answer."""
    answers = removed(example)
    return not example.answers and any(holds(p, answers) for p in example.passages)
