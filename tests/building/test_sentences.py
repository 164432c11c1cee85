"""Where sentences end: a thousand hard samples, lines that are wrapped or not, and text that is no text."""

from __future__ import annotations

import random
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragtune.base.errors import UsageError
from ragtune.building import sentences as module
from ragtune.building.sentences import sentence_spans
from tests.building import hard_sentences

LANGUAGES = {"ja": hard_sentences.JAPANESE, "en": hard_sentences.ENGLISH, **hard_sentences.OTHER}
APART = {"ja": "", "zh": ""}
"""What stands between sentences, where it isn't a blank."""
KNOWN = {"No way!!", "Really?!", "OK.", "El Dr. Pérez dijo que no."}
"""Behind these a sentence isn't always seen to end."""


def cut(text: str, language: str) -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text, 0, len(text), language)]


def table() -> list[tuple[str, str, list[str]]]:
    """Language, text, sentences: each hard sentence alone, and behind others of its language."""
    rng = random.Random(0)
    rows: list[tuple[str, str, list[str]]] = []
    for language, text in LANGUAGES.items():
        sentences = text.splitlines()
        rows += [(language, sentence, [sentence]) for sentence in sentences]
        for last in sentences:
            for count in (1, 1, 2, 3):
                before = [s for s in rng.sample(sentences, min(count, len(sentences))) if s != last]
                row = [*before, last]
                if not any(_is_open(a, b, language) for a, b in pairwise(row)):
                    rows.append((language, APART.get(language, " ").join(row), row))
    return rows


def _is_open(one: str, other: str, language: str) -> bool:
    """Whether nobody could say that a sentence ends here without understanding it."""
    in_brackets = one[0] in "「『(（" and one[-1] in "」』)）"
    goes_on = language == "ja" and one[-1] in "!?." and other[0].isascii() and other[0].isalnum()
    return in_brackets or goes_on or one in KNOWN


def test_a_thousand_hard_samples() -> None:
    rows = table()
    assert len(rows) >= 1000
    wrong = [
        (text, cut(text, language)) for language, text, want in rows if cut(text, language) != want
    ]
    assert not wrong


def test_what_is_known_to_be_one_sentence_too_few() -> None:
    """Where an end can't be told, a sentence is rather too long than a name in two parts."""
    assert len(cut("「え?」今日は晴れです。", "ja")) == 1
    assert len(cut("(This is in brackets.) It is.", "en")) == 1
    assert len(cut("すごい! Great.", "ja")) == 1


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("長い行が折り返されて次の\n行に続いている文です。次の文。", ["長い行が折り返されて次の\n行に続いている文です。", "次の文。"]),
        ("見出し\n\n本文が始まる。", ["見出し", "本文が始まる。"]),
        ("目次\n本文はこのように長い行で始まります。", ["目次", "本文はこのように長い行で始まります。"]),
        ("・りんごは赤い\n・みかんは橙色\n・ぶどうは紫色", ["・りんごは赤い", "・みかんは橙色", "・ぶどうは紫色"]),
        ("「どこへ行くのですか。」\n「学校へ行くところです。」", ["「どこへ行くのですか。」", "「学校へ行くところです。」"]),
        ("This line is wrapped and goes\non here. Next one.", ["This line is wrapped and goes\non here.", "Next one."]),
        ("- one item here\n- two item here\n- three items", ["- one item here", "- two item here", "- three items"]),
        ("1. Open the valve now\n2. Close the valve now", ["1. Open the valve now", "2. Close the valve now"]),
        ("a\tb\tc\r\nd\te\tf", ["a\tb\tc", "d\te\tf"]),
        ("| a | b |\n| c | d |", ["| a | b |", "| c | d |"]),
        ("name | 1\nother | 2", ["name | 1", "other | 2"]),
        ("Mr.\nSmith is here today.", ["Mr.", "Smith is here today."]),
        ("He met the famous old Mr.\nSmith here today.", ["He met the famous old Mr.\nSmith here today."]),
        ("  \n\t\u3000\n", []),
        ("", []),
    ],
)  # fmt: skip
def test_lines(text: str, sentences: list[str]) -> None:
    assert cut(text, "ja") == sentences
    assert cut(text, "en") == sentences


def test_texts_of_several_languages() -> None:
    text = "彼はMr. Smithです。次。\n\nMr. Smith came. He left.\n\n他们赋有理性。好。"
    assert cut(text, "en") == cut(text, "ja")
    assert cut(text, "en") == [
        "彼はMr. Smithです。", "次。", "Mr. Smith came.", "He left.", "他们赋有理性。", "好。",
    ]  # fmt: skip


def test_a_part_of_a_text() -> None:
    text = "One. Two. Three."
    assert sentence_spans(text, 5, 9, "en") == [(5, 9)]


HOSTILE = st.text(
    st.one_of(
        st.sampled_from("。．.!?！？「」『』（）()[]\"'“”‘’«»〈〉…、,;: \t\n\r\x0b\x0c\x1c\x85\u2028\u2029\u3000\u00a0∯のはがをと"),
        st.sampled_from("aZéßИ漢カあ😀\u200d\u0301\ufeff1３"),
        st.characters(),
    ),
    max_size=120,
)  # fmt: skip


@given(HOSTILE, st.sampled_from(["ja", "en", "fr", "de", "zh", "ru", "th", "und", "xx"]))
def test_sentences_are_parts_of_the_text_and_leave_out_only_white_space(
    text: str, language: str
) -> None:
    left = list(text)
    at = 0
    for start, end in sentence_spans(text, 0, len(text), language):
        assert at <= start < end
        assert text[start:end] == text[start:end].strip()
        left[start:end] = " " * (end - start)
        at = end
    assert not "".join(left).strip()


def test_a_panic_of_the_library_ends_no_build(monkeypatch: pytest.MonkeyPatch) -> None:
    panic = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})

    class Broken:
        @staticmethod
        def segment(language: str, text: str) -> list[str]:
            raise panic("byte index 3 is not a char boundary")

    monkeypatch.setattr(module, "_library", lambda name: Broken)
    assert cut("One. Two.", "en") == ["One. Two."]


def test_a_missing_library_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencex", None)
    module._library.cache_clear()
    with pytest.raises(UsageError, match="needs sentencex, which is not installed") as caught:
        cut("One. Two.", "en")
    assert caught.value.advice == "Run: pip install ja-sentence-segmenter sentencex"
