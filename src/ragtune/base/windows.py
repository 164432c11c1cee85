"""What Windows does otherwise: reserved names, renames that it refuses for moments."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

WINDOWS = os.name == "nt"
TOO_LONG = 206
"""Windows' number for a path of more than 260 characters where longer ones are not switched on."""
_DEVICE = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³]) *(\..*)?",
    re.IGNORECASE | re.DOTALL,
)
_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Seconds between two attempts to rename."""


def is_reserved(name: str) -> bool:
    """Whether Windows can't have a file of this name: a device's with any ending, or with a dot at its end."""
    return _DEVICE.fullmatch(name) is not None or name.endswith((".", " "))


def rename(source: Path, target: Path) -> None:
    """Give a file or a folder another name, in the place of a file that has it; as a whole or not at all.

    On Windows a virus scanner or an indexer may hold for a moment what was just written.

    Raises:
        OSError: it can't be renamed.
    """
    for pause in _PAUSES if WINDOWS else ():
        try:
            source.replace(target)
        except PermissionError:
            time.sleep(pause)
        else:
            return
    source.replace(target)


BACKSLASHES = (
    "In YAML's double quotes a backslash begins an escape: "
    "write a path of Windows in single quotes, or with /."
)
