"""Small things about text."""

from __future__ import annotations

from ragtune.base.text import one_or_many


def test_a_number_and_what_agrees_with_it() -> None:
    assert one_or_many(0, "question") == "0 questions"
    assert one_or_many(1, "question") == "1 question"
    assert one_or_many(2000, "question") == "2,000 questions"
    assert one_or_many(1, "of 9 answers is", "of 9 answers are") == "1 of 9 answers is"
    assert one_or_many(3, "of 9 answers is", "of 9 answers are") == "3 of 9 answers are"
