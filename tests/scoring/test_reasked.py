"""When a model that was asked again is not the one that was measured."""

from __future__ import annotations

from typing import Any

import pytest

from ragtune.data.example import Example, parse_example
from ragtune.recipe.load import load_recipe
from ragtune.reporting.wording import asked_again
from ragtune.scoring.reasked import Reasked, is_other, reasked
from ragtune.scoring.score import Answers
from tests.conftest import make_records


@pytest.fixture
def examples() -> list[Example]:
    return [parse_example(r | {"selected": True}, "here") for r in make_records(100, "e")]


def again(recipe: dict[str, Any], examples: list[Example], own: str, other: str) -> Reasked:
    """What is found where the i-th letter of each side says whether its answer is right (x)."""
    sides = (
        Answers(
            {e.qid: e.answers[0] if x == "x" else "no" for e, x in zip(examples, side, strict=True)}
        )
        for side in (own, other)
    )
    return reasked(load_recipe(recipe), examples, *sides)


@pytest.mark.parametrize(
    ("fixed", "broken", "right", "wrong", "other"),
    [
        (0, 0, 60, 40, False),
        (3, 5, 57, 35, False),
        (0, 5, 60, 35, True),  # within the run's own interval, and yet surely worse
        (5, 0, 60, 35, True),  # and better
        (10, 18, 72, 0, True),  # so much changed that the paired interval holds zero
        (0, 1, 99, 0, True),  # where every answer was right
        (1, 0, 0, 99, True),  # or every one wrong
    ],
)
def test_what_is_not_what_was_measured(
    tiny_recipe: dict[str, Any],
    examples: list[Example],
    fixed: int,
    broken: int,
    right: int,
    wrong: int,
    other: bool,
) -> None:
    own = "." * fixed + "x" * broken + "x" * right + "." * wrong
    new = "x" * fixed + "." * broken + "x" * right + "." * wrong
    found = again(tiny_recipe, examples, own, new)
    assert (found["asked"], found["changed"], found["n"]) == (100, fixed + broken, 100)
    assert is_other(found) is other
    said = asked_again("The merged model", found)
    assert said.startswith("The merged model is not what was measured: it gives") is other


def test_some_of_the_questions(tiny_recipe: dict[str, Any], examples: list[Example]) -> None:
    own = Answers({e.qid: e.answers[0] for e in examples})
    found = reasked(
        load_recipe(tiny_recipe), examples, own, Answers({examples[3].qid: examples[3].answers[0]})
    )
    assert (found["asked"], found["changed"], found["n"]) == (1, 0, 1)
    assert found["own"] == found["again"]


def test_where_no_question_counts_nothing_is_said_of_the_score(
    tiny_recipe: dict[str, Any], examples: list[Example]
) -> None:
    for example in examples:
        example.extra["selected"] = False
    found = again(tiny_recipe, examples, "x" * 100, "." * 100)
    assert not is_other(found)
    assert asked_again("The GGUF file", found) == (
        "The GGUF file gives 100 of 100 answers otherwise than the run itself."
    )
