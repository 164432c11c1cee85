"""What a cell of a sheet shows: numbers and dates as its format writes them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache

_TOKEN = re.compile(
    r'"(?P<quoted>[^"]*)"|\\(?P<escaped>.)|\[\$(?P<currency>[^\]-]*)[^\]]*\]|\[[^\]]*\]|_.|\*.'
    r"|(?P<part>am/pm|a/p|g+|e+|y+|m+|d+|h+|s+|a{3,4})|(?P<plain>.)",
    re.IGNORECASE | re.DOTALL,
)
_NUMBER = re.compile(r"[#0?][#0?,]*(?:\.(?P<decimals>[#0?]*))?")
_SCALED = re.compile(r"[/@eE]|[#0?],+(?![#0?,])")
"""Fractions, exponents and thousands left out: such numbers are written in full."""
_EXACT = 1e15
"""A sheet keeps 15 digits."""
_LOCAL = ("mm-dd-yy", "General")
"""What Excel writes as the short date of the country it runs in, and what says nothing."""
_ERAS = (
    (date(2019, 5, 1), "令和"),
    (date(1989, 1, 8), "平成"),
    (date(1926, 12, 25), "昭和"),
    (date(1912, 7, 30), "大正"),
    (date(1868, 1, 25), "明治"),
)
_DAYS = "月火水木金土日"
_NOON = 12
_WEEK = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
    "November", "December",
)  # fmt: skip


def shown(value: object, how: str) -> str:
    """A value as text: `how` is the cell's number format."""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, int | float):
        return _number(value, how)
    if isinstance(value, date):
        return _date(value, how)
    if isinstance(value, time):
        return _date(datetime.combine(date(1900, 1, 1), value), how)
    if isinstance(value, timedelta):
        minutes, seconds = divmod(round(value.total_seconds()), 60)
        shown_seconds = f":{seconds:02}" if "s" in how else ""
        return f"{minutes // 60}:{minutes % 60:02}{shown_seconds}"
    return str(value).replace("\r\n", "\n").strip()


def _number(value: float, how: str) -> str:
    sections = how.split(";")
    below = value < 0 and len(sections) > 1
    style = _style(sections[1] if below else sections[0])
    if style is None or abs(value) >= _EXACT:
        return _plain(value)
    exact = Decimal(repr(abs(value) if below else value)) * (100 if style.percent else 1)
    return f"{style.before}{_digits(exact, style)}{style.after}".strip()


@dataclass(frozen=True, slots=True)
class _Style:
    """How a number is written: `#,##0.0#` with what stands before and behind it."""

    before: str
    after: str
    percent: bool
    grouped: bool
    whole: int
    """Digits that there are at least; of `000` three."""
    decimals: str


@lru_cache(maxsize=1000)
def _style(section: str) -> _Style | None:
    blanked = _TOKEN.sub(lambda m: m[0] if m["plain"] or m["part"] else " " * len(m[0]), section)
    found = _NUMBER.search(blanked)
    if found is None or _SCALED.search(blanked):
        return None
    return _Style(
        _literals(section[: found.start()]),
        _literals(section[found.end() :]),
        "%" in blanked,
        "," in found[0],
        found[0].partition(".")[0].count("0"),
        found["decimals"] or "",
    )


def _digits(value: Decimal, style: _Style) -> str:
    """A number in the digits that are asked for; halves are rounded up, as in a sheet."""
    rounded = value.quantize(Decimal(1).scaleb(-len(style.decimals)), ROUND_HALF_UP)
    text = f"{rounded:{',' if style.grouped else ''}f}"
    for wanted in reversed(style.decimals):
        if wanted == "0" or not text.endswith("0"):
            break
        text = text[:-1]
    sign, text = ("-", text[1:]) if text.startswith("-") else ("", text)
    whole, dot, rest = text.partition(".")
    return sign + whole.zfill(style.whole) + (dot + rest if rest else "")


def _plain(value: float) -> str:
    """A number with the 15 digits that a sheet keeps: 0.1 + 0.2 is 0.3."""
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        value = int(value)
    return str(value) if isinstance(value, int) else f"{value:.15g}"


def _literals(text: str) -> str:
    return "".join(
        m["quoted"] or m["escaped"] or m["currency"] or m["plain"] or m["part"] or ""
        for m in _TOKEN.finditer(text)
    )


def _date(value: date, how: str) -> str:
    pieces = _pieces(how)
    if not any(part for part, _ in pieces):
        return value.isoformat().removesuffix("T00:00:00").replace("T", " ")
    moment = value if isinstance(value, datetime) else datetime.combine(value, time())
    half = any(part in ("am/pm", "a/p") for part, _ in pieces)
    shown = (_part(moment, part, half=half) if part else literal for part, literal in pieces)
    return "".join(shown).strip()


@lru_cache(maxsize=1000)
def _pieces(how: str) -> tuple[tuple[str, str], ...]:
    """Of a date's format: parts such as `yyyy`, and what stands between them; n is a minute."""
    section = how.partition(";")[0]
    if section in _LOCAL:
        return ()
    tokens = list(_TOKEN.finditer(section))
    parts = [(token["part"] or "").lower() for token in tokens]
    return tuple(
        (_minutes(parts, index), _literals(token[0])) for index, token in enumerate(tokens)
    )


def _minutes(parts: list[str], index: int) -> str:
    """A part; where m means minutes, n: behind hours and before seconds."""
    part = parts[index]
    if part in ("m", "mm"):
        before = next((p for p in reversed(parts[:index]) if p), "")
        after = next((p for p in parts[index + 1 :] if p), "")
        if before.startswith("h") or after.startswith("s"):
            return part.replace("m", "n")
    return part


def _part(at: datetime, part: str, *, half: bool) -> str:
    """One part of a date, such as `yyyy`."""
    number = {
        "y": at.year, "m": at.month, "d": at.day, "n": at.minute, "s": at.second,
        "h": at.hour % _NOON or _NOON if half else at.hour,
    }  # fmt: skip
    if part in _NAMED:
        return _NAMED[part](at)
    return f"{number[part[0]]:0{min(len(part), 2)}}" if part[0] in number else ""


def _era(day: date) -> tuple[str, int]:
    """The name of a Japanese era, and the year in it."""
    for first, name in _ERAS:
        if day >= first:
            return name, day.year - first.year + 1
    return "", day.year


_NAMED: dict[str, Callable[[datetime], str]] = {
    "mmm": lambda at: _MONTHS[at.month - 1][:3],
    "mmmm": lambda at: _MONTHS[at.month - 1],
    "ddd": lambda at: _WEEK[at.weekday()][:3],
    "dddd": lambda at: _WEEK[at.weekday()],
    "aaa": lambda at: _DAYS[at.weekday()],
    "aaaa": lambda at: f"{_DAYS[at.weekday()]}曜日",
    "am/pm": lambda at: "AM" if at.hour < _NOON else "PM",
    "a/p": lambda at: "A" if at.hour < _NOON else "P",
    "y": lambda at: f"{at.year % 100:02}",
    "yy": lambda at: f"{at.year % 100:02}",
    **{"g" * n: lambda at: _era(at.date())[0] for n in (1, 2, 3)},
    "e": lambda at: str(_era(at.date())[1]),
    "ee": lambda at: f"{_era(at.date())[1]:02}",
}
"""Parts that are more than a number."""
