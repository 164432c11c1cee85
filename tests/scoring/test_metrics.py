from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragtune.data.example import Example, Passage
from ragtune.data.select import accepted
from ragtune.recipe.load import load_recipe
from ragtune.recipe.schema import Recipe
from ragtune.scoring.metrics import (
    METRICS,
    aio_em,
    char_f1,
    contains,
    jsquad_em,
    refused,
    rouge_l,
    score,
    squad_em,
    strict_em,
    token_f1,
)
from ragtune.scoring.normalise import NORMALISERS, aio, jsquad, squad


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
        ("『「x」』", "x"),
        ("a\u200bb", "a\u200bb"),  # a zero-width space is no white space to Python
        ("x\u2003y\u00a0z", "xyz"),
        ("ｶﾞﾝﾀﾞﾑ", "ガンダム"),
    ],
)
def test_aio_rule(text: str, normal: str) -> None:
    assert aio(text) == normal


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("東京。", "東京"),
        ("Ａ Ｂ", "ａ ｂ"),
        (" The  Cat\u3000sat ", "the cat sat"),
        ("東京。です", "東京。です"),
        ("「東京」", "「東京」"),
    ],
)
def test_jsquad_rule(text: str, normal: str) -> None:
    assert jsquad(text) == normal


def test_exact_matches_by_each_rule() -> None:
    assert strict_em("Paris", "Paris") == 1
    assert strict_em("Paris ", "Paris") == 0
    assert squad_em("the paris", "Paris") == 1
    assert aio_em("アイザックニュートン", "アイザック・ニュートン") == 1
    assert jsquad_em("東京。", "東京") == 1
    assert contains("答えは東京タワーです", "東京 タワー") == 1
    assert contains("東京", "東京タワー") == 0
    # A Latin word or a number is whole or not there; white space, which the rule deletes, parts words.
    assert contains("he saw the rapist", "therapist") == 0
    assert contains("born 1978", "7") == 0
    assert contains("born in 1978年", "1978") == 1
    assert contains("The population is 1,000", "1") == contains("It is 3.5 metres", "5") == 0
    assert contains("１，０００人", "１") == contains("２，０００年", "000") == 0
    assert contains("It is 5, or 6.", "5") == contains("It is 5.", "5") == 1
    assert contains("in 1966-1967", "1966") == 1
    assert (
        contains("un café", "caf") == contains("França", "fran") == contains("Москва", "Моск") == 0
    )
    assert contains("un café noir", "CAFÉ") == 1
    for prediction in ("a spider-man", "a spiderman", "a spider man"):
        assert contains(prediction, "spider-man") == 1
    assert contains("a spider-man", "spiderman") == 1
    assert contains("a spider man", "spiderman") == 0
    assert contains("It is New  York.", "new york") == 1
    assert contains("「 a」b", "ab") == 1  # equal after the rule
    # Brackets belong together over several words, too.
    assert contains("He wrote The Hobbit, too", "『The Hobbit』") == 1
    assert contains("He wrote 『The Hobbit』.", "the hobbit") == 1
    assert contains("He wrote 『The Hobbits』.", "the hobbit") == 0


def test_f1_by_hand() -> None:
    # "red big house" and "big red barn door": 2 words in common, of 3 and 4.
    assert token_f1("The red, big house", "big red barn door") == pytest.approx(4 / 7)
    assert token_f1("a b", "c") == 0
    # Every b counts once: 東 and 京 of 3 and 4 characters.
    assert char_f1("東京都", "東京東京") == pytest.approx(4 / 7)
    assert token_f1("the", "a") == 1  # nothing is left of either
    assert token_f1("the", "cat") == 0


def test_rouge_l_is_that_of_googles_package() -> None:
    """rouge_score 0.1.2, RougeScorer(["rougeL"], use_stemmer=False)."""
    for one, other, value in (
        ("The cat sat on the mat.", "the mat sat on a cat, didn't it?", 0.4),
        (
            "A river runs through the old town, which has two bridges.",
            "Two bridges cross the river that runs through town.", 0.4,
        ),
        ("police killed the gunman", "the gunman kill police", 0.5),
    ):  # fmt: skip
        assert rouge_l(one, other) == pytest.approx(value)


def test_rouge_l_of_japanese_is_over_letters() -> None:
    # 東京は首都 of 7 and 6 letters; GPT is one token, whatever its width.
    assert rouge_l("東京は、日本の首都。", "東京は首都だ") == pytest.approx(2 * 5 / (8 + 6))
    assert rouge_l("ＧＰＴは速い", "gptは 遅い") == pytest.approx(2 * 3 / (4 + 4))


@given(st.lists(st.sampled_from("abc"), max_size=7), st.lists(st.sampled_from("abc"), max_size=7))
def test_rouge_l_is_the_longest_common_subsequence(one: list[str], other: list[str]) -> None:
    def common(i: int, j: int) -> int:
        if not (i and j):
            return 0
        if one[i - 1] == other[j - 1]:
            return common(i - 1, j - 1) + 1
        return max(common(i - 1, j), common(i, j - 1))

    if one and other:
        longest = common(len(one), len(other))
        value = rouge_l(" ".join(one), " ".join(other))
        assert value == pytest.approx(2 * longest / (len(one) + len(other)))


def test_rouge_l_of_megabytes_takes_no_time() -> None:
    rouge_l("a b " * 500_000, "b a " * 500_000)


def accepting(*answers: str) -> Example:
    return Example("q", "?", answers, (), (), ())


def test_the_best_answer_counts() -> None:
    examples = [accepting("London", "Paris"), accepting("アイザック・ニュートン")]
    values = score(recipe(), examples, ["Paris", "ニュートン"])
    assert values["strict_em"] == [1.0, 0.0]
    assert values["char_f1"][1] == pytest.approx(2 * 5 / (5 + 11))
    assert list(score(recipe(), [accepting("x")], ["x"], ("aio_em",))) == ["aio_em"]


def test_a_choice_says_which_answers_count() -> None:
    example = accepting("London", "Paris")
    for choice, right in (("first", 0.0), ("all", 1.0)):
        assert score(recipe(), [example], ["Paris"], ("strict_em",), choice) == {
            "strict_em": [right]
        }


def test_without_a_prediction_it_is_wrong_and_without_an_answer_a_refusal_is_right() -> None:
    examples = [accepting("x"), accepting(), accepting(), accepting()]
    texts = [None, "no idea.", "x", None]
    values = score(recipe(data__refusal="No idea"), examples, texts)
    assert set(map(tuple, values.values())) == {(0.0, 1.0, 0.0, 0.0)}
    assert set(map(tuple, score(recipe(), examples, texts).values())) == {(0.0,) * 4}


def test_a_metric_is_given_the_passages(monkeypatch: pytest.MonkeyPatch) -> None:
    def grounded(example: Example, prediction: str) -> float:
        return float(any(prediction in p.text for p in example.passages))

    monkeypatch.setitem(METRICS, "grounded", grounded)
    example = Example("q", "?", ("x",), (Passage("red house"),), (), ())
    assert score(recipe(), [example] * 2, ["red", "blue"], ("grounded",)) == {
        "grounded": [1.0, 0.0]
    }


def test_an_answer_that_normalises_to_nothing_matches_only_such_a_prediction() -> None:
    assert contains("anything", "・") == 0
    assert contains("=", "・") == 1
    assert aio_em("anything", "・") == 0
    assert squad_em("", "the") == 1


texts = st.text(max_size=12)


@given(prediction=texts, answers=st.lists(texts, min_size=1, max_size=3))
def test_bounds_and_order(prediction: str, answers: list[str]) -> None:
    values = {m: metric(accepting(*answers), prediction) for m, metric in METRICS.items()}
    assert set(values) == set(METRICS)
    assert all(0 <= v <= 1 for v in values.values())
    assert values["aio_em"] <= values["contains"]
    assert values["squad_em"] <= values["token_f1"]
    assert values["jsquad_em"] <= values["char_f1"]
    if prediction in answers:
        assert set(values.values()) == {1.0}


@given(texts, texts)
def test_all_but_contains_are_symmetric(one: str, other: str) -> None:
    for name, metric in METRICS.items():
        if name != "contains":
            assert metric(accepting(other), one) == metric(accepting(one), other), name


@given(texts)
def test_squad_is_idempotent(text: str) -> None:
    assert squad(squad(text)) == squad(text)


@given(texts.filter(lambda t: not t.rstrip().endswith("。")))
def test_jsquad_is_idempotent_but_for_full_stops(text: str) -> None:
    assert jsquad(jsquad(text)) == jsquad(text)


def recipe(**changes: str) -> Recipe:
    return load_recipe(
        {
            "name": "x",
            "model": {"id": "some/model"},
            "data": {"train": "a", "eval": "b"},
            "prompt": {"preset": "english"},
            "train": {"steps": 1},
        },
        [f"{k.replace('__', '.')}={v}" for k, v in changes.items()],
    )


def example(**extra: str) -> Example:
    return Example("q", "?", ("ニュートン", "Newton"), (), (), (), dict(extra))


def test_which_answers_are_accepted_is_a_choice() -> None:
    one = example(
        competition="第2回AI王", original_additional_info="アイザック・ニュートン, Newton, Isaac"
    )
    assert accepted(one, recipe(evaluate__answers="first")) == ("ニュートン",)
    assert accepted(one, recipe()) == ("ニュートン", "Newton")
    both = ("ニュートン", "Newton", "アイザック・ニュートン", "Isaac")
    assert accepted(one, recipe(evaluate__answers="all+alternatives")) == both
    assert accepted(one, recipe(), "all+alternatives") == both


def test_alternatives_are_those_of_the_competition_or_of_a_field_that_is_named() -> None:
    text = "正解は別, x"
    assert example(original_additional_info=text).alternatives(None) == ()
    assert example(competition="abc", original_additional_info=text).alternatives(None) == ()
    assert example(also=text).alternatives("also") == ("正解は別", "x")
    assert example(competition="第1回AI王", original_additional_info="").alternatives(None) == ()


def test_a_refusal_is_known_by_its_text() -> None:
    assert refused("分かりません。", "分かりません")
    assert refused(" I don't know ", "I don't know.")
    assert not refused("分かりませんが東京です", "分かりません")


def test_every_rule_has_a_version() -> None:
    assert {name: version for name, (_, version) in NORMALISERS.items()} == {
        "strict": "1", "squad": "1.1", "aio": "1", "jsquad": "1",
    }  # fmt: skip
