"""A Hub model in the cache: which commit it is, and whether it is still what was downloaded."""

from __future__ import annotations

import contextlib
import hashlib
import sys
from pathlib import Path

from ragtune.checksums import set_aside
from ragtune.errors import RagtuneError
from ragtune.files import cache_dir, later, read_json, sha256, write_json
from ragtune.model.source import ModelSource

_SHA1, _SHA256 = 40, 64
"""Characters of the names that the Hub's cache gives to files: git's for small ones, sha256 for large."""


def commit_of(source: ModelSource) -> str | None:
    """The commit of a Hub model that is in the cache; None for any other model."""
    snapshot = _snapshot(source)
    return snapshot.name if snapshot else None


def set_damaged_aside(source: ModelSource, largest: int = sys.maxsize) -> None:
    """See that the cached files of a Hub model are what their names say; a damaged one goes.

    It is then downloaded again. What was found whole is remembered by size and time, so that
    gigabytes are read once and not at every start.

    Args:
        source: any model.
        largest: files of more bytes are not looked at.
    """
    snapshot = _snapshot(source)
    if snapshot is None:
        return
    memory = cache_dir() / "whole.json"
    known: dict[str, list[int]] = {}
    with contextlib.suppress(RagtuneError):
        known = read_json(memory)["files"] if memory.exists() else {}
    begun = []
    for link in sorted(p for p in snapshot.rglob("*") if p.is_file()):
        blob = link.resolve()
        stat = blob.stat()
        seen = [stat.st_size, stat.st_mtime_ns]
        named = len(blob.name) in (_SHA1, _SHA256)
        if named and stat.st_size <= largest and known.get(str(blob)) != seen:
            begun.append((link, blob, seen, later(lambda blob=blob: _digest(blob))))  # type: ignore[misc]
    for link, blob, seen, digest in begun:
        if digest.result() == blob.name:
            known[str(blob)] = seen
        else:
            set_aside(blob, f"{link.name} of {source.name} has another checksum")
            link.unlink()
    if begun:
        write_json(memory, {"files": {k: v for k, v in known.items() if Path(k).exists()}})


def _snapshot(source: ModelSource) -> Path | None:
    if source.path != source.name:
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source.path, "config.json", revision=source.revision)
    return Path(found).parent if isinstance(found, str) else None


def _digest(blob: Path) -> str:
    if len(blob.name) == _SHA256:
        return sha256(blob)
    content = blob.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
