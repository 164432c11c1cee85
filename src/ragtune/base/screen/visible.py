"""Text of strangers as it can be seen, and does nothing: no controls, nothing hidden or turned around."""

from __future__ import annotations

import json
import re
import unicodedata

_PICTURE = "\u2190-\u2bff\U0001f000-\U0001faff"
_JOINING = "\u0600-\u109f\u1780-\u18af"
"""Arabic, the scripts of India and their neighbours: joiners shape their letters."""
_HAN = "\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_KEPT = re.compile(
    rf"(?<=[{_PICTURE}\ufe0f])\u200d(?=[{_PICTURE}])"  # a picture made of several
    rf"|(?<=[{_JOINING}])[\u200c\u200d](?=[{_JOINING}])"
    r"|(?<=[^\s\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff])[\ufe00-\ufe0f]"
    rf"|(?<=[{_HAN}])[\U000e0100-\U000e01ef]"  # a form of a Chinese character, as in 葛󠄀
)
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Letters and marks that draw nothing."""
_LOOKED_AT = re.compile(
    r"[^\w\n\t -~\xa1-\xac\xae-\xbf\u2010-\u2027\u3000-\u303f\uff01-\uff65]|[\u115f\u1160\u3164\uffa0]"
)
"""Everything but what is sure to be seen."""
_SEEN = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2")
"""Arabic and Syriac signs that count as format characters, but are drawn."""


def visible(text: str) -> str:
    r"""A text in which whatever can't be seen, or acts on what stands around it, is escaped as Python does.

    Escaped (`\x1b`, `\u202e`, `\U000e0041`) are all characters but newline and tab that are controls (C0,
    DEL, C1), format characters (directions, zero-width ones, tags, soft hyphens), line and paragraph
    separators, halves of surrogates, for private use, unassigned, or letters and marks without a form
    (fillers, variation selectors). Kept is what writing needs: spaces of any width, combining marks, one
    variation selector after what it varies, a joiner between two pictures or between two letters of a
    script that joins them. What was escaped once stays as it is.
    """
    return _LOOKED_AT.sub(_escaped, text)


def in_line(text: str) -> str:
    """A text as `visible`, for a place within a line: no newline in it, and no tab, is one."""
    return visible(text).replace("\n", "⏎").replace("\t", "\\t")


def visible_json(text: str) -> str:
    """A JSON text with the same value, in which strings have nothing that `visible` would escape."""
    return _LOOKED_AT.sub(
        lambda found: json.dumps(found[0])[1:-1] if _odd(found) else found[0], text
    )


BEGIN, END = "\ue000", "\ue001"
"""Around what `named` puts in; in its result they stand nowhere else."""
_LISTED = 4


def named(text: str) -> str:
    """A text in which what `visible` would escape stands as its names (U+202E) between BEGIN and END."""
    marked = _LOOKED_AT.sub(
        lambda found: f"{BEGIN}U+{ord(found[0]):04X}{END}" if _odd(found) else found[0], text
    )
    return _RUN.sub(_short, marked) if BEGIN in marked else marked


_RUN = re.compile(f"(?:{BEGIN}[^{END}]+{END}){{{_LISTED + 1},}}")


def _short(run: re.Match[str]) -> str:
    """The first names of many in a row, and how many there are: whole texts can be hidden so."""
    names = run[0][1:-1].split(END + BEGIN)
    return f"{BEGIN}{' '.join(names[:_LISTED])} … ({len(names):,}){END}"


def _escaped(found: re.Match[str]) -> str:
    if not _odd(found):
        return found[0]
    return found[0].encode("unicode_escape").decode("ascii")


def _odd(found: re.Match[str]) -> bool:
    character = found[0]
    if _KEPT.match(found.string, found.start()) or character in _SEEN:
        return False
    if _BLANK.match(character):
        return True
    return not (character.isprintable() or unicodedata.category(character) == "Zs")
