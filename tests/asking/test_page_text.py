"""What the page says of an answer: in the words of who asks, not of who wrote the recipe."""

from __future__ import annotations

from ragtune.asking.page_text import card
from tests.asking.test_shown import answered


def test_an_answer_that_was_cut_off_names_no_key() -> None:
    facts = card(answered("red", (), finished=False), 1.0).facts
    assert "cut off: the answer was longer than allowed" in facts
    assert "evaluate." not in facts


def test_what_an_answer_cites_stands_below_it() -> None:
    facts = card(answered("red", (), citations=(1, 3), malformed=(9,)), 1.0).facts
    assert facts.endswith("cites [1], [3] · cites [9], which no passage is")


def test_an_answer_that_the_threshold_refused_is_no_word_about_the_passages() -> None:
    facts = card(answered("not said", (), refused=True, unsure=True), 1.0).facts
    assert facts.endswith("refused: the model was not sure enough of its answer")


def test_what_an_answer_quotes_stands_below_it() -> None:
    facts = card(answered("red", (), quote="It is red.", quote_found=True), 1.0).facts
    assert facts.endswith("quotes “It is red.”")
    facts = card(answered("red", (), quote="<b>"), 1.0).facts
    assert facts.endswith("quotes “<b>”, which stands in none of the passages")
