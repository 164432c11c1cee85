"""What a prediction scores, question by question, and against which answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache

from ragtune.data.words import aio_undeleted, whole_words
from ragtune.scoring.normalise import NORMALISERS, aio, jsquad, squad, strict


def strict_em(prediction: str, answer: str) -> float:
    """1 if they are equal, character for character."""
    return float(strict(prediction) == strict(answer))


def squad_em(prediction: str, answer: str) -> float:
    """1 if they are equal by SQuAD's rule."""
    return float(_squad(prediction) == _squad(answer))


def aio_em(prediction: str, answer: str) -> float:
    """1 if they are equal by AI王's rule."""
    return float(_aio(prediction) == _aio(answer))


def jsquad_em(prediction: str, answer: str) -> float:
    """1 if they are equal by JSQuAD's rule."""
    return float(_jsquad(prediction) == _jsquad(answer))


def token_f1(prediction: str, answer: str) -> float:
    """SQuAD's F1 over words, after SQuAD's rule; of two texts of which nothing is left, 1 (as in v2.0)."""
    return _overlap(_squad(prediction).split(), _squad(answer).split())


def char_f1(prediction: str, answer: str) -> float:
    """JSQuAD's F1 over characters, after JSQuAD's rule."""
    return _overlap(list(_jsquad(prediction)), list(_jsquad(answer)))


def contains(prediction: str, answer: str) -> float:
    """1 if the answer stands in the prediction, both by AI王's rule, but in no word or number of its own.

    Whole words count in Latin, Greek and Cyrillic letters, which white space and hyphens part. An
    answer of which nothing is left (・, say) matches only a prediction of which nothing is.
    """
    gold = _aio(answer)
    if not gold or gold == _aio(prediction):
        return float(gold == _aio(prediction))
    return float(whole_words(answer).search(_undeleted(prediction)) is not None)


_squad, _aio, _undeleted, _jsquad = (
    lru_cache(65_536)(rule) for rule in (squad, aio, aio_undeleted, jsquad)
)


def _overlap(prediction: list[str], answer: list[str]) -> float:
    if not prediction or not answer:
        return float(prediction == answer)
    same = sum((Counter(prediction) & Counter(answer)).values())
    return 2 * same / (len(prediction) + len(answer))


METRICS: dict[str, Callable[[str, str], float]] = {
    "strict_em": strict_em,
    "squad_em": squad_em,
    "aio_em": aio_em,
    "jsquad_em": jsquad_em,
    "token_f1": token_f1,
    "char_f1": char_f1,
    "contains": contains,
}

VERSIONS = {name: version for name, (_, version) in NORMALISERS.items()} | {"contains": "2"}
"""Of each rule; `contains` has one of its own: 1 looked at ASCII's words alone, and into numbers."""


def score(
    predictions: Sequence[str], golds: Sequence[Sequence[str]], names: Sequence[str] = ()
) -> dict[str, list[float]]:
    """Each metric's value for each question, from 0 to 1: that of the answer that fits best.

    Args:
        predictions: one a question.
        golds: the accepted answers of each, at least one.
        names: of the metrics; all of them by default.
    """
    return {
        name: [max(METRICS[name](p, a) for a in g) for p, g in zip(predictions, golds, strict=True)]
        for name in names or METRICS
    }


def refused(prediction: str, refusal: str) -> bool:
    """Whether a prediction is the refusal, by AI王's rule and without a full stop."""
    return _aio(prediction).rstrip("。.!") == _aio(refusal).rstrip("。.!")
