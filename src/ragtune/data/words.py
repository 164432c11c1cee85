"""Whether an answer stands in a text: as written, or by AI王's rule; in both cases as whole words.

Whole words count in letters whose words are parted (Latin, Greek, Cyrillic) and in numbers: "yes" does
not stand in "eyes", "20" not in "2020". Japanese has no such borders: there any place counts.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

AIO_DELETED = r"・=\-"
"""Signs that AI王's rule deletes, as in a character class, beside white space."""

_WORD = r"a-z0-9\u00df-\u00f6\u00f8-\u024f\u0300-\u052f\u1e00-\u1fff"
"""Letters of the scripts whose words are parted, accents (also on their own), and digits."""
_LETTER = re.compile(f"[{_WORD}]")
_TOKEN = re.compile(rf"[{_WORD}]+|[^\W_]")
# Text as it is written has capitals, and in Japanese wide letters and digits.
_AS_WRITTEN = f"[{_WORD}A-Z\u00c0-\u00d6\u00d8-\u00de\uff10-\uff19\uff21-\uff3a\uff41-\uff5a]"
_WRITTEN = re.compile(_AS_WRITTEN)
_GAP = re.compile(rf"[\s{AIO_DELETED}]*")

_LETTERS = re.compile("(?s:.)[\u0300-\u036f\u3099\u309a\uff9e\uff9f]*")
"""A letter with its accents, or signs of voicing."""

LONG = 200
"""Characters of an answer from which on nobody asks whether it is cut out of a word: no word is so long."""
_TRIES = 16
"""Places at which an answer is looked for one by one, before a pattern does it that goes on where it is."""
_MARKS = 30
"""Combining marks in a row that are put in order together; no writing has so many."""
_MANY_MARKS = re.compile(r"(?:[^\w\s\x00-\x7f]|[\uff9e\uff9f]){256,}")
"""What can hold very many. The two of half width are letters, and become marks."""


def nfkc(text: str) -> str:
    """Unicode's NFKC, in time that grows with the text.

    To put n combining marks in order takes Python's n² steps. Where hundreds stand in a row, U+034F parts them
    after each 30, as in Unicode's stream-safe format (UAX 15, 13).
    """
    return unicodedata.normalize("NFKC", _MANY_MARKS.sub(_parted, text))


def _parted(found: re.Match[str]) -> str:
    signs: list[str] = []
    marks = 0
    for sign in found[0]:
        marks = marks + 1 if unicodedata.combining(sign) or sign in "\uff9e\uff9f" else 0
        if marks > _MARKS:
            signs.append("\u034f")
            marks = 1
        signs.append(sign)
    return "".join(signs)


def aio_undeleted(text: str) -> str:
    """AI王's rule, before it deletes the signs and the white space that part words."""
    text = nfkc(text.replace("～", "〜")).lower()
    return _unquoted("『", "』", _unquoted("「", "」", text))


def _unquoted(left: str, right: str, text: str) -> str:
    """What re.sub does with LEFT(.*?)RIGHT and its group, but in one pass where nothing closes."""
    return re.sub(
        rf"{left}([^{right}\n]*)({right}?)", lambda found: found[1] if found[2] else found[0], text
    )


@lru_cache(65_536)
def tokens(text: str) -> tuple[str, ...]:
    """What ROUGE compares: words where these are parted, else each letter; without width, case and signs."""
    return tuple(_TOKEN.findall(nfkc(text).lower()))


def without_signs(text: str) -> str:
    """A text without white space and the signs that AI王's rule deletes."""
    return re.sub(rf"[\s{AIO_DELETED}]", "", text)


@lru_cache(65_536)
def aio(text: str) -> str:
    """AI王's official rule.

    In this order: ～ to 〜, NFKC, lower, 「x」 to x, 『x』 to x, delete ・ = -, delete white space.
    """
    return without_signs(aio_undeleted(text))


@lru_cache(4)
def _plain(text: str) -> tuple[str, str]:
    """A text by the rule, before and after signs and white space are deleted; several answers ask for it."""
    plain = aio_undeleted(text)
    return plain, without_signs(plain)


def find_answer(text: str, answer: str, behind: int = 0) -> int:
    """The first place, from `behind` on, where an answer stands as whole words; -1 if there is none.

    Of one that is LONG any place counts.
    """
    start = text.find(answer, behind) if answer else -1
    if len(answer) > LONG:
        return start
    for _ in range(_TRIES):
        if start < 0 or not _inside(text, start, start + len(answer)):
            return start
        start = text.find(answer, start + 1)
    found = _written(answer).search(text, start) if start >= 0 else None
    return found.start() if found else -1


@lru_cache(1024)
def _written(answer: str) -> re.Pattern[str]:
    """Finds an answer as whole words of text as it is written: what `_inside` says of every place.

    The answer comes first, and what may not stand before it behind it: so `re` goes over the text once,
    whatever repeats itself in both.
    """
    first, last, back = answer[0], answer[-1], f"(?s:.){{{len(answer)}}}"
    pattern = re.escape(answer)
    if _WRITTEN.fullmatch(first):
        pattern += f"(?<!{_AS_WRITTEN}{back})"
        pattern += rf"(?<!\d[.,]{back})" if first.isdigit() else ""
    if _WRITTEN.fullmatch(last):
        pattern += f"(?!{_AS_WRITTEN})"
        pattern += r"(?![.,]\d)" if last.isdigit() else ""
    return re.compile(pattern)


def stands(text: str, answer: str) -> bool:
    """Whether an answer stands in a text, character for character and as whole words."""
    return find_answer(text, answer) >= 0


def stands_by_rule(text: str, answer: str) -> bool:
    """The same after AI王's rule: width, case, 「」『』, ・=- and white space make no difference.

    An answer of which nothing is left (・, say) stands nowhere.
    """
    gold = aio(answer)
    plain, bare = _plain(text)
    # What is found by the pattern is found without the signs, too, and much faster.
    if not gold or gold not in bare:
        return False
    return len(gold) > LONG or whole_words(answer).search(plain) is not None


def places(text: str, answer: str) -> tuple[tuple[int, int], ...]:
    """Where an answer stands in a text, as written or, if it does so nowhere, by AI王's rule.

    (start, end) in characters of every place, in order.
    """
    found: list[tuple[int, int]] = []
    start = find_answer(text, answer)
    while start >= 0:
        found.append((start, start + len(answer)))
        start = find_answer(text, answer, found[-1][1])
    if found or not stands_by_rule(text, answer):
        return tuple(found)
    # Letter by letter, so that it is known where each one stood; 「」 stay, which may be in the way.
    plain, at = "", list[tuple[int, int]]()
    for sign in _LETTERS.finditer(text):
        part = nfkc(sign[0].replace("～", "〜")).lower()
        plain += part
        at += [sign.span()] * len(part)
    every = whole_words(answer).finditer(plain)
    return tuple((at[match.start()][0], at[match.end() - 1][1]) for match in every)


@lru_cache(65_536)
def whole_words(answer: str) -> re.Pattern[str]:
    """Finds an answer between whole words of `aio_undeleted` text.

    What the rule deletes may be there or not; of the answer it must leave something.
    """
    parts: list[str] = []
    last = ""
    apart = False
    for sign in aio_undeleted(answer):
        if _GAP.fullmatch(sign):
            apart = True
            continue
        together = not apart and bool(_LETTER.fullmatch(sign) and _LETTER.fullmatch(last))
        parts += [f"[{AIO_DELETED}]*" if together else _GAP.pattern] if parts else []
        parts.append(re.escape(sign))
        last, apart = sign, False
    first = next(sign for sign in aio_undeleted(answer) if not _GAP.fullmatch(sign))
    return re.compile(_edge(first, "<") + "".join(parts) + _edge(last, ""))


def _edge(sign: str, behind: str) -> str:
    """What may not stand beside an answer's first (behind it: `<`) or last sign."""
    if not _LETTER.fullmatch(sign):
        return ""
    decimal = (r"(?<!\d[.,])" if behind else r"(?![.,]\d)") if sign.isdigit() else ""
    return f"(?{behind}!{_LETTER.pattern}){decimal}"


def _inside(text: str, start: int, end: int) -> bool:
    """Whether text[start:end] is cut out of a word or a number."""
    return begins_inside(text, start) or ends_inside(text, end)


def begins_inside(text: str, start: int) -> bool:
    """Whether what begins at text[start] begins inside a word or a number."""
    first, before = text[start], text[max(0, start - 2) : start]
    return bool(_WRITTEN.fullmatch(first)) and bool(
        _WRITTEN.fullmatch(before[-1:]) or (first.isdigit() and _DECIMAL_BEFORE.fullmatch(before))
    )


def ends_inside(text: str, end: int) -> bool:
    """Whether what ends before text[end] ends inside a word or a number."""
    last, after = text[end - 1], text[end : end + 2]
    return bool(_WRITTEN.fullmatch(last)) and bool(
        _WRITTEN.match(after) or (last.isdigit() and _DECIMAL_AFTER.fullmatch(after))
    )


_DECIMAL_BEFORE, _DECIMAL_AFTER = re.compile(r"\d[.,]"), re.compile(r"[.,]\d")


def refused(prediction: str, refusal: str | None) -> bool:
    """Whether a prediction is the refusal, if there is one, by AI王's rule and without a full stop."""
    return refusal is not None and aio(prediction).rstrip("。.!") == aio(refusal).rstrip("。.!")
