"""A template that a recipe names: its text, inline or of a file."""

from __future__ import annotations

from ragtune.base.disk import named_path
from ragtune.base.errors import UsageError
from ragtune.base.reading import read_text

_LARGEST = 256 << 10
"""Bytes of the largest template, as of a recipe, which it becomes a part of."""


def read_template(text: str, key: str) -> tuple[str, str]:
    """A template given inline or as the path of a .jinja file; and what to call it in messages."""
    if not text.endswith((".jinja", ".j2")):
        return without_mark(text), key
    path = named_path(text, key)
    try:
        content = without_mark(read_text(path, _LARGEST)).removesuffix("\n")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        if isinstance(error, UnicodeDecodeError):
            reason = "not UTF-8"
        raise UsageError(f"{key}: {path} can't be read ({reason}).") from None
    if not content.strip():
        raise UsageError(f"{key}: {path} is empty.", "Name another file, or leave it out.")
    return content, str(path)


def without_mark(text: str) -> str:
    """A file's text without the byte order mark that some editors begin it with."""
    return text.removeprefix("\ufeff")
