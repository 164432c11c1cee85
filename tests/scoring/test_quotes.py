"""What quotes before answers are worth."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ragtune.scoring.compare import compare
from ragtune.scoring.score import Answers, metrics_of, score_answers
from tests.scoring.test_citations import EXAMPLE, recipe_of

QUOTING = recipe_of(prompt={"quote": True, "citations": False})


@pytest.mark.parametrize(
    ("text", "found", "right"),
    [
        ("> In Paris.\nParis", (1, 1, 1), 1),
        ("> in Paris.\nParis", (1, 0, 0), 1),  # not as it stands there
        ("> Paris,  again\nParis", (1, 1, 1), 1),
        ("> Rome is old.\nRome", (1, 1, 0), 0),  # of no positive
        ("> In Paris.\nRome", (1, 1, 0), 0),  # not its answer
        ("> Oslo.\nOslo", (1, 0, 0), 0),  # that passage isn't shown
        ("Paris", (0, 0, 0), 1),
        ("> In Paris.", (0, 0, 0), 0),  # it counts as it stands
    ],
)
def test_quotes_are_held_against_the_passages(
    text: str, found: tuple[int, int, int], right: int
) -> None:
    scored = score_answers(QUOTING, [EXAMPLE], Answers({"q": text}))
    assert scored.values["strict_em"] == [right]
    one = scored.quotes
    assert one is not None
    assert (*one.quoted, *one.verbatim, *one.supporting) == found
    assert metrics_of(scored)["quotes"]["unparsed"] == 1 - found[0]
    plain = score_answers(recipe_of(), [EXAMPLE], Answers({"q": text}))
    assert plain.quotes is None
    assert "quotes" not in metrics_of(plain)


def test_with_citations_each_is_taken_off() -> None:
    both = recipe_of(prompt={"quote": True})
    scored = score_answers(both, [EXAMPLE], Answers({"q": "> In Paris.\nParis [2]"}))
    assert scored.values["strict_em"] == [1]
    assert scored.citations is not None
    assert scored.citations.recall == [1]
    assert scored.quotes is not None
    assert scored.quotes.supporting == [1]


def test_a_refusal_is_no_answered_question() -> None:
    for text in ("not said", "> In Paris.\nnot said."):
        scored = score_answers(QUOTING, [EXAMPLE], Answers({"q": text}))
        assert scored.refusals["answerable"] == [1]
        assert "quotes" not in metrics_of(scored)


def test_figures_before_and_after() -> None:
    every = [replace(EXAMPLE, qid=str(i)) for i in range(10)]
    before = {e.qid: "Paris" for e in every}
    after = {
        e.qid: "> In Paris.\nParis" if i < 8 else "> In Rome.\nParis" for i, e in enumerate(every)
    }
    found = compare(*(score_answers(QUOTING, every, Answers(t)) for t in (before, after)))["quotes"]
    assert found is not None
    assert found["before"] is not None
    assert found["after"] is not None
    assert (found["before"]["unparsed"], found["after"]["unparsed"]) == (10, 0)
    assert found["after"]["quoted"]["value"] == 1
    assert found["after"]["verbatim"]["value"] == 0.8
