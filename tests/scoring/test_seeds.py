from __future__ import annotations

import random

import pytest

from ragtune.scoring.seeds import halved, is_better, less, missing, on_shared, ranked, spread_of


def values(rate: float, seed: int, n: int = 400) -> dict[str, float]:
    draw = random.Random(f"{rate}:{seed}")
    return {f"q{i}": float(draw.random() < rate) for i in range(n)}


def test_one_seed_is_the_bootstrap_alone_and_never_better() -> None:
    found = spread_of({1: values(0.5, 1)}, 1)
    assert found is not None
    assert found["deviation"] is None
    assert 0.08 < found["figure"]["high"] - found["figure"]["low"] < 0.11  # ± 1.96 · 0.5 / 20
    assert not is_better(less({1: values(0.9, 1)}, {1: values(0.1, 1)}, 1))


def test_the_seeds_spread_widens_the_interval_by_students_t() -> None:
    equal = {seed: {"a": 1.0, "b": 0.0} for seed in (1, 2, 3)}
    means = {1: {"a": 0.4, "b": 0.4}, 2: {"a": 0.5, "b": 0.5}, 3: {"a": 0.6, "b": 0.6}}
    found = spread_of(means, 1)
    assert found is not None
    assert found["deviation"] == pytest.approx(0.1)
    # Of the seeds t(0.975, 2) · 0.1 / √3. Both questions have the mean 0.5, so others could have it in a share
    # of 1 - 0.025^(1/2) less, and be 0.5 away.
    seeds, questions = 4.302653 * 0.1 / 3**0.5, 0.841886 * 0.5
    assert found["figure"]["high"] - 0.5 == pytest.approx((seeds**2 + questions**2) ** 0.5)
    same = spread_of(equal, 1)
    assert same is not None
    assert same["deviation"] == 0


def test_no_interval_reaches_beyond_what_a_figure_can_be() -> None:
    """Two seeds make Student's t so wide that it would say -18 … 108 %."""

    def rising(first: int, second: int) -> dict[int, dict[str, float]]:
        rates = {1: first, 2: second}
        return {
            seed: {f"q{i}": float(i % 10 < rate) for i in range(200)}
            for seed, rate in rates.items()
        }

    found = spread_of(rising(4, 5), 1)
    assert found is not None
    assert found["figure"] == {"value": pytest.approx(0.45), "low": 0, "high": 1}
    difference = less(rising(7, 3), rising(4, 5), 1)
    assert difference is not None
    assert difference["figure"] == {"value": pytest.approx(0.05), "low": -1, "high": 1}


def test_a_difference_is_paired_by_question_and_seed() -> None:
    """Two points whose seeds differ much, but alike: what is between them is sure all the same."""
    low = {seed: {f"q{i}": float(i % 10 < seed) for i in range(200)} for seed in (3, 5, 7)}
    high = {seed: {f"q{i}": float(i % 10 < seed + 1) for i in range(200)} for seed in (3, 5, 7)}
    found = less(high, low, 1)
    assert found is not None
    assert found["figure"]["value"] == pytest.approx(0.1)
    assert found["deviation"] == pytest.approx(0)
    assert is_better(found)
    assert not is_better(less(low, high, 1))


@pytest.mark.parametrize(("n", "better"), [(1, False), (5, False), (6, True)])
def test_a_few_questions_that_are_all_better_make_no_winner(n: int, better: bool) -> None:
    """n is the questions', however many seeds: 1 - 2 (1 - 0.025^(1/n)) is -0.04 of five and 0.08 of six."""
    right, wrong = ({seed: dict.fromkeys(range(n), v) for seed in (1, 2, 3)} for v in (1.0, 0.0))
    assert is_better(less(right, wrong, 1)) is better  # type: ignore[arg-type]
    same = less(right, right, 1)  # type: ignore[arg-type]
    assert same is not None
    assert same["figure"]["low"] == -same["figure"]["high"] < -0.4


def test_what_a_seed_changes_by_chance_makes_no_winner() -> None:
    one = {seed: values(0.5, seed) for seed in (1, 2, 3)}
    other = {seed: values(0.5, seed + 10) for seed in (1, 2, 3)}
    assert not is_better(less(one, other, 1))
    assert not is_better(less(other, one, 1))


def test_only_common_questions_and_seeds_count() -> None:
    one = {1: {"a": 1.0, "b": 0.0}, 2: {"a": 1.0}}
    found = spread_of(one, 1)
    assert found is not None
    assert found["n"] == 1
    assert less(one, {3: {"a": 0.0}}, 1) is None
    assert spread_of({}, 1) is None


def test_the_better_half_goes_on_and_never_fewer_than_two() -> None:
    points = {
        name: {1: {"a": rate}} for name, rate in (("x", 0.1), ("y", 0.3), ("z", 0.2), ("failed", 0))
    }
    points["failed"] = {}
    assert ranked(points, [1]) == ["y", "z", "x"]
    assert halved(["a", "b", "c", "d", "e"]) == ["a", "b", "c"]
    assert halved(["a", "b", "c"]) == ["a", "b"]
    assert halved(["a", "b"]) == ["a", "b"]
    assert halved(["a"]) == ["a"]


def test_points_are_ranked_over_what_all_were_asked() -> None:
    """One that selects only what is easy is not the best for that."""
    easy = {1: {"a": 0.9}}
    whole = {1: {"a": 1.0, "hard": 0.0}}
    assert ranked({"easy": easy, "whole": whole}, [1]) == ["whole", "easy"]
    assert on_shared({"easy": easy, "whole": whole, "failed": {}}) == {
        "easy": easy,
        "whole": {1: {"a": 1.0}},
    }
    assert ranked({"easy": easy, "other": {1: {"b": 1.0}}}, [1]) == []


def test_a_point_that_misses_a_seed_comes_last() -> None:
    """Its survivor may be the better for what is missing."""
    points = {"survivor": {1: {"a": 1.0}}, "whole": {1: {"a": 0.4}, 2: {"a": 0.4}}}
    assert missing(points["survivor"], [1, 2]) == [2]
    assert ranked(points, [1, 2]) == ["whole", "survivor"]
    assert ranked(points, [1]) == ["survivor", "whole"]
