"""The encoding of a document's file: `base/encoding.py`, with the file's name in what is said."""

from __future__ import annotations

import codecs

from ragtune.base import encoding
from ragtune.base.commands import install
from ragtune.base.errors import UsageError
from ragtune.building.documents.document import UnreadableError

_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
"""Byte order marks; UTF-32's other one begins like UTF-16's."""


def require_encoding(named: str | None) -> None:
    """Raise unless Python knows the encoding that the user named.

    Raises:
        UsageError: it doesn't.
    """
    try:
        encoding.decode(b"", named)
    except ValueError as error:
        raise UsageError(
            f"documents.encoding: {error}.", "Such as utf-8, cp932, euc_jp, utf-16, cp1252."
        ) from None


def decode(content: bytes, name: str, named: str | None = None) -> tuple[str, str]:
    """The text of a file, and the encoding that it is in.

    Args:
        content: of the file, or its beginning up to the end of a line.
        name: of the file.
        named: the encoding that the user named; a byte order mark knows better.

    Raises:
        UnreadableError: it is in none that can be told, or not in the one that was named.
        UsageError: charset-normalizer isn't installed, and would have to tell.
    """
    try:
        return encoding.decode(content, None if content.startswith(_MARKS) else named)
    except ValueError as error:
        advice = "Save it as UTF-8, or name its encoding as documents.encoding (cp932, cp1252, …)."
        raise UnreadableError(
            f"{name}: {error}.",
            advice if named is None else "Save it as UTF-8, or leave documents.encoding out.",
        ) from None
    except ImportError:
        raise UsageError(
            f"{name} is not UTF-8; charset-normalizer would tell what it is, and is not installed.",
            f"Run: {install('charset-normalizer')}. Or name documents.encoding.",
        ) from None
