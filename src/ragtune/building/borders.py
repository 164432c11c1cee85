"""Where a sentence that is too long for a passage is cut: at marks, commas, words, or else between letters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from ragtune.building.ruler import Ruler
from ragtune.building.sentences import LINE_BREAK, Span

_BORDERS = (
    re.compile(r"[。．！？｡]+[」』）)\]】〉》”’]*|(?<![.!?…؟।])[.!?…؟।]++[\"')\]”’»]*+(?=\s)"),
    LINE_BREAK,
    re.compile(r"[;；:：؛](?=\s|[^\x00-\x7f])|[—–](?=\s)|[」』）】]"),
    re.compile(r"[,，、،､](?![0-9０-９])"),
    re.compile(r"\s+"),
    # Japanese has no blanks; most phrases end in hiragana.
    re.compile(r"[ぁ-ん](?=[^ぁ-んー])|[ァ-ヶー](?=[ぁ-ん一-龠])"),
    re.compile(r"(?<![/\\_\-.=&?#~|+@:;,])[/\\_\-.=&?#~|+@:;,]++(?=[^\W\d_])"),
)
"""From the best on: sentences within quotes, lines, clauses, phrases, words, parts of an address."""
_MOST_JOINED = 64
"""Characters that a letter may have with all its marks; more is no writing."""


def pieces(text: str, span: Span, ruler: Ruler, size: int, step: int) -> Iterator[Span]:
    """Parts of a span of which none is longer than `size`, cut at the best borders that there are.

    Where there is none, at every `step`, but never within a letter with its marks, or a picture.
    """
    yield from _pieces(text, span, ruler, size, step, 0)


def _pieces(
    text: str, span: Span, ruler: Ruler, size: int, step: int, level: int
) -> Iterator[Span]:
    start, end = span
    if ruler.reach(start, size) >= end:
        yield span
    elif level == len(_BORDERS):
        yield from _anywhere(text, span, ruler, step)
    else:
        for part in _parts(text, span, _BORDERS[level]):
            yield from _pieces(text, part, ruler, size, step, level + 1)


def _parts(text: str, span: Span, border: re.Pattern[str]) -> Iterator[Span]:
    at, end = span
    for found in border.finditer(text, at, end):
        yield from stripped(text, at, found.end())
        at = found.end()
    yield from stripped(text, at, end)


def stripped(text: str, start: int, end: int) -> list[Span]:
    """A span without the white space around it; none if there is nothing else."""
    part = text[start:end].rstrip()
    bare = part.lstrip()
    right = start + len(part)
    return [(right - len(bare), right)] if bare else []


def _anywhere(text: str, span: Span, ruler: Ruler, step: int) -> Iterator[Span]:
    at, end = span
    while at < end:
        stop = min(max(ruler.reach(at, step), at + 1), end)
        whole = stop
        while whole > at and stop - whole < _MOST_JOINED and _is_joined(text, whole, end):
            whole -= 1
        stop = whole if at < whole and not _is_joined(text, whole, end) else stop
        yield at, stop
        at = stop


def _is_joined(text: str, at: int, end: int) -> bool:
    """Whether what stands at a place belongs to the sign before it (Unicode's grapheme clusters)."""
    if at >= end:
        return False
    sign, before = text[at], text[at - 1]
    if unicodedata.category(sign)[0] == "M" or sign in "\u200d\u200c\uff9e\uff9f":
        return True
    if before == "\u200d" or "\U0001f3fb" <= sign <= "\U0001f3ff":
        return True
    if _is_flag(sign) and _is_flag(before):
        first = at
        while first > 0 and at - first < _MOST_JOINED and _is_flag(text[first - 1]):
            first -= 1
        return (at - first) % 2 == 1
    return "\u1160" <= sign <= "\u11ff" or "\U000e0020" <= sign <= "\U000e007f"


def _is_flag(sign: str) -> bool:
    """Two of these letters are a flag."""
    return "\U0001f1e6" <= sign <= "\U0001f1ff"
