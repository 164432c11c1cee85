"""Opening files that somebody else may have put there: plain ones only, and no more than is meant."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

from ragtune.base.text import size_of

# Else a pipe would be waited for until somebody writes into it.
_AT_ONCE = getattr(os, "O_NONBLOCK", 0)
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)


def no_links(name: str, flags: int) -> int:
    """An opener (of `open`) that refuses a link in the place of the file, where the system can."""
    return os.open(name, flags | _NO_LINKS, 0o666)


def open_plain(path: Path) -> BufferedReader:
    """Open a file to read it; a pipe without an end, or a device, is refused and not waited for.

    Raises:
        OSError: it can't be opened, or is no plain file.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is no plain file, but a pipe or a device", str(path))
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | _AT_ONCE))


def read_bytes(path: Path, most: int) -> bytes:
    """The content of a plain file.

    Raises:
        OSError: as `open_plain`; or the file has more than `most` bytes.
    """
    with open_plain(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it has more than {size_of(most)}", str(path))
    return content


def read_text(path: Path, most: int) -> str:
    """The text of a plain file in UTF-8, with every line break as LF. Raises as `read_bytes`, ValueError."""
    text = read_bytes(path, most).decode("utf-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")
