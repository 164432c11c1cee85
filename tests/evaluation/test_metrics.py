from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragtune.evaluation.metrics import (
    METRICS,
    aio_em,
    contains,
    score,
    squad_em,
    strict_em,
    summary,
)
from ragtune.evaluation.normalise import aio, squad


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Cat, the cat!", "cat cat"),
        ("An apple a day", "apple day"),
        ("theory of a-theism", "theory of atheism"),
        ("  ", ""),
        ("ＡＢＣ", "ａｂｃ"),  # the rule knows ASCII alone
    ],
)
def test_squad_rule(text: str, normal: str) -> None:
    assert squad(text) == normal


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("１０～２０", "10〜20"),
        ("10~20", "10~20"),  # the ASCII tilde stays
        ("「開口一番」", "開口一番"),
        ("『羅生門』の作者", "羅生門の作者"),
        ("アイザック・ニュートン", "アイザックニュートン"),
        ("ア=イ-ウ", "アイウ"),
        ("＝－", ""),  # NFKC makes them = and -
        ("‐−–", "‐−–"),
        ("スーパー", "スーパー"),
        ("㈱日本", "(株)日本"),
        ("A B\u3000C\n", "abc"),
        ("「「x」」", "「x」"),  # not idempotent for nested brackets
        ("「開く", "「開く"),
    ],
)
def test_aio_rule(text: str, normal: str) -> None:
    assert aio(text) == normal


def test_strict_compares_with_the_first_answer_only() -> None:
    assert strict_em("ニュートン", ["アイザック・ニュートン", "ニュートン"]) == 0
    assert strict_em("アイザック・ニュートン", ["アイザック・ニュートン"]) == 1
    assert strict_em("Paris ", ["Paris"]) == 0


def test_the_others_take_the_best_answer() -> None:
    assert squad_em("the paris", ["London", "Paris"]) == 1
    assert aio_em("アイザックニュートン", ["ニュートン", "アイザック・ニュートン"]) == 1
    assert contains("答えは東京タワーです", ["通天閣", "東京 タワー"]) == 1
    assert contains("東京", ["東京タワー"]) == 0


def test_an_answer_that_normalises_to_nothing_matches_only_such_a_prediction() -> None:
    assert contains("anything", ["・"]) == 0
    assert contains("=", ["・"]) == 1
    assert aio_em("anything", ["・"]) == 0
    assert squad_em("", ["the"]) == 1


texts = st.text(max_size=12)


@given(prediction=texts, answers=st.lists(texts, min_size=1, max_size=3))
def test_bounds_and_order(prediction: str, answers: list[str]) -> None:
    values = {m: v[0] for m, v in score([prediction], [answers]).items()}
    assert set(values) == set(METRICS)
    assert set(values.values()) <= {0.0, 1.0}
    assert values["aio_em"] <= values["contains"]
    if prediction == answers[0]:
        assert set(values.values()) == {1.0}


@given(texts)
def test_squad_is_idempotent(text: str) -> None:
    assert squad(squad(text)) == squad(text)


@given(texts, texts)
def test_exact_matches_are_symmetric(one: str, other: str) -> None:
    assert squad_em(one, [other]) == squad_em(other, [one])
    assert aio_em(one, [other]) == aio_em(other, [one])


def test_summary_is_the_mean() -> None:
    scores = score(["a", "b"], [["a"], ["c"]])
    assert summary(scores) == {"n": 2, "metrics": dict.fromkeys(METRICS, 0.5)}
