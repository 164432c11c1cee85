"""Checkpoints that count only when they are whole.

Trainer writes a checkpoint's files in place, and one that lacks some of them resumes without a word
to other weights. So a manifest (files, sizes, sha256) is written last, and a checkpoint without a
true one is set aside.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from ragtune.base.disk import disk_errors
from ragtune.base.files import remove
from ragtune.store.seal import is_whole, seal, set_aside


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints in a folder as (step, path), oldest first."""
    found = [(re.fullmatch(r"checkpoint-(\d+)", p.name), p) for p in folder.glob("checkpoint-*")]
    return sorted((int(match[1]), path) for match, path in found if match and path.is_dir())


def newest_whole(folder: Path) -> Path | None:
    """The newest whole checkpoint; damaged or half-written newer ones are set aside, and said so."""
    for _, path in reversed(checkpoints(folder)):
        if is_whole(path):
            return path
        set_aside(path, "not whole; cut off while it was written?")
    return None


@contextlib.contextmanager
def writing(checkpoint: Path, needed: int) -> Iterator[None]:
    """Let a checkpoint of so many bytes be written: whole, with its manifest, or not at all."""
    try:
        with disk_errors(checkpoint, needed):
            remove(checkpoint)  # nothing is written over
            yield
            seal(checkpoint)
    except BaseException:  # a stop, too
        shutil.rmtree(checkpoint, ignore_errors=True)  # half of it would fill the disk
        raise


def keep_newest(folder: Path, count: int, best: int | None) -> None:
    """Delete all but the newest `count` checkpoints and that of the best step."""
    for step, path in checkpoints(folder)[:-count]:
        if step != best:
            remove(path)
