"""Checkpoints that count only when they are whole.

Trainer writes a checkpoint's files in place, and one that lacks some of them resumes without a word
to other weights. So a manifest (files, sizes, sha256) is written last, and a checkpoint without a
true one is set aside.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from ragtune.console import warn
from ragtune.files import sha256, write_json

MANIFEST = "manifest.json"


def seal(folder: Path) -> None:
    """Write a checkpoint's manifest, last."""
    files = {
        str(path.relative_to(folder)): {"size": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    write_json(folder / MANIFEST, {"files": files})


def is_whole(folder: Path) -> bool:
    """Whether a checkpoint is exactly what its manifest says."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        return bool(files) and all(
            (folder / name).stat().st_size == entry["size"]
            and sha256(folder / name) == entry["sha256"]
            for name, entry in files.items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints in a folder as (step, path), oldest first."""
    found = [(re.fullmatch(r"checkpoint-(\d+)", p.name), p) for p in folder.glob("checkpoint-*")]
    return sorted((int(match[1]), path) for match, path in found if match and path.is_dir())


def newest_whole(folder: Path) -> Path | None:
    """The newest whole checkpoint; damaged or half-written newer ones are set aside, and said so."""
    for _, path in reversed(checkpoints(folder)):
        if is_whole(path):
            return path
        aside = path.with_name(f"damaged-{path.name}")
        shutil.rmtree(aside, ignore_errors=True)
        path.replace(aside)
        warn(
            f"{path.name} is not whole (cut off while it was written?); set aside as {aside.name}."
        )
    return None


def keep_newest(folder: Path, count: int, best: int | None) -> None:
    """Delete all but the newest `count` checkpoints and that of the best step."""
    for step, path in checkpoints(folder)[:-count]:
        if step != best:
            shutil.rmtree(path)
