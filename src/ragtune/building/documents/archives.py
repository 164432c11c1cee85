"""Archives: what lies in them, and one member after the other unpacked where nothing else is."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import re
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import IO, BinaryIO, Self, cast

from ragtune.base.disk import full_disk
from ragtune.base.reading import open_plain
from ragtune.base.text import first_line, shortened, size_of
from ragtune.building.documents.document import UnreadableError
from ragtune.building.documents.source import Source, unopened

MAX_MEMBERS = 100_000
MAX_DIRECTORY = 32 << 20
"""Bytes of a zip archive's list of members, which is read as a whole."""
MAX_UNPACKED = 32 << 30
"""Bytes of all members together."""
MAX_RATIO, RATIO_FROM = 200, 100 << 20
"""How many times its own size an archive may unpack to, from so many bytes on; text is packed to a
fifth, and a bomb to a thousandth."""
_HEADER = 16 << 20
"""Bytes of the longest header in a tar archive: it is read as a whole."""
_CHUNK = 1 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_UTF8_NAMES, _ENCRYPTED = 0x800, 0x1
"""Bits of a zip entry's flags."""
_DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, ValueError, RuntimeError,
    NotImplementedError, struct.error, OverflowError,
)  # fmt: skip
"""What zipfile, tarfile and gzip raise where an archive is damaged, or made to be; NotImplementedError is of
versions and methods of zip that Python doesn't know."""


_UNPACK = "If it is right, unpack it yourself, and name the folder."
_LINKED = "Unpack the archive yourself, and look at what it holds."


class _BombError(Exception):
    """An archive unpacks to more than anybody packs."""


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    open: Callable[[], IO[bytes]] | None
    """None for what has no content; where `problem` then says more, it is no folder."""
    problem: str = ""
    """Why it isn't read; with a way out behind a line break."""
    alone: bool = False
    """Whether the others can be read where it is damaged."""


class Unpacked:
    """Where each source's file is: its own place, or a folder that is gone at the end.

    Members of one archive in their order are read in one pass. At any time one member is unpacked.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ragtune-")
        self._path: Path | None = None
        self._entries: Iterator[tuple[int, _Entry]] = iter(())
        self._at = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._entries = iter(())  # closes the archive
        self._folder.cleanup()

    def path_of(self, source: Source) -> Path:
        """The path of a source's file; a member is unpacked, and the one before it removed.

        Raises:
            UnreadableError: the archive is damaged, or gone.
        """
        if source.member is None:
            return source.path
        target = Path(self._folder.name) / f"member{source.suffix}"
        for before in target.parent.iterdir():
            before.unlink()
        try:
            entry = self._entry(source)
            if entry is None or entry.open is None:
                raise UnreadableError(
                    f"{source.name} is not there any more: the archive was changed.", "Begin again."
                )
            with entry.open() as packed, full_disk(target), target.open("wb") as file:
                for chunk in _chunks(packed):
                    file.write(chunk)
        except (*_DAMAGED, _BombError) as error:
            raise _problem(source.name, error) from None
        return target

    def _entry(self, source: Source) -> _Entry | None:
        assert source.member is not None
        if source.path != self._path or source.member <= self._at:
            self._path, self._at = source.path, -1
            self._entries = enumerate(_entries(source.path))
        for number, entry in self._entries:
            self._at = number
            if number == source.member:
                return entry
        return None


def members(path: Path, name: str, skip: Callable[[str, str], None]) -> list[Source]:
    """The members of an archive as sources, in their order; folders, links and hidden ones are none.

    All of it is unpacked once, and nothing kept: so is found what a member's bytes are, which one is
    damaged, and whether the archive is a bomb. What can't be read has its problem with it.

    Args:
        path: of the archive.
        name: of the archive; its members' names begin with it.
        skip: told why something is no source, and its name.
    """
    found: list[Source] = []
    try:
        count = _Count(path.stat().st_size)
        for number, entry in enumerate(_entries(path)):
            count.require_few(number)
            if entry.open is None:
                if entry.problem:
                    skip(entry.problem, f"{name}/{entry.name}")
            elif is_hidden(entry.name):
                skip(HIDDEN, f"{name}/{entry.name}")
            else:
                found.append(_source(path, name, number, entry, count))
    except _BombError as error:
        return [Source(path, name, problem=f"{name} is not unpacked: {error}.", advice=_UNPACK)]
    except _DAMAGED as error:
        problem = _problem(name, error)
        found.append(Source(path, name, problem=problem.message, advice=problem.advice))
    return found


HIDDEN, LINK = "hidden", "a link, a pipe or a device"


def is_hidden(name: str) -> bool:
    """Whether a path below what the user named leads to what systems and programs keep for themselves."""
    parts = name.split("/")
    return any(part.startswith(".") and part.strip(".") for part in parts) or (
        "__MACOSX" in parts or parts[-1].startswith("~$")
    )


@dataclass
class _Count:
    """What was unpacked so far."""

    packed: int
    total: int = 0

    def require_few(self, members: int) -> None:
        if members >= MAX_MEMBERS:
            raise _BombError(f"it has more than {MAX_MEMBERS:,} members")

    def add(self, size: int) -> None:
        self.total += size
        if self.total > MAX_UNPACKED:
            raise _BombError(f"it unpacks to more than {size_of(MAX_UNPACKED)}")
        if self.total > RATIO_FROM and self.total > MAX_RATIO * self.packed:
            raise _BombError(
                f"its {size_of(self.packed)} unpack to more than {MAX_RATIO} times as much, like a zip bomb"
            )


def _source(path: Path, name: str, number: int, entry: _Entry, count: _Count) -> Source:
    inner = f"{name}/{entry.name}"
    if _leads_out(entry.name):
        inner = f"{name}: the member {shortened(entry.name)!r}"
        return Source(
            path, inner, number, "", "", f"{inner} leads out of the archive's folder.", _LINKED
        )
    if entry.problem:
        problem, _, advice = entry.problem.partition("\n")
        return Source(path, inner, number, "", "", f"{inner} {problem}", advice)
    assert entry.open is not None
    digest = hashlib.sha256()
    try:
        with entry.open() as file:
            for chunk in _chunks(file):
                count.add(len(chunk))
                digest.update(chunk)
    except _DAMAGED as error:
        if not entry.alone:
            raise
        problem_ = _problem(inner, error)
        return Source(path, inner, number, "", "", problem_.message, problem_.advice)
    return Source(path, inner, number, digest.hexdigest())


def _leads_out(name: str) -> bool:
    return (
        name.startswith("/") or ".." in name.split("/") or re.match("[A-Za-z]:", name) is not None
    )


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk


def _problem(name: str, error: Exception) -> UnreadableError:
    if isinstance(error, OSError) and error.errno is not None:
        return unopened(name, error)
    return UnreadableError(
        f"{name} can't be unpacked ({shortened(first_line(error), 200)}).",
        "The archive is damaged or cut off: download or pack it again.",
    )


def _entries(path: Path) -> Iterator[_Entry]:
    with open_plain(path) as file:
        yield from _zipped(file) if path.name.lower().endswith(".zip") else _tarred(path, file)


def _zipped(file: BinaryIO) -> Iterator[_Entry]:
    _require_short_directory(file)
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            name = _name(info)
            if name.endswith("/"):
                yield _Entry(name, None)
                continue
            if stat.S_ISLNK(info.external_attr >> 16):
                yield _Entry(name, None, LINK)
                continue
            yield _Entry(name, partial(archive.open, info), _why_not(info), alone=True)


def _why_not(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & _ENCRYPTED:
        return "is encrypted: it opens only with a password.\nUnpack it with the password, and name the folder."
    if info.compress_type not in _METHODS:
        return "is packed in a way that isn't read.\nPack the archive again as an ordinary zip file (Deflate)."
    return ""


def _require_short_directory(file: BinaryIO) -> None:
    """That a zip archive's list of members isn't without end: zipfile reads it as a whole."""
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined]  # noqa: SLF001 - there is no other way to ask for its length
    if end is not None and end[zipfile._ECD_SIZE] > MAX_DIRECTORY:  # type: ignore[attr-defined]  # noqa: SLF001 - as above
        raise _BombError("its list of members is longer than 32 MiB")
    file.seek(0)


def _name(info: zipfile.ZipInfo) -> str:
    """A member's name: Windows' own packer writes Japanese names in cp932 and doesn't say so."""
    name = info.orig_filename.partition("\0")[0]
    if not info.flag_bits & _UTF8_NAMES:
        name = _decoded(name.encode("cp437"), name)
    return _plain(name.replace("\\", "/"))


def _decoded(raw: bytes, otherwise: str) -> str:
    for encoding in ("utf-8", "cp932"):
        with contextlib.suppress(UnicodeDecodeError):
            return raw.decode(encoding)
    return otherwise


def _plain(name: str) -> str:
    return re.sub("[\ud800-\udfff]", "\ufffd", re.sub("/+", "/", name.removeprefix("./")))


class _Careful:
    """A file that doesn't read a header of gigabytes at once, which tarfile asks for if a header says so."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.tell, self.seek = file.tell, file.seek

    def read(self, size: int) -> bytes:
        if size > _HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self.file.read(size)


def _tarred(path: Path, file: BinaryIO) -> Iterator[_Entry]:
    packed = path.name.lower().endswith("gz")
    whole: BinaryIO = cast("BinaryIO", gzip.GzipFile(fileobj=file)) if packed else file
    with tarfile.open(
        fileobj=cast("BinaryIO", _Careful(whole)), mode="r:", errors="surrogateescape"
    ) as archive:
        while (info := archive.next()) is not None:
            raw = info.name.encode("utf-8", "surrogateescape")
            name = _plain(_decoded(raw, info.name))
            if info.isdir():
                yield _Entry(name, None)
            elif not info.isfile():
                yield _Entry(name, None, LINK)
            elif info.issparse():
                yield _Entry(name, BytesIO, _SPARSE)
            else:
                yield _Entry(name, partial(_content, archive, info))


_SPARSE = "is a sparse file, mostly of zeros.\nPack the archive without --sparse."


def _content(archive: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = archive.extractfile(info)
    assert file is not None  # it is a file
    return file
