"""Sizes, times and sha256 of what is finished, and whether it is still as it was.

Hashing gigabytes at every start would cost more than it finds. So sizes are compared always, the
content of small files always, and that of large ones when their time has changed or on demand.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NotRequired  # pydantic wants these, before Python 3.12

from typing_extensions import TypedDict

from ragtune.base.files import MAX_JSON, later, remove, sha256, write_json
from ragtune.base.reading import read_text
from ragtune.base.screen.console import warn
from ragtune.base.windows import rename


class FileFacts(TypedDict):
    """What is known of a file."""

    size: int
    mtime_ns: NotRequired[int]
    sha256: str


Files = dict[str, FileFacts]

MANIFEST = "manifest.json"
SMALL = 16 * 2**20
"""Bytes up to which a file is read every time: milliseconds each."""
_NOT_RESULTS = {MANIFEST, "README.md"}  # the card is written when something is published


def checksums(path: Path) -> Files:
    """Size, modification time and sha256 of a file, or of every file in a folder, by name."""
    if path.is_file():
        return {path.name: facts_of(path)}
    entries = {name: later(partial(facts_of, file)) for name, file in _files(path)}
    return {name: entry.result() for name, entry in entries.items()}


def _files(path: Path) -> list[tuple[str, Path]]:
    return [
        (str(file.relative_to(path)), file)
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name not in _NOT_RESULTS
    ]


def facts_of(file: Path, known: FileFacts | None = None) -> FileFacts:
    """Size, time and sha256 of a file; a large one's as they are known, where size and time are the same."""
    stat = file.stat()
    now = stat.st_size, stat.st_mtime_ns
    if known and stat.st_size > SMALL and now == (known["size"], known.get("mtime_ns")):
        return known
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256(file)}


def difference(path: Path, files: Files, *, thorough: bool = False) -> str | None:
    """What is not as `checksums` found it, in words, or None. Files that came later don't count.

    Args:
        path: the file or folder.
        files: what `checksums` returned; where only a time differs the new one is put in.
        thorough: read every file, large ones too.
    """
    begun: list[tuple[str, int, Callable[[], str]]] = []
    for name, entry in files.items():
        file = path if path.is_file() else path / name
        try:
            stat = file.stat()
        except OSError:
            return f"{name} is gone"
        if stat.st_size != entry["size"]:
            return f"{name} has {stat.st_size:,} bytes instead of {entry['size']:,}"
        digest: Callable[[], str] = partial(str, entry["sha256"])
        if stat.st_size <= SMALL:
            digest = partial(sha256, file)
        elif thorough or stat.st_mtime_ns != entry.get("mtime_ns"):
            digest = later(partial(sha256, file)).result  # large ones side by side
        begun.append((name, stat.st_mtime_ns, digest))
    for name, mtime, digest in begun:
        if digest() != files[name]["sha256"]:
            return f"{name} has another checksum"
        files[name]["mtime_ns"] = mtime
    return None


def seal(path: Path) -> None:
    """Write the manifest of a folder into it, or that of a file beside it; last, when it is whole."""
    write_json(_manifest(path), {"files": checksums(path)})


def sealed(path: Path) -> Files | None:
    """What the manifest says; None if there is none, or it is none."""
    try:
        found = json.loads(read_text(_manifest(path), MAX_JSON))["files"]
        entries = [(entry["size"], entry["sha256"]) for entry in found.values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    good = all(isinstance(size, int) and isinstance(digest, str) for size, digest in entries)
    return found if entries and good else None


def is_whole(path: Path) -> bool:
    """Whether something is exactly what its manifest says; all of it is read."""
    files = sealed(path)
    return files is not None and difference(path, files, thorough=True) is None


def unchanged(path: Path) -> bool:
    """Whether something in the cache is just what its manifest says; nothing is written.

    If not, it may be damaged, or another process may be making it: `cached` decides, within `making`
    of ragtune.base.lock.
    """
    files = sealed(path)
    old = json.dumps(files)
    return files is not None and difference(path, files) is None and json.dumps(files) == old


def cached(path: Path) -> bool:
    """Whether something in the cache is there and whole; if it is damaged it is set aside.

    What an older version left without a manifest is taken as it is, and gets one.
    """
    if not path.exists():
        return False
    if not _manifest(path).exists():
        seal(path)
        return True
    files = sealed(path)
    old = json.dumps(files)
    problem = difference(path, files) if files else "its manifest can't be read"
    if problem or not files:
        set_aside(path, str(problem))
        return False
    if json.dumps(files) != old:  # so that the content is not read again next time
        write_json(_manifest(path), {"files": files})
    return True


ASIDE = "damaged-"
"""How the name of what was set aside begins."""


def set_aside(path: Path, problem: str) -> Path:
    """Rename something damaged to damaged-NAME, in the place of an earlier one, and say so."""
    aside = path.with_name(f"{ASIDE}{path.name}")
    remove(aside)
    rename(path, aside)
    warn(f"{path} is damaged ({problem}): set aside as {aside.name}, and made again when needed.")
    return aside


def _manifest(path: Path) -> Path:
    return path / MANIFEST if path.is_dir() else path.with_name(f"{path.name}.{MANIFEST}")
