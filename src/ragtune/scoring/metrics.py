"""What a prediction scores, question by question.

A metric is a function of an example and a prediction. The example's `answers` are those that count as
right, its passages those that were retrieved. A new metric is a function and a line in `METRICS`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

from ragtune.data.citations import said
from ragtune.data.example import Example
from ragtune.data.select import accepted
from ragtune.data.words import aio, refused, stands_by_rule, tokens
from ragtune.recipe.schema import Recipe
from ragtune.scoring.normalise import NORMALISERS, jsquad, squad, strict

Metric = Callable[[Example, str], float]
"""A prediction's value from 0 to 1."""

Columns = dict[str, list[float]]
"""Values of each metric, one a question."""


def exact(rule: Callable[[str], str]) -> Callable[[str, str], float]:
    """A comparison of a prediction with an answer: 1 if they are equal by a rule."""
    return lambda prediction, answer: float(rule(prediction) == rule(answer))


strict_em = exact(strict)
squad_em = exact(squad)
aio_em = exact(aio)
jsquad_em = exact(jsquad)


def token_f1(prediction: str, answer: str) -> float:
    """SQuAD's F1 over words, after SQuAD's rule; of two texts of which nothing is left, 1 (as in v2.0)."""
    return _overlap(squad(prediction).split(), squad(answer).split())


def char_f1(prediction: str, answer: str) -> float:
    """JSQuAD's F1 over characters, after JSQuAD's rule."""
    return _overlap(list(jsquad(prediction)), list(jsquad(answer)))


def rouge_l(prediction: str, answer: str) -> float:
    """ROUGE-L's F1 (Lin 2004, https://aclanthology.org/W04-1013): the longest common subsequence of tokens.

    In English that of Google's rouge_score without its stemmer; in Japanese each letter is a token. Of two
    texts of which nothing is left, 1.
    """
    found, wanted = tokens(prediction)[:_LONGEST], tokens(answer)[:_LONGEST]
    if not found or not wanted:
        return float(found == wanted)
    return 2 * _common(found, wanted) / (len(found) + len(wanted))


_LONGEST = 10_000
"""Tokens of a text that are compared: so far the time that it takes is none."""


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the longest common subsequence, a row of its table at a time in one number's bits.

    Hyyrö 2004, Bit-parallel LCS-length computation revisited: a bit is 0 where the length grows.
    """
    places: dict[str, int] = defaultdict(int)
    for i, token in enumerate(one):
        places[token] |= 1 << i
    whole = (1 << len(one)) - 1
    row = whole
    for token in other:
        grown = row & places[token]
        row = (row + grown | row - grown) & whole
    return len(one) - row.bit_count()


def contains(prediction: str, answer: str) -> float:
    """1 if the answer stands in the prediction, both by AI王's rule, but in no word or number of its own.

    Whole words count in Latin, Greek and Cyrillic letters, which white space and hyphens part; of an answer
    of more than 200 characters any place counts. One of which nothing is left (・, say) matches only a
    prediction of which nothing is.
    """
    equal = aio(answer) == aio(prediction)
    return float(equal or stands_by_rule(prediction, answer))


def _overlap(prediction: list[str], answer: list[str]) -> float:
    if not prediction or not answer:
        return float(prediction == answer)
    same = sum((Counter(prediction) & Counter(answer)).values())
    return 2 * same / (len(prediction) + len(answer))


def best(compare: Callable[[str, str], float]) -> Metric:
    """The metric that compares a prediction with each answer; the one that fits best counts."""
    return lambda example, prediction: max(compare(prediction, a) for a in example.answers)


METRICS: dict[str, Metric] = {
    "strict_em": best(strict_em),
    "squad_em": best(squad_em),
    "aio_em": best(aio_em),
    "jsquad_em": best(jsquad_em),
    "token_f1": best(token_f1),
    "char_f1": best(char_f1),
    "rouge_l": best(rouge_l),
    "contains": best(contains),
}

VERSIONS = {name: version for name, (_, version) in NORMALISERS.items()} | {
    "contains": "3", "rouge_l": "1",
}  # fmt: skip
"""Of each rule; `contains` has one of its own: 1 looked at ASCII's words alone, and into numbers; 2 asked of
answers of any length whether they are cut out of a word."""


def log_key(metric: str) -> str:
    """What the log of a training calls a metric: one name for exact match, whatever the rule."""
    return f"eval_{'exact_match' if metric.endswith('_em') else metric}"


def short_name(metric: str) -> str:
    """A metric over a narrow column."""
    return {"em": "EM", "f1": "F1"}.get(metric.rpartition("_")[2], metric)


def score(
    recipe: Recipe,
    examples: Sequence[Example],
    predictions: Sequence[str | None],
    names: Sequence[str] = tuple(METRICS),
    choice: str | None = None,
) -> Columns:
    """Each metric's value for each question, from 0 to 1.

    Without a prediction a question is wrong. One without any answer is right if it was refused. What
    stands around an answer (prompt.citations, prompt.quote) is no part of it.

    Args:
        recipe: which answers count as right, and what a refusal is.
        examples: the questions.
        predictions: one a question; None where there is none.
        names: of the metrics.
        choice: which answers count, if not those of `evaluate.answers`.
    """
    refusal = recipe.data.refusal

    def value(metric: Metric, example: Example, prediction: str | None) -> float:
        if prediction is None:
            return 0.0
        return (
            metric(example, prediction) if example.answers else float(refused(prediction, refusal))
        )

    predictions = [p if p is None else said(recipe, p) for p in predictions]
    asked = [replace(e, answers=accepted(e, recipe, choice) if e.answers else ()) for e in examples]
    return {
        name: [value(METRICS[name], e, p) for e, p in zip(asked, predictions, strict=True)]
        for name in names
    }
