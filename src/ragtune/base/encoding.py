"""Which encoding a text is in: as it is named, by its first bytes, else found by looking."""

from __future__ import annotations

import codecs
import encodings.aliases
import re

from ragtune.base.text import nearest, size_of

MAX_GUESSED = 64 << 20
"""Bytes of a text whose encoding is looked for; UTF-8 and what is named have no limit here."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins like that of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LIKELY = (
    "cp932", "euc_jp", "cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258",
    "koi8_r", "gb18030", "big5", "cp949", "tis_620",
)  # fmt: skip
"""What spreadsheets and editors write besides Unicode; of several that fit as well, the first."""
_COMMON = re.compile(r"[\t\n\r -~、。ぁ-んァ-ー]")
_KANA = re.compile(r"[ぁ-んァ-ー]")
_KANA_SHARE = 0.2
"""Of the letters of a Japanese text at least as many are kana."""
_CLEARLY = 3
_CONTROLS = re.compile(r"[\0-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_FEW_CONTROLS = 0.001


def decode(content: bytes, named: str | None = None) -> tuple[str, str]:
    """The text of a file's bytes without its mark, and the encoding.

    Args:
        content: of the whole file.
        named: the encoding, if the user names one; then no other is tried.

    Raises:
        ValueError: in words that may follow the file's name: an encoding that isn't known or doesn't fit,
            or what is no text.
    """
    if named is not None:
        return _as_named(content, named)
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return _strict(content[len(mark) :] if encoding == "utf-8" else content, encoding)
    if wide := _wide(content):
        return _strict(content, wide)
    if b"\x1b$" in content:
        try:
            return content.decode("iso2022_jp_ext"), "iso2022_jp"
        except UnicodeDecodeError:
            pass
    try:
        return content.decode("utf-8"), "utf-8"
    except UnicodeDecodeError as error:
        return _found(content, error.start)


def _as_named(content: bytes, named: str) -> tuple[str, str]:
    try:
        encoding = codecs.lookup(named).name
        known = codecs.lookup(named)._is_text_encoding  # noqa: SLF001 - nothing else tells base64 from cp932
    except LookupError:
        known = False
    if not known:
        near = nearest(named.lower(), sorted(set(encodings.aliases.aliases)))
        raise ValueError(
            f"{named!r} is no encoding" + (f"; perhaps {near} was meant" if near else "")
        )
    text, _ = _strict(content, encoding)
    return text.removeprefix("\ufeff"), encoding


def _strict(content: bytes, encoding: str) -> tuple[str, str]:
    try:
        return content.decode(encoding), encoding
    except UnicodeDecodeError as error:
        raise ValueError(f"not {encoding} (byte {error.start:,})") from None


def _wide(content: bytes) -> str | None:
    """UTF-16 without a mark: no other text has zeros, and the wrong order of bytes gives rare signs."""
    start = content[: 1 << 16]
    if b"\0" not in start or len(content) % 2:
        return None
    common = {}
    for encoding in ("utf-16-le", "utf-16-be"):
        text = start.decode(encoding, "replace")
        common[encoding] = (
            0 if "\ufffd" in text[:-1] or "\0" in text else len(_COMMON.findall(text))
        )
    best, other = sorted(common, key=lambda name: -common[name])
    return best if common[best] > _CLEARLY * common[other] else None


def _found(content: bytes, place: int) -> tuple[str, str]:
    """By kana, which are rare by chance; else by how much of a riddle the text would be."""
    from charset_normalizer import from_bytes  # noqa: PLC0415 - takes a moment, and is seldom needed

    if len(content) > MAX_GUESSED:
        raise ValueError(
            f"not UTF-8 (byte {place:,}), and more than {size_of(MAX_GUESSED)}, of which the encoding isn't "
            "looked for"
        )
    if japanese := _japanese(content):
        return japanese
    fitting = [
        (match.chaos, -match.coherence, _LIKELY.index(name), name)
        for match in from_bytes(content, cp_isolation=list(_LIKELY))
        for name in match.could_be_from_charset
        if name in _LIKELY
    ]
    if not fitting:
        raise ValueError(f"no text in an encoding that is known (not UTF-8 at byte {place:,})")
    text, encoding = _strict(content, min(fitting)[-1])
    if len(_CONTROLS.findall(text)) > _FEW_CONTROLS * len(text):
        raise ValueError(f"no text: it holds control characters (not UTF-8 at byte {place:,})")
    return text, encoding


def _japanese(content: bytes) -> tuple[str, str] | None:
    """charset-normalizer gives up on one Japanese paragraph in a hundred, or says Chinese."""
    for encoding in ("cp932", "euc_jp", "utf-16-le", "utf-16-be"):
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        letters = sum(not c.isascii() for c in text)
        if len(_KANA.findall(text)) >= _KANA_SHARE * letters and not _CONTROLS.search(text):
            return text, encoding
    return None
