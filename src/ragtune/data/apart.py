"""A part of the training data held apart by article: to choose by, where the evaluation set is not to be seen.

An article is what a question's passages are of: the document that `ragtune build` cut them from, else
their title, else their text. No passage of a held question's article stands as a positive in what is
trained: such examples are left out.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ragtune.base.errors import UsageError
from ragtune.base.files import write_jsonl
from ragtune.base.text import one_or_many
from ragtune.data.example import Example, Passage
from ragtune.data.prepare import how_of, source_of
from ragtune.data.read import read_examples
from ragtune.recipe.data import Data

SHARE, MOST, LEAST = 0.1, 1_000, 20
"""Of the questions that are held apart, and how many at most: more would narrow intervals, and train less."""


@dataclass(frozen=True)
class HeldApart:
    """How many examples are trained, held apart, and left out because they share an article with those."""

    train: int
    held: int
    left_out: int


def hold_apart(data: Data, seed: int, train: Path, held: Path) -> HeldApart:
    """Write the training data of a recipe into two files, held apart by article.

    Args:
        data: where they are from.
        seed: draws the articles that are held apart.
        train: what is left to be trained.
        held: the questions that are not.

    Raises:
        UsageError: there are too few articles.
    """
    articles = [_articles(example) for example in _examples(data)]
    chosen = _drawn(articles, seed)
    held_ones = [bool(names) and names[0] in chosen for names in articles]
    trained = [not chosen.intersection(names) for names in articles]
    counts = HeldApart(sum(trained), sum(held_ones), len(articles) - sum(trained) - sum(held_ones))
    if counts.held < 1 or counts.train < 1:
        raise UsageError(
            f"Of {one_or_many(len(articles), 'training example')} none can be held apart: they are of "
            f"{one_or_many(len({name for names in articles for name in names}), 'article')}.",
            "A sweep chooses on questions whose articles are not trained: give passages titles, or more data.",
        )
    write_jsonl(train, _taken(data, trained))
    write_jsonl(held, _taken(data, held_ones))
    return counts


def copy_evaluation(data: Data, path: Path) -> None:
    """Write a recipe's evaluation set as examples, so that runs over other files can be asked it."""
    examples = read_examples(source_of(data, "eval"), "validation", how=how_of(data, "eval"))
    write_jsonl(path, (example.to_dict() for example in examples))


def _drawn(articles: list[list[str]], seed: int) -> set[str]:
    """Articles with about as many questions as are to be held apart."""
    sizes = Counter(names[0] for names in articles if names)
    wanted = min(MOST, max(LEAST, round(SHARE * len(articles))), len(articles) // 2)
    order = sorted(sizes)
    random.Random(f"apart:{seed}").shuffle(order)
    chosen: set[str] = set()
    found = 0
    for name in order:
        if found >= wanted:
            break
        chosen.add(name)
        found += sizes[name]
    return chosen


def _articles(example: Example) -> list[str]:
    """The articles that answer a question, its own first; without an answer that of its first passage."""
    places = example.positive_passage_indices or range(len(example.passages[:1]))
    return list(dict.fromkeys(_article(example.passages[i]) for i in places))


def _article(passage: Passage) -> str:
    return passage.place.file if passage.place else passage.title or passage.text


def _examples(data: Data) -> Iterator[Example]:
    return read_examples(source_of(data, "train"), "train", how=how_of(data, "train"))


def _taken(data: Data, wanted: Iterable[bool]) -> Iterator[dict[str, object]]:
    for example, is_wanted in zip(_examples(data), wanted, strict=True):
        if is_wanted:
            yield example.to_dict()
