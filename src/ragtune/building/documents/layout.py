"""From the lines of a page to paragraphs: which lines belong together, and what stands between them.

A PDF file has no paragraphs, only letters at places. A line goes on in the next one if the next one's
first word had no room in it.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from ragtune.building.documents.parts import LINE, PARAGRAPH

_HYPHENATED = re.compile(r"\ufffe\s*(?P<word>(?:and|or|to|und|oder)\b)?(?P<next>\S?)")
"""What PDFium makes of a hyphen at the end of a line, which it joins with the next. `pre- and postwar`
keeps it."""
_ITEM = re.compile(r"[•・●○■□◆◇▪‣⁃※→–—*-]\s*\S|[①-⑳]")
_NUMBERED = re.compile(r"\(?\d{1,3}[.)、．）]\s?\D|第\d+[条章節]")
"""An item of a list if the line before ended a sentence; else a number in one."""
_ENDED = tuple(".。．:：;；!?！？)）」』")
_WORD = re.compile(r"[!-⺀]+")
"""A word of a language that has blanks between words."""
_UPRIGHT = 5
"""Letters from which on a line is taken for vertical; fewer may be lines of one letter, below each other."""
_OTHER_SIZE, _OTHER_GAP = 0.08, 1.3
"""From how much on another size of letters, or a wider gap, begins another paragraph."""
_NEAR, _INDENT, _NARROW = 12, 4, 10
"""How many lines around one, and beginning how many letters further left or right, show how wide its
column is; and below how many letters it is none, but a list of short lines."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a page; places in points, from left to right and from bottom to top."""

    text: str
    left: float
    right: float
    first: float
    """Where its first letter stands on; where PDFium joined two lines, the last one's is another."""
    last: float
    size: float
    """Of its letters."""
    word: float
    """The width of its first word."""
    known: bool = True
    """Whether its font says which letters it shows."""
    vertical: bool = False
    """Whether it goes from top to bottom. It is turned then: left is its top, and what it stands on its x."""


def first_word(text: str) -> str:
    """The word that a line begins with; "" where it could be broken between any letters."""
    found = _WORD.match(text)
    return found[0] if found else ""


def paragraphs(lines: Sequence[Line]) -> str:
    """The text of a page: lines that belong together joined, paragraphs apart."""
    lines = in_order(lines)
    gaps = [a.last - b.first for a, b in pairwise(lines) if 0 < a.last - b.first < 4 * a.size]
    usual = median(gaps) if gaps else 0.0
    text = ""
    for number, line in enumerate(lines):
        if number:
            text += _between(lines, number - 1, line, usual)
        # A font that has only a soft hyphen shows it for every hyphen.
        text += _HYPHENATED.sub(_joined_word, line.text.strip()).replace("\xad", "-")
    return text


def in_order(lines: Sequence[Line]) -> Sequence[Line]:
    """Lines as they are read. PDFium keeps the file's order, but turns that of vertical lines around.

    Vertical lines go from right to left, in tiers from the top.
    """
    vertical = sum(len(line.text) for line in lines if line.vertical and len(line.text) >= _UPRIGHT)
    if vertical <= sum(len(line.text) for line in lines) / 2:
        return lines
    tiers: list[list[Line]] = []
    end = -math.inf
    for line in sorted(lines, key=lambda line: line.left):
        if line.left >= end:
            tiers.append([])
        tiers[-1].append(line)
        end = max(end, line.right)
    return [line for tier in tiers for line in sorted(tier, key=lambda line: -line.first)]


def over_pages(before: Sequence[Line], after: Sequence[Line]) -> str:
    """What stands between the texts of two pages: a paragraph may go on."""
    before, after = in_order(before), in_order(after)
    if not before or not after or not _same_size(before[-1], after[0]):
        return PARAGRAPH
    goes_on = _goes_on(before, len(before) - 1, after[0])
    return _joint(before[-1], after[0]) if goes_on else PARAGRAPH


def _between(lines: Sequence[Line], number: int, after: Line, usual: float) -> str:
    """What stands between a line and the next one."""
    line = lines[number]
    gap = line.last - after.first
    if abs(gap) < line.size / 3:  # Side by side
        return " " if after.left >= line.right else LINE
    if not _same_size(line, after) or (usual and gap > _OTHER_GAP * usual):
        return PARAGRAPH
    if _goes_on(lines, number, after):
        return _joint(line, after)
    return LINE if gap > 0 else PARAGRAPH  # Upwards is the next column


def _same_size(a: Line, b: Line) -> bool:
    return abs(a.size - b.size) <= _OTHER_SIZE * a.size


def _goes_on(lines: Sequence[Line], number: int, after: Line) -> bool:
    """Whether a line had no room for the first word of the next one, which is no item of a list."""
    line = lines[number]
    near = [
        other
        for other in lines[max(number - _NEAR, 0) : number + _NEAR]
        if _same_size(line, other) and abs(line.left - other.left) <= _INDENT * line.size
    ]
    edge = max(other.right for other in near)
    if _ITEM.match(after.text) or (
        _NUMBERED.match(after.text) and line.text.rstrip().endswith(_ENDED)
    ):
        return False
    wide = edge - min(other.left for other in near) >= _NARROW * line.size
    return wide and edge - line.right < after.word


def _joint(a: Line, b: Line) -> str:
    """What stands between two lines of a paragraph: nothing in Japanese, a blank in English."""
    if a.text[-1:].isspace():
        return " "
    end, start = a.text[-1:], b.text.lstrip()[:1]
    if is_unspaced(end) or is_unspaced(start):
        return ""
    # A number in Japanese text may be broken anywhere.
    number = end.isdigit() and start.isdigit() and any(map(is_unspaced, a.text + b.text))
    return "" if number else " "


def is_unspaced(letter: str) -> bool:
    """Whether a letter is of a language that has no blanks between words."""
    return (
        bool(letter)
        and unicodedata.east_asian_width(letter) in "WF"
        and not unicodedata.name(letter, "").startswith("HANGUL")
    )


def _joined_word(found: re.Match[str]) -> str:
    """A word that was divided at the end of a line; a hyphen before a capital or a digit is its own."""
    if found["word"]:
        return f"- {found['word']}{found['next']}"
    return found["next"] if found["next"].islower() else f"-{found['next']}"
