"""When a model that was asked again is not the one that was measured."""

from __future__ import annotations

from math import comb
from typing import Any

import pytest

from ragtune.data.example import Example, parse_example
from ragtune.recipe.load import load_recipe
from ragtune.reporting.wording import asked_again
from ragtune.scoring.reasked import Reasked, asked_first, is_other, reasked, settled
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
        (0, 3, 97, 0, False),  # where every answer was right, chance explains three
        (0, 4, 96, 0, True),
        (3, 0, 0, 97, False),  # or every one wrong
        (4, 0, 0, 96, True),
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


@pytest.mark.parametrize(
    ("n", "first", "tolerated"),
    [
        (1, 1, 0),
        (10, 10, 3),
        (32, 32, 5),
        (33, 32, 5),
        (100, 39, 9),
        (637, 111, 24),
        (1000, 143, 30),
    ],
)
def test_as_many_are_asked_first_as_settle_it_though_one_changes(
    n: int, first: int, tolerated: int
) -> None:
    assert asked_first(n) == first
    own = Answers({str(i): "a" for i in range(n)})

    def again(changed: int) -> Answers:
        return Answers({str(i): "b" if i < changed else "a" for i in range(first)})

    if n > first:
        # A model with one answer too many changed shows at most one of them in a twentieth of the draws.
        chances = [
            comb(tolerated + 1, i) * comb(n - tolerated - 1, first - i) / comb(n, first)
            for i in (0, 1)
        ]
        assert sum(chances) <= 0.05
        assert [settled(own, again(changed)) for changed in (0, 1, first)] == [True, True, False]


def test_what_some_answers_say_of_all(tiny_recipe: dict[str, Any], examples: list[Example]) -> None:
    own = Answers({e.qid: e.answers[0] for e in examples})
    some = Answers({e.qid: "no" if i == 0 else e.answers[0] for i, e in enumerate(examples[:39])})
    found = reasked(load_recipe(tiny_recipe), examples, own, some)
    assert (found["asked"], found["changed"], found["of"], found["at_most"]) == (39, 1, 100, 9)
    assert asked_again("The merged model", found).endswith(
        "over 39 questions): no detectable difference. 39 of 100 questions were asked again, drawn by the "
        "seed: of all, with a certainty of 95 %, at most 9 answers are otherwise."
    )
    whole = reasked(load_recipe(tiny_recipe), examples, own, own)
    assert whole["at_most"] == 0
    assert "asked again" not in asked_again("The merged model", whole)


@pytest.mark.parametrize("how", [{"copy": True}, {"orders": 2}])
def test_free_answers_against_confined_or_chosen_ones_are_not_comparable(
    tiny_recipe: dict[str, Any], examples: list[Example], how: dict[str, Any]
) -> None:
    tiny_recipe["evaluate"] |= how
    recipe = load_recipe(tiny_recipe)
    own = Answers({e.qid: e.answers[0] for e in examples})
    free = Answers(dict.fromkeys(own.texts, "x"))
    found = reasked(recipe, examples, own, free, freely=True)
    assert not is_other(found)
    said = asked_again("The GGUF file", found)
    assert said.startswith("The GGUF file gives 100 of 100 answers otherwise")
    assert "not comparable: the run's own answers were confined" in said
    assert is_other(reasked(recipe, examples, own, free))  # a merged model is asked as the run was
