"""Two logs of the same questions, metric by metric."""

from __future__ import annotations

import math

import pytest
from scipy.stats import binomtest

from ragtune.scoring.paired import paired

NAN = math.nan


def test_a_metric_of_0_and_1_is_tested_by_its_pairs() -> None:
    first = {"acc": {str(i): float(i < 10) for i in range(40)}}
    second = {"acc": {str(i): float(i < 8 or i >= 30) for i in range(40)}}
    (found,) = paired(first, second)
    assert (found["n"], found["higher"], found["lower"], found["missing"]) == (40, 10, 2, 0)
    assert found["mcnemar_p"] == pytest.approx(binomtest(10, 12).pvalue)
    assert found["first"]["value"] == 0.25
    assert found["second"]["value"] == 0.45
    assert found["difference"]["value"] == pytest.approx(0.2)
    assert found["difference"]["low"] < 0.2 < found["difference"]["high"]


def test_the_interval_is_that_of_the_pairs() -> None:
    column = {str(i): float(i % 2) for i in range(100)}
    (found,) = paired({"acc": column}, {"acc": column})
    assert found["difference"] == pytest.approx(
        {"value": 0, "low": -0.036217, "high": 0.036217}, abs=1e-6
    )
    assert found["mcnemar_p"] == 1


def test_a_metric_that_never_differs_is_not_known_to_be_equal() -> None:
    """Of three questions 1 - 0.025^(1/3) = 0.7076 could differ, by as much as was seen of the metric."""
    full = dict.fromkeys("abc", 10.0)
    error = {"a": 0.5, "b": 2.0, "c": 0.0}
    score, cer = paired({"score": full, "cer": error}, {"score": full, "cer": error})
    ends = [score[side][end] for side in ("first", "difference") for end in ("low", "high")]  # type: ignore[literal-required]
    assert ends == pytest.approx([10 - 7.07598, 10, -7.07598, 7.07598], abs=1e-5)
    assert cer["difference"] == pytest.approx(
        {"value": 0, "low": -1.415196, "high": 1.415196}, abs=1e-6
    )


def test_a_graded_metric_has_no_mcnemar_and_says_whether_it_is_a_share() -> None:
    f1, score = paired(
        {"f1": {"a": 0.5, "b": 1.0}, "score": {"a": 7.0, "b": 3.0}},
        {"f1": {"a": 0.25, "b": 1.0}, "score": {"a": 9.0, "b": 3.0}},
    )
    assert (f1["mcnemar_p"], f1["rate"], f1["higher"], f1["lower"]) == (None, True, 0, 1)
    assert (score["mcnemar_p"], score["rate"], score["higher"], score["lower"]) == (
        None,
        False,
        1,
        0,
    )


def test_a_question_without_a_value_on_one_side_is_left_out_and_counted() -> None:
    (found,) = paired(
        {"judge": {"a": 1.0, "b": NAN, "c": 0.0}, "mine": {"a": 1.0}},
        {"judge": {"a": 1.0, "b": 1.0, "d": 1.0}, "none": {"a": 1.0}},
    )
    assert (found["metric"], found["n"], found["missing"]) == ("judge", 1, 3)


def test_a_metric_without_a_pair_of_values_is_none() -> None:
    assert paired({"judge": {"a": NAN}}, {"judge": {"a": 1.0}}) == []
