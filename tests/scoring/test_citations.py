"""Citation recall and precision, by string."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ragtune.data.example import Example, Passage
from ragtune.recipe.load import load_recipe
from ragtune.recipe.schema import Recipe
from ragtune.scoring.citations import citations
from ragtune.scoring.compare import compare
from ragtune.scoring.score import Answers, metrics_of, score_answers

TEXTS = ("Rome is old.", "In Paris.", "Paris, again Paris.", "Oslo.")
EXAMPLE = Example(
    "q", "Where?", ("Paris",), tuple(map(Passage, TEXTS)), (1, 2), (0, 3), {"selected": True}
)


def recipe_of(**sections: Any) -> Recipe:
    small: dict[str, Any] = {
        "name": "x",
        "model": {"id": "some/model"},
        "data": {
            "train": "a.jsonl",
            "eval": "b.jsonl",
            "refusal": "not said",
            **sections.pop("data", {}),
        },
        "prompt": {"preset": "english", "citations": True, **sections.pop("prompt", {})},
        "train": {"steps": 1},
    }
    return load_recipe({**small, **sections})


@pytest.mark.parametrize(
    ("text", "recall", "precision", "malformed"),
    [
        ("Paris [2]", 1, 1, 0),
        ("Paris [2][3]", 1, 1, 0),
        ("Paris [1][2]", 1, 0.5, 0),
        ("Paris [1]", 0, 0, 0),
        ("Paris", 0, 0, 0),
        ("Paris [4]", 0, 0, 1),  # of three shown
        ("Paris [2][9][0]", 1, 1 / 3, 2),
        ("Paris, France [2]", 1, 1, 0),  # no string of it, but right
        ("again [3]", 1, 1, 0),  # wrong, and said by a positive
        ("again [2]", 0, 0, 0),
        ("Rome [1]", 0, 0, 0),  # said by no positive
    ],
)
def test_alces_definitions_by_string(
    text: str, recall: float, precision: float, malformed: int
) -> None:
    scored = score_answers(recipe_of(), [EXAMPLE], Answers({"q": text}))
    found = scored.citations
    assert found is not None
    assert (found.recall, found.precision, found.malformed) == (
        [recall],
        [pytest.approx(precision)],
        malformed,
    )
    assert found.cited == [float("[" in text)]


def test_an_answer_is_scored_without_its_citations() -> None:
    scored = score_answers(recipe_of(), [EXAMPLE], Answers({"q": "Paris [2]"}))
    assert scored.values["strict_em"] == [1]
    assert scored.lengths == [5]
    plain = score_answers(
        recipe_of(prompt={"citations": False}), [EXAMPLE], Answers({"q": "Paris [2]"})
    )
    assert plain.values["strict_em"] == [0]
    assert plain.citations is None
    assert "citations" not in metrics_of(plain)


def test_a_refusal_is_no_answered_question_whatever_it_cites() -> None:
    answers = Answers({"q": "not said [1]"})
    scored = score_answers(recipe_of(), [EXAMPLE], answers)
    assert scored.refusals["answerable"] == [1]
    assert scored.citations is not None
    assert scored.citations.recall == []
    assert "citations" not in metrics_of(scored)


def test_numbers_are_places_in_the_prompt_shuffled_or_cut() -> None:
    cut = replace(EXAMPLE, extra={"selected": True, "left_in_prompt": [[2, 19], [0, 4]]})
    found = citations(
        recipe_of(), [(cut, "Paris [1]", 1.0), (cut, "Paris [2]", 1.0), (cut, "Paris [3]", 1.0)]
    )
    assert found is not None
    assert (found.recall, found.malformed) == ([1, 0, 0], 1)


def test_figures_with_n_and_intervals_before_and_after() -> None:
    recipe = recipe_of()
    every = [replace(EXAMPLE, qid=str(i)) for i in range(10)]
    before = {e.qid: "Paris" for e in every}
    after = {e.qid: "Paris [2]" if i < 8 else "not said" for i, e in enumerate(every)}
    found = compare(*(score_answers(recipe, every, Answers(t)) for t in (before, after)))[
        "citations"
    ]
    assert found is not None
    assert found["before"] is not None
    assert found["after"] is not None
    assert (found["before"]["n"], found["after"]["n"]) == (10, 8)
    assert found["before"]["recall"] == pytest.approx(
        {"value": 0, "low": 0, "high": 0.308497}, abs=1e-6
    )  # none of ten: 1 - 0.025^(1/10)
    assert found["after"]["precision"] == pytest.approx(
        {"value": 1, "low": 0.630583, "high": 1}, abs=1e-6
    )  # all of eight: 0.025^(1/8)
    assert metrics_of(score_answers(recipe, every, Answers(after)))["citations"] == found["after"]
