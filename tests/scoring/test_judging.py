"""What is read of a judge's words, and the figures of its verdicts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ragtune.scoring.judging import Verdict, judged, read_verdict, with_doubt


def words(correct: Any, *texts: Any) -> str:
    return json.dumps({"correct": correct, "claims": [{"claim": "x", "texts": t} for t in texts]})


def verdict(correct: bool, *texts: int) -> Verdict:
    return Verdict(correct, (frozenset(texts),))


@pytest.mark.parametrize(
    ("text", "correct", "supports"),
    [
        (words(True, [1, 3]), True, ({1, 3},)),
        (f"Well {{then}}:\n```json\n{words(False, [2], [])}\n```", False, ({2}, set())),
        (words(True, [0, 4, 3, True, "1", 2.0]), True, ({3},)),  # of three texts
    ],
)
def test_a_verdict(text: str, correct: bool, supports: tuple[set[int], ...]) -> None:
    assert read_verdict(text, 3) == Verdict(correct, tuple(map(frozenset, supports)))


def test_texts_in_the_opposite_order() -> None:
    assert read_verdict(words(True, [1]), 3, turned=True) == verdict(True, 3)


@pytest.mark.parametrize(
    "text",
    [
        "", "yes", "{", words("true", [1]), words(1, [1]), words(True), words(True, None),
        '{"correct": true}', '{"correct": true, "claims": {}}', '{"correct": true, "claims": ["x"]}',
        "{" * 5000, words(True, *([[1]] * 101)),
    ],
)  # fmt: skip
def test_what_is_no_verdict(text: str) -> None:
    assert read_verdict(text, 3) is None


def test_claims_and_citations() -> None:
    one = Verdict(True, (frozenset({1}), frozenset(), frozenset({2, 3}), frozenset({3})))
    assert one.supported == 0.75
    assert (one.recall([2]), one.precision([2])) == (0.25, 1)
    assert (one.recall([1, 3, 9]), one.precision([1, 3, 9])) == (0.75, pytest.approx(2 / 3))
    assert (one.recall([]), one.precision([])) == (0, 0)


def test_figures_by_hand() -> None:
    first = {"a": verdict(True, 1), "b": verdict(True), "c": verdict(False, 2), "d": None}
    second = {"a": verdict(False, 1), "b": verdict(True), "c": None, "d": verdict(True)}
    right = {"a": True, "b": False, "c": False, "d": True}
    cited = {"a": (1,), "b": (1,), "c": (1, 2), "d": ()}
    found = judged(first, second, right, cited, 1)
    assert (found["n"], found["failed"], found["again_failed"]) == (3, 1, 1)
    values = {
        key: figure["value"]
        for key in ("correct", "supported", "citation_recall", "citation_precision")
        if (figure := found[key]) is not None  # type: ignore[literal-required]
    }
    assert values == {
        "correct": pytest.approx(2 / 3), "supported": pytest.approx(2 / 3),
        "citation_recall": pytest.approx(2 / 3), "citation_precision": pytest.approx(0.5),
    }  # fmt: skip
    metric, again = found["with_metric"], found["again"]
    assert metric is not None
    assert (metric["n"], metric["judge_alone"], metric["other_alone"]) == (3, 1, 0)
    assert metric["agree"]["value"] == pytest.approx(2 / 3)
    assert metric["kappa"] == pytest.approx((2 / 3 - 4 / 9) / (1 - 4 / 9))
    assert again is not None
    assert (again["n"], again["judge_alone"], again["other_alone"]) == (2, 1, 0)
    assert judged(first, {}, right, None, 1)["citation_recall"] is None
    assert judged({"d": None}, {}, right, None, 1)["correct"] is None


def test_one_side_that_always_says_the_same_has_no_kappa() -> None:
    same = {"a": verdict(True), "b": verdict(True)}
    found = judged(same, {}, {"a": True, "b": True}, None, 1)["with_metric"]
    assert found is not None
    assert (found["agree"]["value"], found["kappa"]) == (1, None)


def test_the_interval_has_the_judges_disagreement_in_it() -> None:
    values = [1.0, 0.0] * 200
    sure = with_doubt(values, [], 1)
    alike = with_doubt(values, [0.0] * 50, 1)
    stricter = with_doubt(values, [-1.0, 0, 0, 0] * 25, 1)
    assert sure is not None
    assert alike is not None
    assert stricter is not None
    assert alike["low"] == pytest.approx(sure["low"], abs=0.01)
    assert alike["high"] == pytest.approx(sure["high"], abs=0.01)
    assert stricter["value"] == sure["value"] == 0.5
    assert stricter["low"] < 0.25
    assert sure["low"] > 0.44
    assert stricter["high"] > 0.53
    assert with_doubt([], [], 1) is None


@pytest.mark.parametrize("changes", [[], [0.0] * 4, [0.0, 0, 0, 0, 0, 0, 0, 0, 0, -0.1]])
def test_answers_that_are_all_right_are_not_known_to_be_right_always(changes: list[float]) -> None:
    """All of twelve: from 0.025^(1/12), whatever little the judge says otherwise the second time."""
    found = with_doubt([1.0] * 12, changes, 1)
    assert found == pytest.approx({"value": 1, "low": 0.735352, "high": 1}, abs=1e-6)
