"""Before against after on the same questions, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

SAMPLES = 10_000
CONFIDENCE = 0.95


def bootstrap(values: Sequence[float], seed: int, samples: int = SAMPLES) -> dict[str, float]:
    """The mean of values and its 95 % percentile interval, questions drawn with replacement.

    Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapter 13. For a difference, pass
    the differences of the pairs: that is the paired interval.

    Returns:
        {value, low, high}
    """
    array = np.asarray(values, dtype=np.float64)
    generator = np.random.default_rng(seed)
    # Only how often each distinct value is drawn matters, and scores have few distinct values.
    distinct, counts = np.unique(array, return_counts=True)
    drawn = generator.multinomial(len(array), counts / len(array), size=samples)
    means = drawn @ distinct / len(array)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return {"value": float(array.mean()), "low": float(low), "high": float(high)}


def compare(
    before: dict[str, list[float]],
    after: dict[str, list[float]],
    texts: Sequence[tuple[str, str]],
    *,
    metric: str,
    seed: int,
) -> dict[str, Any]:
    """What tuning changed.

    Args:
        before: each metric's values, one a question.
        after: the same questions, tuned.
        texts: the two predictions of each question.
        metric: by which `fixed` (wrong, then right) and `broken` are counted.
        seed: of the bootstrap.
    """
    n = len(texts)
    changes = [a - b for a, b in zip(after[metric], before[metric], strict=True)]
    return {
        "n": n,
        "metric": metric,
        "before": {m: float(np.mean(v)) for m, v in before.items()},
        "after": {m: float(np.mean(v)) for m, v in after.items()},
        "difference": {
            m: bootstrap([a - b for a, b in zip(after[m], before[m], strict=True)], seed)
            for m in before
        },
        "intervals": {
            "before": {m: bootstrap(v, seed) for m, v in before.items()},
            "after": {m: bootstrap(v, seed) for m, v in after.items()},
        },
        "fixed": sum(c > 0 for c in changes),
        "broken": sum(c < 0 for c in changes),
        "changed": sum(a != b for a, b in texts),
    }
