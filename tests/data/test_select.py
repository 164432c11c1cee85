"""Which examples are used, which passages are shown, which answer is trained."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragtune.data.example import Example, Passage
from ragtune.data.select import REASONS, drawn, rejection, shown_passages, target_answer
from ragtune.recipe.data import Data
from ragtune.recipe.load import load_recipe


def example(
    positive: tuple[int, ...] = (0,),
    answers: tuple[str, ...] = ("a",),
    qid: str = "q",
    count: int = 6,
) -> Example:
    passages = tuple(Passage(f"text {i}") for i in range(count))
    return Example(qid, "?", answers, passages, positive, ())


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (example(positive=(0,)), None),
        (example(positive=(2,)), None),
        (example(positive=(5, 2)), None),
        (example(positive=(3,)), "positive_too_low"),
        (example(positive=()), "no_positive"),
        (example(answers=()), "no_answer"),
        (example(answers=(), positive=()), "no_answer"),
    ],
)
def test_an_example_is_selected_by_a_positive_among_the_first_three(
    one: Example, reason: str | None
) -> None:
    assert rejection(one, max_passages=3) == reason
    assert reason is None or reason in REASONS


@given(st.lists(st.integers(0, 99), unique=True).map(sorted), st.integers(1, 100))
def test_the_rule_is_the_notebook_s(positive: list[int], max_passages: int) -> None:
    notebook = len(positive) != 0 and positive[0] < max_passages  # cell 6
    one = example(positive=tuple(positive), count=100)
    assert (rejection(one, max_passages) is None) == notebook


def shown(one: Example, count: int, *, shuffle: bool, seed: int) -> tuple[Passage, ...]:
    data = {"train": "x", "eval": "x", "max_passages": count, "shuffle_passages": shuffle}
    recipe = {"name": "x", "seed": seed, "model": {"id": "a/b"}, "data": data}
    return shown_passages(
        one, load_recipe({**recipe, "prompt": {"preset": "aio"}, "train": {"steps": 1}})
    )


def test_the_first_passages_are_shown_as_retrieved() -> None:
    one = example()
    assert shown(one, 3, shuffle=False, seed=1) == one.passages[:3]
    assert shown(one, 99, shuffle=False, seed=1) == one.passages


@given(st.integers(1, 8), st.integers(0, 2**32 - 1), st.text(max_size=5))
def test_shuffling_changes_the_order_alone(count: int, seed: int, qid: str) -> None:
    one = example(qid=qid)
    found = shown(one, count, shuffle=True, seed=seed)
    assert Counter(found) == Counter(one.passages[:count])
    assert found == shown(one, count, shuffle=True, seed=seed)


def test_shuffling_does_not_depend_on_the_order_of_the_file_or_on_what_is_left_out() -> None:
    examples = [example(qid=f"q{i}") for i in range(20)]
    before = {e.qid: shown(e, 4, shuffle=True, seed=7) for e in examples}
    random.shuffle(examples)
    for one in examples[:10]:
        prepared = one.first_passages(4)  # as train.jsonl has it
        assert shown(prepared, 4, shuffle=True, seed=7) == before[one.qid]


def test_the_shuffle_is_this_one_on_every_machine() -> None:
    found = shown(example(qid="q1"), 5, shuffle=True, seed=42)
    assert [p.text[-1] for p in found] == list("34012")


def test_seed_and_qid_change_the_shuffle() -> None:
    orders = {
        shown(example(qid=f"q{i}"), 6, shuffle=True, seed=seed)
        for i in range(4)
        for seed in range(4)
    }
    assert len(orders) > 12


def data(target: str = "first", refusal: str | None = None) -> Data:
    return Data(train="x", eval="x", target=target, refusal=refusal)


def test_an_example_without_an_answer_is_trained_to_be_refused() -> None:
    assert target_answer(example(answers=()), data(refusal="No answer."), 1) == "No answer."


def test_the_target_is_the_first_answer_or_one_drawn_by_seed_and_qid() -> None:
    answers = ("a", "b", "c")
    assert target_answer(example(answers=answers), data(), 1) == "a"
    drawn = [
        target_answer(example(answers=answers, qid=f"q{i}"), data(target="random"), 1)
        for i in range(60)
    ]
    assert set(drawn) == set(answers)
    assert drawn == [
        target_answer(example(answers=answers, qid=f"q{i}"), data(target="random"), 1)
        for i in range(60)
    ]
    assert drawn != [
        target_answer(example(answers=answers, qid=f"q{i}"), data(target="random"), 2)
        for i in range(60)
    ]


def test_fewer_are_a_part_of_more() -> None:
    every: Any = [f"q{i}" for i in range(50)]
    few, more = drawn(every, 5, "lot 1"), drawn(every, 20, "lot 1")
    assert set(few) < set(more)
    assert more == sorted(more, key=every.index)
    assert drawn(every, 5, "lot 2") != few
    assert drawn(every, 99, "lot 1") == every
