"""What a text is found by: characters and pairs of them where words aren't parted, stemmed words elsewhere.

Chosen on the train parts (`bench/retrieval.py`); recall at 1, 3, 10 on the dev parts, of the paragraph that
JaQuAD asks about: 83.6, 93.4, 98.0 %. Every single character and pair, as tantivy's ngram(1, 2): 82.5, 92.3,
97.3, in twice the time. Without runs: 82.6, 91.9, 97.4. Without single characters: 82.4, 92.1, 97.1. Without
the terms that more than 30 % of the passages have: 84.2, 93.2, 98.0, a third less time; all are kept, as
in a small folder such a term may be what is asked about. An answer in SQuAD 2: 78.9, 90.5, 95.7; with stems
alone 78.1, 88.0, 94.7.
"""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Callable
from functools import lru_cache

from ragtune.data.words import nfkc

VERSION = 1
"""Of these rules: an index that other ones made is made again."""
LONGEST = 40
"""Characters of a word that count; of what is longer the first ones."""
UNPARTED = frozenset(("ja", "km", "ko", "lo", "my", "th", "yue", "zh"))
"""Languages that write no blanks between words, or (Korean) whose words take many endings."""
STEMMERS = {
    "ar": "Arabic", "da": "Danish", "de": "German", "el": "Greek", "en": "English", "es": "Spanish",
    "fi": "Finnish", "fr": "French", "hu": "Hungarian", "it": "Italian", "nb": "Norwegian",
    "nl": "Dutch", "nn": "Norwegian", "no": "Norwegian", "pt": "Portuguese", "ro": "Romanian",
    "ru": "Russian", "sv": "Swedish", "ta": "Tamil", "tr": "Turkish",
}  # fmt: skip
"""tantivy's, by language; words of any other are taken as they are."""

ASKING = {
    "en": frozenset((
        "are", "be", "been", "can", "could", "did", "do", "does", "had", "has", "have", "how", "is",
        "was", "were", "what", "when", "where", "which", "who", "whom", "whose", "why", "will", "would",
    ))
}  # fmt: skip
"""Words by which a question asks, and none of what it asks about: they are rare in passages, and would
count for much."""
HEAD = 4
"""Letters at a longer word's beginning that are a term, too: what a stemmer leaves apart (Canada, Canadian)
has them in common."""
HEAD_WEIGHT = 0.5
"""How much such a term of a question counts."""
_IS_HEAD = "^"

_HIRAGANA = "\u3041-\u3096\u309d-\u309f"
_KATAKANA = "\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
_HAN = "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_HANGUL = "\uac00-\ud7a3"
_OTHERS = "\u0e00-\u0fff\u1000-\u109f\u1780-\u17d3\u17dc-\u17dd"
"""Thai, Lao, Tibetan, Burmese and Khmer."""
_SINGLE = f"{_KATAKANA}{_HAN}{_HANGUL}{_OTHERS}"
_DENSE = f"{_HIRAGANA}{_SINGLE}"
# Vowel signs and accents belong to their word; for Python they are no letters.
_MARKS = "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff"

_SINGLES = re.compile(f"[{_SINGLE}]")
_RUNS = re.compile(f"\\d+|[{_HAN}]+|[{_KATAKANA}]+|[{_HANGUL}]+|(?:[^\\W\\d_{_DENSE}]|[{_MARKS}])+")
_PIECES = re.compile(f"(?:[^\\W_]|[{_DENSE}{_MARKS}])+")
_PARTS = re.compile(f"[{_DENSE}]+|(?:[^\\W_{_DENSE}]|[{_MARKS}])+")
_IS_DENSE = re.compile(f"[{_DENSE}]")


def normalised(text: str) -> str:
    """A text as it is compared: NFKC (full width is half width, ㌔ is キロ) in small letters."""
    return nfkc(nfkc(text).lower())  # twice: small letters of a few (İ) are not composed


def terms_of(
    text: str, stem: Callable[[str], str] | None, left_out: frozenset[str] = frozenset()
) -> list[str]:
    """The terms of a text, with repetitions: none of them has blanks.

    Args:
        text: as it was read.
        stem: what makes a word's stem. None where words aren't parted: then letters and digits of
            whatever script give pairs of neighbours and each run of one script, and of characters
            the single ones, but not of hiragana: they are everywhere, and tell nothing apart.
            With it, such terms are made only of what is in scripts without blanks.
        left_out: words that give no term.
    """
    text = normalised(text)
    if stem is None:
        return _grams(text, _PIECES.findall(text))
    terms = []
    for part in _PARTS.findall(text):
        if _IS_DENSE.match(part):
            terms += _grams(part, [part])
        elif part not in left_out:
            terms.append(stem(part[:LONGEST]))
            if len(part) > HEAD:
                terms.append(_IS_HEAD + part[:HEAD])
    return terms


def weights_of(question: str, stem: Callable[[str], str] | None, language: str) -> dict[str, float]:
    """A question's terms, and how much each counts: the square root of how often it is there.

    Words that only ask don't count, unless there are no others.
    """
    terms = terms_of(question, stem, ASKING.get(language, frozenset()))
    return {
        term: count**0.5 * (HEAD_WEIGHT if term[0] == _IS_HEAD else 1)
        for term, count in Counter(terms or terms_of(question, stem)).items()
    }


def _grams(text: str, pieces: list[str]) -> list[str]:
    terms = _SINGLES.findall(text)
    for piece in pieces:
        terms += map(operator.add, piece, piece[1:])
    terms += [run[:LONGEST] for run in _RUNS.findall(text)]
    return terms


def stemmer(language: str) -> Callable[[str], str] | None:
    """What makes a word's stem in a language; None where words aren't parted."""
    from tantivy import Filter, TextAnalyzerBuilder, Tokenizer  # noqa: PLC0415 - an extra

    if language in UNPARTED:
        return None
    if language not in STEMMERS:
        return str
    analyser = (
        TextAnalyzerBuilder(Tokenizer.raw()).filter(Filter.stemmer(STEMMERS[language])).build()
    )
    return lru_cache(maxsize=200_000)(lambda word: analyser.analyze(word)[0])
