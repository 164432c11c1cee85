from __future__ import annotations

import numpy as np
import pytest

from ragtune.evaluation.compare import bootstrap, compare


def test_interval_of_a_rate_is_near_the_normal_one() -> None:
    values = [1.0] * 40 + [0.0] * 60
    found = bootstrap(values, seed=1)
    error = 1.96 * np.sqrt(0.4 * 0.6 / 100)
    assert found["value"] == pytest.approx(0.4)
    assert found["low"] == pytest.approx(0.4 - error, abs=0.015)
    assert found["high"] == pytest.approx(0.4 + error, abs=0.015)


def test_it_is_seeded() -> None:
    values = np.random.default_rng(0).normal(size=50).tolist()
    assert bootstrap(values, seed=3) == bootstrap(values, seed=3)
    assert bootstrap(values, seed=3) != bootstrap(values, seed=4)


def test_the_interval_is_paired() -> None:
    """Two raters that always agree have no uncertain difference, however uncertain each is."""
    same = {"strict_em": [0.0, 1.0] * 50}
    found = compare(same, same, [("a", "a")] * 100, metric="strict_em", seed=1)
    assert found["difference"]["strict_em"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert found["intervals"]["before"]["strict_em"]["high"] > 0.55


def test_fixed_broken_and_changed_are_counted() -> None:
    before = {"strict_em": [0.0, 0.0, 1.0, 1.0, 0.0]}
    after = {"strict_em": [1.0, 1.0, 0.0, 1.0, 0.0]}
    texts = [("a", "b"), ("a", "b"), ("a", "b"), ("a", "a"), ("a", "b")]
    found = compare(before, after, texts, metric="strict_em", seed=1)
    assert (found["n"], found["fixed"], found["broken"], found["changed"]) == (5, 2, 1, 4)
    assert found["before"]["strict_em"] == pytest.approx(0.4)
    assert found["after"]["strict_em"] == pytest.approx(0.6)
    assert found["difference"]["strict_em"]["value"] == pytest.approx(0.2)
