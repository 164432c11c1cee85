"""What a text is found by: the same whatever width, case or composition it was typed in."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragtune.building.retrieval.terms import (
    STEMMERS,
    UNPARTED,
    normalised,
    stemmer,
    terms_of,
    weights_of,
)

ENGLISH = stemmer("en")


def test_japanese_is_characters_pairs_and_runs() -> None:
    assert terms_of("東京タワーは、2012年", None) == [
        *"東京タワー年",
        *("東京", "京タ", "タワ", "ワー", "ーは", "20", "01", "12", "2年"),
        *("東京", "タワー", "2012", "年"),
    ]


def test_single_hiragana_tell_nothing_apart() -> None:
    assert terms_of("は の を", None) == []
    assert terms_of("りんご", None) == ["りん", "んご"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("ﾃﾚﾋﾞ", "テレビ"), ("ＡＢＣ１２", "abc12"), ("㌔", "キロ"), ("⽬⽴つ", "目立つ"),
        ("がく", "か\u3099く"), ("Café", "cafe\u0301"), ("ﬁne", "fine"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stem", [None, ENGLISH])
def test_width_case_and_composition_do_not_matter(
    typed: str, meant: str, stem: Callable[[str], str] | None
) -> None:
    assert terms_of(typed, stem) == terms_of(meant, stem) != []


def test_english_is_stems() -> None:
    assert terms_of("The running dogs' owners don’t run.", ENGLISH) == [
        "the", "run", "^runn", "dog", "owner", "^owne", "don", "t", "run",
    ]  # fmt: skip
    canada, canadian = (set(terms_of(word, ENGLISH)) for word in ("Canada", "Canadian"))
    assert canada & canadian == {"^cana"}


def test_words_that_only_ask_do_not_count() -> None:
    asked = weights_of("Who was the mayor of the town, and where?", ENGLISH, "en")
    assert asked == {
        "the": 2**0.5, "mayor": 1, "^mayo": 0.5, "of": 1, "town": 1, "and": 1,
    }  # fmt: skip
    assert weights_of("Who is who?", ENGLISH, "en") == {"who": 2**0.5, "is": 1}
    assert weights_of("who", stemmer("de"), "de") == {"who": 1}
    assert weights_of("山と山", None, "ja") == {"山": 2, "山と": 1, "と山": 1}


def test_what_is_in_another_script_is_found_in_every_language() -> None:
    assert terms_of("Der Berg 富士 und ไทย", stemmer("de")) == [
        "der", "berg", "富", "士", "富士", "富士", "und", "ไ", "ท", "ย", "ไท", "ทย",
    ]  # fmt: skip
    assert "tantivy" in terms_of("検索はtantivyで行う", None)


def test_vowel_signs_belong_to_their_word() -> None:
    assert terms_of("हिन्दी भाषा।", stemmer("hi")) == ["हिन्दी", "^हिन्", "भाषा"]


@pytest.mark.parametrize("language", [*STEMMERS, *sorted(UNPARTED), "pl", "xx"])
def test_every_language_has_terms(language: str) -> None:
    stem = stemmer(language)
    assert (stem is None) == (language in UNPARTED)
    assert terms_of("Αθήνα Москва القاهرة İstanbul Zürich சென்னை 東京 서울", stem)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_terms_can_be_told_apart_and_typed_in_any_case(text: str) -> None:
    for stem in (None, ENGLISH):
        terms = terms_of(text, stem)
        assert all(term and term == "".join(term.split()) for term in terms)
        assert terms_of(normalised(text), stem) == terms
    assert normalised(normalised(text)) == normalised(text)
