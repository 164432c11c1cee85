"""Small things about text that every room needs, written once."""

from __future__ import annotations

import difflib

_KIB = 1024.0
_LONG_S, _LONG_MIN = 120, 120
"""From so many on the next unit says enough."""


def shortened(text: str, length: int = 60) -> str:
    """A text of at most `length` characters; one that was cut ends in an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"


def first_line(error: BaseException) -> str:
    """The first line of what an error says; its type's name if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def one_or_many(number: int, one: str, many: str = "") -> str:
    """1 question, 2,000 questions; without `many` it is `one` with an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def named(names: list[str], most: int = 3) -> str:
    """The first of many names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def size_of(count: float) -> str:
    """Bytes in words: 12.3 GiB, 293 MiB, 4 KiB."""
    if count >= _KIB**3:
        return f"{count / _KIB**3:.1f} GiB"
    return f"{count / _KIB**2:.0f} MiB" if count >= _KIB**2 else f"{-(-int(count) // 1024)} KiB"


def duration(seconds: float) -> str:
    """A time in words: 95 s, 12 min, 2 h 10 min."""
    if seconds < _LONG_S:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < _LONG_MIN else f"{minutes // 60} h {minutes % 60} min"


def nearest(word: str, words: list[str]) -> str | None:
    """The word that `word` was probably meant to be: by the whole, else by its last part."""
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.75)
    if not close:
        last = word.rpartition(".")[2]
        by_last = {w.rpartition(".")[2]: w for w in reversed(words)}
        near = difflib.get_close_matches(last, list(by_last), n=1, cutoff=0.6)
        close = [by_last[match] for match in near]
    return close[0] if close else None
