"""Intervals of many columns, of the same draws, which are made once; and where every question is the same."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from ragtune.scoring import statistics
from ragtune.scoring.statistics import DIFFERENCE, Bounds, figures, rate_of


def test_tables_of_the_same_questions_share_their_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """And are what they are without: a column beside others, or where draws are not kept."""
    made: list[int] = []
    original = np.random.default_rng
    statistics._kept_draws.cache_clear()
    statistics._interval.cache_clear()
    monkeypatch.setattr(
        np.random, "default_rng", lambda seed: (made.append(seed), original(seed))[1]
    )
    columns = {n: [float(i % (n + 2)) for i in range(50)] for n in range(4)}
    whole = figures(columns, 77)
    assert [figures({n: column}, 77)[n] for n, column in columns.items()] == [*whole.values()]
    assert made == [77]
    others = {"parts": [1.0, 0.0] * 12}  # of fewer questions, as a report has beside them
    figures(others, 77)
    assert figures({"again": columns[3][::-1]}, 77)["again"]["value"] == whole[3]["value"]
    assert made == [77, 77]
    assert sum(draws.nbytes for draws in statistics._kept_draws(50, 77)) == 50 * statistics.SAMPLES
    monkeypatch.setattr(statistics, "_MOST_KEPT", 49)
    statistics._interval.cache_clear()
    assert figures(columns, 77) == whole
    assert made == [77, 77, 77]


@pytest.mark.parametrize(
    ("value", "n", "bounds", "low", "high"),
    [
        (0.0, 6, (0, 1), 0.0, 0.459258),  # none of six: 1 - 0.025^(1/6)
        (1.0, 12, (0, 1), 0.735352, 1.0),  # all of twelve: 0.025^(1/12)
        (1.0, 1, (0, 1), 0.025, 1.0),
        (0.5, 2, (0, 1), 0.5 - 0.841886 / 2, 0.5 + 0.841886 / 2),  # half a share either way
        (0.0, 3, (-1, 1), -0.707598, 0.707598),  # no question differs
        (1.0, 3, (-1, 1), 1 - 2 * 0.707598, 1.0),  # each was fixed: zero is not excluded
        (1.0, 6, (-1, 1), 1 - 2 * 0.459258, 1.0),  # and here it is, as by McNemar's p, 2 / 2^6
        (-1.0, 5, (-1, 1), -1.0, -1 + 2 * 0.521824),  # CRAG's score: all are wrong
        (0.0, 5, (-2, 2), -2 * 0.521824, 2 * 0.521824),  # and its difference
    ],
)
def test_the_same_value_everywhere_is_bounded_by_hand(
    value: float, n: int, bounds: Bounds, low: float, high: float
) -> None:
    found = figures({"x": [value] * n}, 1, bounds)["x"]
    assert found["value"] == value
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=1e-6)


@pytest.mark.parametrize("n", [1, 2, 9, 60, 318])
def test_of_none_and_of_all_the_interval_is_clopper_and_pearsons(n: int) -> None:
    for k in (0, n):
        exact = binomtest(k, n).proportion_ci()
        drawn = figures({"x": [k / n] * n}, 1)["x"]
        assert (drawn["low"], drawn["high"]) == pytest.approx((exact.low, exact.high))
        assert rate_of(k, n) == pytest.approx(drawn)


def test_values_without_known_bounds_have_no_width_where_they_are_the_same() -> None:
    assert figures({"x": [7.0] * 4}, 1, None)["x"] == {"value": 7.0, "low": 7.0, "high": 7.0}


def test_an_interval_that_has_a_width_is_that_of_the_draws_alone() -> None:
    """One of six: the share of draws without it is (5/6)^6 = 0.33, with four of it 0.008."""
    for bounds in (DIFFERENCE, (0.0, 1.0), None):
        found = figures({"x": [1.0, 0, 0, 0, 0, 0]}, 1, bounds)["x"]
        assert (found["low"], found["high"]) == pytest.approx((0, 0.5))


def test_differences_that_rounding_alone_tells_apart_are_the_same() -> None:
    values = [0.3 - 0.1, 0.2, 0.5 - 0.3]
    assert len({*values}) > 1
    found = figures({"x": values}, 1, DIFFERENCE)["x"]
    assert (found["low"], found["high"]) == pytest.approx(
        (0.2 - 0.707598 * 1.2, 0.2 + 0.707598 * 0.8), abs=1e-6
    )
