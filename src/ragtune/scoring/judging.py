"""What a judge made of answers: read from what it wrote, counted, and held against exact match and itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from typing_extensions import TypedDict  # pydantic wants this one, before Python 3.12

from ragtune.scoring.statistics import ALIKE, CONFIDENCE, SAMPLES, Figure, figures

_TRIES = 100
"""Places at which an object may begin: what nests without end is not looked at from each."""
_CLAIMS = 100
"""Of an answer."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """On one answer."""

    correct: bool
    """Whether it says what an accepted answer says."""
    supports: tuple[frozenset[int], ...]
    """For each of its claims the numbers of the texts that support it."""

    @property
    def supported(self) -> float:
        """The share of the claims that a text supports; of no claims, 0."""
        return sum(map(bool, self.supports)) / max(1, len(self.supports))

    def recall(self, cited: Sequence[int]) -> float:
        """ALCE's citation recall: the share of the claims that a cited text supports."""
        found = sum(bool(texts & {*cited}) for texts in self.supports)
        return found / max(1, len(self.supports))

    def precision(self, cited: Sequence[int]) -> float:
        """ALCE's citation precision: the share of the citations that support a claim; without any, 0."""
        useful = frozenset[int]().union(*self.supports)
        return sum(number in useful for number in cited) / max(1, len(cited))


def read_verdict(text: str, shown: int, *, turned: bool = False) -> Verdict | None:
    """The verdict in what a judge wrote, whatever stands around it; None if there is none.

    Args:
        text: with an object {"correct": …, "claims": [{"claim": …, "texts": [1]}]}.
        shown: how many texts it was given: other numbers support nothing.
        turned: whether they stood in the opposite order.
    """
    decoder, start = json.JSONDecoder(), -1
    for _ in range(_TRIES):
        if (start := text.find("{", start + 1)) < 0:
            return None
        try:
            found, _end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict) and isinstance(found.get("correct"), bool):
            supports = _supports(found.get("claims"), shown, turned=turned)
            return None if supports is None else Verdict(found["correct"], supports)
    return None


def _supports(claims: object, shown: int, *, turned: bool) -> tuple[frozenset[int], ...] | None:
    if not isinstance(claims, list) or not 0 < len(claims) <= _CLAIMS:
        return None
    found = []
    for claim in claims:
        texts = claim.get("texts") if isinstance(claim, dict) else None
        if not isinstance(texts, list):
            return None
        numbers = (n for n in texts if type(n) is int and 0 < n <= shown)
        found.append(frozenset(shown + 1 - n if turned else n for n in numbers))
    return tuple(found)


class Agreement(TypedDict):
    """Of yes and no, over `n` answers."""

    n: int
    agree: Figure
    kappa: float | None
    """Cohen's; None where one side always says the same."""
    judge_alone: int
    """Yes of the judge, and no of the other."""
    other_alone: int


class Judged(TypedDict):
    """judge.json, beside where it was asked and what that took. Over the `n` answers with a verdict."""

    n: int
    failed: int
    """Answers of which the judge wrote nothing that could be read, or that it refused: in no figure."""
    refused: int
    """Refusals, which aren't judged: in no figure."""
    correct: Figure | None
    supported: Figure | None
    """The share of an answer's claims that a text supports."""
    citation_recall: Figure | None
    citation_precision: Figure | None
    with_metric: Agreement | None
    """With the headline: `other` is right by it."""
    again: Agreement | None
    """With itself (`other`), asked once more about some answers, the texts in the opposite order."""
    again_failed: int


def judged(
    first: Mapping[str, Verdict | None],
    second: Mapping[str, Verdict | None],
    right: Mapping[str, bool],
    cited: Mapping[str, Sequence[int]] | None,
    seed: int,
) -> Judged:
    """The figures of a judge's verdicts.

    Args:
        first: by qid; None where it failed.
        second: the same, of those that it was asked about once more.
        right: whether each answer is right by the headline metric.
        cited: the numbers that each answer cites; None where there are no citations.
        seed: of the draws.
    """
    one = {qid: verdict for qid, verdict in first.items() if verdict is not None}
    two = {q: v for q, v in second.items() if v is not None and q in one}
    both = [(one[qid], verdict) for qid, verdict in two.items()]

    def figure(value: dict[str, float], other: dict[str, float]) -> Figure | None:
        changes = [other[qid] - value[qid] for qid in other]
        return with_doubt([*value.values()], changes, seed)

    def of(name: str) -> Figure | None:
        values = ({q: float(getattr(v, name)) for q, v in side.items()} for side in (one, two))
        return figure(*values)

    def citing(name: str) -> Figure | None:
        if cited is None:
            return None
        values = ({q: getattr(v, name)(cited[q]) for q, v in side.items()} for side in (one, two))
        return figure(*values)

    return {
        "n": len(one),
        "failed": len(first) - len(one),
        "refused": 0,
        "correct": of("correct"),
        "supported": of("supported"),
        "citation_recall": citing("recall"),
        "citation_precision": citing("precision"),
        "with_metric": _agreement([(v.correct, right[q]) for q, v in one.items()], seed),
        "again": _agreement([(a.correct, b.correct) for a, b in both], seed),
        "again_failed": sum(q in one and v is None for q, v in second.items()),
    }


def with_doubt(values: Sequence[float], changes: Sequence[float], seed: int) -> Figure | None:
    """A mean from 0 to 1 and its 95 % interval, in which the judge's disagreement with itself is.

    Which of two askings is taken is chance: half of the draws are of the first one, and half of the second:
    the first's mean and that of the changes, each drawn anew. Without changes it is `figures`' interval.

    Args:
        values: one an answer.
        changes: the second verdict less the first, of the answers that were judged twice.
        seed: of the draws.
    """
    if not values:
        return None
    found = figures({"value": values}, seed)["value"]
    if not changes:
        return found
    generator = np.random.default_rng(seed)

    def means(of: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        data = np.asarray(of, dtype=np.float64)
        return np.asarray([generator.choice(data, len(data)).mean() for _ in range(SAMPLES)])

    drawn = means(values)
    drawn[::2] += means(changes)[::2]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.clip(np.quantile(drawn, [tail, 1 - tail]), 0, 1).tolist()
    if np.ptp(values) < ALIKE:  # draws of these are all the same, and say nothing of other answers
        low, high = min(low, found["low"]), max(high, found["high"])
    return {"value": found["value"], "low": low, "high": high}


def _agreement(pairs: Sequence[tuple[bool, bool]], seed: int) -> Agreement | None:
    """Of the judge with another."""
    if not pairs:
        return None
    n = len(pairs)
    judge, other = (sum(column) / n for column in zip(*pairs, strict=True))
    chance = judge * other + (1 - judge) * (1 - other)
    agree = figures({"agree": [float(a == b) for a, b in pairs]}, seed)["agree"]
    return {
        "n": n,
        "agree": agree,
        "kappa": None if chance == 1 else (agree["value"] - chance) / (1 - chance),
        "judge_alone": sum(a and not b for a, b in pairs),
        "other_alone": sum(b and not a for a, b in pairs),
    }
