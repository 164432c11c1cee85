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
# Text as it is written has capitals, and in Japanese wide letters and digits.
_WRITTEN = re.compile(
    f"[{_WORD}A-Z\u00c0-\u00d6\u00d8-\u00de\uff10-\uff19\uff21-\uff3a\uff41-\uff5a]"
)
_GAP = re.compile(rf"[\s{AIO_DELETED}]*")


def aio_undeleted(text: str) -> str:
    """AI王's rule, before it deletes the signs and the white space that part words."""
    text = unicodedata.normalize("NFKC", text.replace("～", "〜")).lower()
    text = re.sub(r"「(.*?)」", r"\1", text)
    return re.sub(r"『(.*?)』", r"\1", text)


def without_signs(text: str) -> str:
    """A text without white space and the signs that AI王's rule deletes."""
    return re.sub(rf"[\s{AIO_DELETED}]", "", text)


def find_answer(text: str, answer: str, behind: int = 0) -> int:
    """The first place, from `behind` on, where an answer stands as whole words; -1 if there is none."""
    start = text.find(answer, behind) if answer else -1
    while start >= 0:
        if not _inside(text, start, start + len(answer)):
            return start
        start = text.find(answer, start + 1)
    return -1


def stands(text: str, answer: str) -> bool:
    """Whether an answer stands in a text, character for character and as whole words."""
    return find_answer(text, answer) >= 0


def stands_by_rule(text: str, answer: str) -> bool:
    """The same after AI王's rule: width, case, 「」『』, ・=- and white space make no difference.

    An answer of which nothing is left (・, say) stands nowhere.
    """
    gold = without_signs(aio_undeleted(answer))
    plain = aio_undeleted(text)
    # What is found by the pattern is found without the signs, too, and much faster.
    return (
        bool(gold)
        and gold in without_signs(plain)
        and whole_words(answer).search(plain) is not None
    )


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
    first, last = text[start], text[end - 1]
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    if _WRITTEN.fullmatch(first) and (
        _WRITTEN.fullmatch(before[-1:]) or (first.isdigit() and _DECIMAL_BEFORE.fullmatch(before))
    ):
        return True
    return bool(
        _WRITTEN.fullmatch(last)
        and (_WRITTEN.match(after) or (last.isdigit() and _DECIMAL_AFTER.fullmatch(after)))
    )


_DECIMAL_BEFORE, _DECIMAL_AFTER = re.compile(r"\d[.,]"), re.compile(r"[.,]\d")
