"""Intervals of many columns: all of the same draws, which are made once."""

from __future__ import annotations

import numpy as np
import pytest

from ragtune.scoring import statistics
from ragtune.scoring.statistics import figures


def test_tables_of_the_same_questions_share_their_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """And are what they are without: a column beside others, or where draws are not kept."""
    made: list[int] = []
    original = np.random.default_rng
    monkeypatch.setattr(
        np.random, "default_rng", lambda seed: (made.append(seed), original(seed))[1]
    )
    columns = {n: [float(i % (n + 2)) for i in range(50)] for n in range(4)}
    whole = figures(columns, 77)
    assert [figures({n: column}, 77)[n] for n, column in columns.items()] == [*whole.values()]
    assert made == [77]
    monkeypatch.setattr(statistics, "_MOST_KEPT", 49)
    statistics._interval.cache_clear()
    assert figures(columns, 77) == whole
    assert made == [77, 77]
