"""The model's probability against what is right: by hand where that can be counted, else by chance."""

from __future__ import annotations

import random

import pytest

from ragtune.scoring.confidence import confidence_of


def test_bins_error_and_coverage_by_hand() -> None:
    found = confidence_of([0.95, 0.85, 0.82, 0.12, 1.0], [1, 1, 0, 0, 1], 7)
    assert found is not None
    bins = {round(one["low"], 1): one for one in found["bins"]}
    assert {low: one["n"] for low, one in bins.items()} == {0.1: 1, 0.8: 2, 0.9: 2}
    assert bins[0.8]["probability"] == pytest.approx(0.835)
    assert bins[0.8]["right"] == 0.5
    # Of five answers: two lie 2 x 0.335 apart, two 2 x 0.025, one 0.12.
    assert found["ece"]["value"] == pytest.approx((0.67 + 0.05 + 0.12) / 5)
    assert found["ece"]["low"] <= found["ece"]["value"]
    right = {
        one["coverage"]: (one["n"], one["right"]["value"], one["least"])
        for one in found["coverages"]
    }
    assert right[1.0] == (5, pytest.approx(0.6), 0.12)
    assert right[0.5] == (2, 1.0, 0.95)


def test_without_probabilities_nothing_is_said() -> None:
    assert confidence_of([], [], 7) is None


def test_who_says_how_often_it_is_right_has_no_error_to_speak_of() -> None:
    draw = random.Random(1)
    sure = [draw.random() for _ in range(5000)]
    honest = confidence_of(sure, [float(draw.random() < p) for p in sure], 7)
    boasting = confidence_of([1.0] * 5000, [float(draw.random() < 0.3) for _ in sure], 7)
    assert honest is not None
    assert boasting is not None
    assert honest["ece"]["value"] < 0.02
    assert boasting["ece"]["low"] < 0.7 < boasting["ece"]["high"]
    shares = [one["right"]["value"] for one in honest["coverages"]]
    assert shares == sorted(shares)  # the surer, the more often right
    assert honest == confidence_of(sure, [float(v) for v in _again(sure)], 7)


def _again(sure: list[float]) -> list[bool]:
    draw = random.Random(1)
    _ = [draw.random() for _ in range(5000)]
    return [draw.random() < p for p in sure]


@pytest.mark.parametrize(
    ("sure", "right", "n", "value", "low", "high"),
    [
        (1.0, 1.0, 12, 0.0, 0.0, 0.264648),  # all sure and right: 1 - 0.025^(1/12)
        (1.0, 0.0, 12, 1.0, 1 - 2 * 0.264648, 1.0),
        (0.9, 1.0, 1, 0.1, 0.0, 0.1 + 0.975 * 0.9),
    ],
)
def test_an_error_that_no_draw_changes_is_bounded_by_hand(
    sure: float, right: float, n: int, value: float, low: float, high: float
) -> None:
    found = confidence_of([sure] * n, [right] * n, 7)
    assert found is not None
    assert found["ece"] == pytest.approx({"value": value, "low": low, "high": high}, abs=1e-6)
    every = found["coverages"][0]["right"]
    assert every["high"] - every["low"] == pytest.approx(0.264648 if n == 12 else 0.975, abs=1e-6)


def test_the_best_threshold_by_hand() -> None:
    """Given right, a refusal, wrong, right, wrong, the surest first."""
    sure, crag = [0.9, 0.8, 0.7, 0.6, 0.1], [1.0, 0.0, -1.0, 1.0, -1.0]
    found = confidence_of(sure, [1, 0, 0, 1, 0], 7, crag)
    assert found is not None
    assert found["refuse_below"] == {"value": 0.9, "answered": 0.2, "crag": 0.2}
    found = confidence_of(sure, [1, 0, 1, 1, 0], 7, [1.0, 0.0, 1.0, 1.0, -1.0])
    assert found is not None
    assert found["refuse_below"] == {"value": 0.6, "answered": 0.8, "crag": 0.6}
    # Five more were refused: both figures are over all that were asked.
    found = confidence_of(sure, [1, 0, 1, 1, 0], 7, [1.0, 0.0, 1.0, 1.0, -1.0], left_out=5)
    assert found is not None
    assert found["refuse_below"] == {"value": 0.6, "answered": 0.4, "crag": 0.3}
    found = confidence_of([0.9], [0], 7, [-1.0])  # to refuse everything is better
    assert found is not None
    assert found["refuse_below"] == {"value": 1.0, "answered": 0.0, "crag": 0.0}
    assert "refuse_below" not in (confidence_of([0.9], [0], 7) or {})


def test_what_a_threshold_refused_is_left_out_and_counted() -> None:
    found = confidence_of([0.9, 0.8], [1, 0], 7, left_out=3)
    assert found is not None
    assert (found["n"], found["left_out"]) == (2, 3)
    assert "left_out" not in (confidence_of([0.9], [0], 7) or {})
