"""Where an answer stands: as whole words, as the metric `contains` has them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragtune.data.words import find_answer, places, stands, stands_by_rule
from ragtune.scoring.metrics import contains

CASES = [
    ("her eyes", "yes", False),
    ("yes, eyes", "yes", True),
    ("eyes: yes", "yes", True),
    ("in 2020", "20", False),
    ("３２０円", "20", False),
    ("３２０円", "２０", False),
    ("20.5 m", "20", False),
    ("1,920", "920", False),
    ("20, 5", "20", True),
    ("AIDS", "AI", False),
    ("ＡＩＤＳ", "ＡＩ", False),
    ("AI王の問題", "AI", True),
    ("東京都に", "東京", True),
    ("Ärzte", "rzte", False),
    ("Москва", "сква", False),
    ("well-known", "known", True),
    ("a (b) c", "(b)", True),
    ("text", "", False),
]


@pytest.mark.parametrize(("text", "answer", "there"), CASES)
def test_whole_words(text: str, answer: str, there: bool) -> None:
    assert stands(text, answer) is there


@pytest.mark.parametrize(
    ("text", "answer"),
    [("House is BLUE.", "blue"), ("ＢＬＵＥ", "blue"), ("ニュー・ヨーク", "ニューヨーク"), ("well known", "well-known")],
)  # fmt: skip
def test_other_forms(text: str, answer: str) -> None:
    assert stands_by_rule(text, answer)
    assert not stands(text, answer)


def test_the_first_whole_word_is_found() -> None:
    assert find_answer("eyes yes yes", "yes") == 5
    assert find_answer("eyes yes yes", "yes", 6) == 9
    assert find_answer("eyes", "yes") == -1


@given(st.text("aＡ1・ .é東", max_size=12), st.text("aＡ1・ .é東", min_size=1, max_size=4))
def test_it_is_the_rule_of_contains(text: str, answer: str) -> None:
    same = "".join(answer.split()).strip("・")
    assert stands_by_rule(text, answer) <= bool(contains(text, answer))
    if same and contains(text, answer):
        assert stands_by_rule(text, answer)


@pytest.mark.parametrize(
    ("text", "answer", "found"),
    [
        ("eyes and yes, yes", "yes", ["yes", "yes"]),
        ("In 2020: 20, 20.5 and 20.", "20", ["20", "20"]),
        ("高さは333メートル。333メートルの塔", "333メートル", ["333メートル", "333メートル"]),
        ("高さは３３３メートル", "333メートル", ["３３３メートル"]),  # by the rule
        ("PARIS is", "Paris", ["PARIS"]),
        ("㈱トヨタとＡＢＣ社", "株", ["㈱"]),  # one sign that is three: (株)
        ("ﾃﾞｰﾀ・ベース", "データベース", ["ﾃﾞｰﾀ・ベース"]),
        ("Paris and PARIS", "Paris", ["Paris"]),  # as written counts before the rule
        ("nothing", "", []),
    ],
)
def test_places(text: str, answer: str, found: list[str]) -> None:
    spans = places(text, answer)
    assert [text[start:end] for start, end in spans] == found
