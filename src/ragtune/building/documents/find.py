"""Finding what the user named: files, folders, globs, archives and datasets of the Hub, each file once."""

from __future__ import annotations

import glob
import os
import re
import stat
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from ragtune.base.disk import named_path
from ragtune.base.errors import UsageError
from ragtune.base.screen.console import note, warn
from ragtune.base.screen.progress import busy
from ragtune.base.text import named, one_or_many, shortened
from ragtune.building.documents.archives import HIDDEN, LINK, is_hidden, members
from ragtune.building.documents.encoding import require_encoding
from ragtune.building.documents.kinds import (
    ARCHIVES,
    KNOWN,
    READ_WHOLE,
    RECORDS,
    TABLES,
    refuse_old,
)
from ragtune.building.documents.source import Source
from ragtune.recipe.corpus import Documents

_DATASET = re.compile(r"\w[\w.-]*/\w[\w.-]*(:[^:/\s]+){0,2}")
_GLOB = re.compile(r"[*?\[]")
MAX_FILES = 1_000_000
_KNOWN = (*READ_WHOLE, *TABLES, *RECORDS)
_TWICE, _UNKNOWN, _OUTSIDE = "named twice", "of unknown kinds", "links that leave the folder"
_CLOSED = "folders that can't be looked into"


def find_files(documents: Documents) -> list[Source]:
    """The sources of all that `documents.files` names, in its order; what lies in a folder, by its path.

    What is left out is said, with how many there are: hidden files, links that leave a folder, files of
    kinds that aren't read, and files that were there before. What can't be read is a source that says so.

    Raises:
        UsageError: something named isn't there, or nothing is found.
    """
    require_encoding(documents.encoding)
    found = _Found()
    for text in documents.files:
        found.add(text)
    found.say()
    if not found.sources:
        raise UsageError(
            f"documents.files: {named(documents.files)} hold{'s' * (len(documents.files) == 1)} no document.",
            KNOWN,
        )
    return found.sources


def require_named(text: str) -> Path:
    """The path of what `documents.files` names: a file, a folder, a name with *, or a dataset of the Hub.

    Raises:
        UsageError: it isn't there, or matches nothing, and it can be no dataset.
    """
    path = named_path(text, "documents.files")
    is_file = text.lower().endswith((*_KNOWN, *ARCHIVES))  # by its name
    if path.exists():
        return path
    if _GLOB.search(text):
        if next(glob.iglob(str(path), recursive=True), None) is None:  # noqa: PTH207 - it takes whole paths
            raise UsageError(
                f"documents.files: {shortened(text, 200)} matches nothing.",
                f"Paths are relative to the current folder, {Path.cwd()}; ** stands for folders in folders.",
            )
    elif is_file or not _DATASET.fullmatch(text):
        raise UsageError(
            f"documents.files: {shortened(text, 200)} does not exist.",
            f"Paths are relative to the current folder, {Path.cwd()}."
            + ("" if is_file else " A dataset of the Hub is owner/name."),
        )
    return path


@dataclass
class _Found:
    sources: list[Source] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    paths: set[Path] = field(default_factory=set)

    def add(self, text: str) -> None:
        path = require_named(text)
        if path.is_dir():
            self._folder(path)
        elif path.exists():
            self._named(path)
        elif _GLOB.search(text):
            self._glob(str(path))
        else:
            self._put(Source(Path(), text, dataset=text))

    def _named(self, path: Path) -> None:
        """A file that the user named itself: of whatever kind, it is not passed over."""
        source = Source(path, path.name)
        if not path.is_file():
            raise UsageError(
                f"documents.files: {path} is no plain file, but a pipe or a device.",
                "Write what it gives to a file.",
            )
        if (
            source.suffix not in (*_KNOWN, *ARCHIVES)
            and refuse_old(source.suffix, path.name) is None
        ):
            raise UsageError(f"documents.files: {path} is of a kind that is not read.", KNOWN)
        self._file(path, path.name)

    def _glob(self, pattern: str) -> None:
        before = _GLOB.split(pattern)[0]
        base = Path(before) if before.endswith(("/", os.sep)) else Path(before).parent
        matches = sorted(Path(match) for match in glob.iglob(pattern, recursive=True))  # noqa: PTH207 - as above
        root = base.resolve()
        for match in matches:
            if not match.is_dir():
                self._below(base, root, match)

    def _folder(self, folder: Path) -> None:
        root = folder.resolve()
        for path in _walk(folder, self.skip):
            self._below(folder, root, path)

    def _below(self, base: Path, root: Path, path: Path) -> None:
        """A file in a folder that the user named."""
        inner = path.relative_to(base).as_posix()
        top = base.name if base.name != ".." else base.resolve().name
        name = f"{top}/{inner}" if top else inner
        if is_hidden(inner):
            self.skip(HIDDEN, name)
        elif not _is_below(path, root):
            self.skip(_OUTSIDE, name)
        elif path.is_dir():
            self.skip(_TWICE, name)  # a link to a folder that is walked through anyway
        elif not _is_plain(path):
            self.skip(LINK, name)
        else:
            self._file(path, name)

    def _file(self, path: Path, name: str) -> None:
        real = path.resolve()
        if real in self.paths:
            self.skip(_TWICE, name)
            return
        self.paths.add(real)
        source = Source(path, self._free(name, path))
        old = refuse_old(source.suffix, source.name)
        if old is not None:
            self._put(replace(source, problem=old.message, advice=old.advice))
        elif source.suffix in ARCHIVES:
            with busy(f"looking into {source.name}"):
                found = members(path, source.name, self.skip)
            for member in found:
                self._member(member)
        elif source.suffix in _KNOWN:
            self._put(source)
        else:
            self.skip(_UNKNOWN, name)

    def _member(self, source: Source) -> None:
        old = refuse_old(source.suffix, source.name)
        if source.problem or source.suffix in _KNOWN:
            self._put(replace(source, name=self._free(source.name)))
        elif source.suffix in ARCHIVES:
            self._put(
                replace(
                    source,
                    problem=f"{source.name}: an archive in an archive is not opened.",
                    advice="Unpack the outer one, and name the folder.",
                )
            )
        elif old is not None:
            self._put(replace(source, problem=old.message, advice=old.advice))
        else:
            self.skip(_UNKNOWN, source.name)

    def _put(self, source: Source) -> None:
        if len(self.sources) == MAX_FILES:
            raise UsageError(
                f"documents.files: more than {MAX_FILES:,} files.",
                "Put many small documents into one .jsonl file: {id, title, text} a line.",
            )
        self.names.add(source.name)
        self.sources.append(source)

    def _free(self, name: str, path: Path | None = None) -> str:
        """A name that no other source has: with more of the path before it, or a number in it.

        It is text, whatever bytes a file is called by, and composed as one types it: macOS takes が apart.
        """
        name = unicodedata.normalize("NFC", name.encode("utf-8", "replace").decode())
        parents = [] if path is None else list(path.resolve().parts[1 : -len(name.split("/"))])
        whole = name
        while whole in self.names and parents:
            whole = f"{parents.pop()}/{whole}"
        suffix = Source(Path(), name).suffix
        stem, number = name[: len(name) - len(suffix)], 2
        while whole in self.names:
            whole = f"{stem} ({number}){suffix}"
            number += 1
        return whole

    def skip(self, why: str, name: str) -> None:
        self.skipped.setdefault(why, []).append(name)

    def say(self) -> None:
        for why, names in self.skipped.items():
            count = len(names)
            line = f"Left out: {one_or_many(count, 'file')}, {why} ({named(sorted(names))})."
            if why in (_UNKNOWN, _OUTSIDE, _CLOSED, LINK):
                warn(line)
            else:
                note(line)


def _walk(folder: Path, skip: Callable[[str, str], None]) -> Iterator[Path]:
    """What lies in a folder and those in it, by path: files, and links of both kinds."""

    def closed(error: OSError) -> None:
        skip(_CLOSED, str(error.filename))

    for place, folders, files in os.walk(folder, onerror=closed):
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        hidden = [name for name in folders if is_hidden(name)]
        for name in sorted([*files, *links, *hidden]):
            yield Path(place) / name
        folders[:] = sorted({*folders} - {*links, *hidden})


def _is_below(path: Path, root: Path) -> bool:
    try:
        return path.resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError):  # it leads nowhere, or to itself
        return False


def _is_plain(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True  # it is said when it is read
