"""Office files are ZIP archives of XML: what is refused of them before a library unpacks anything."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from xml.etree import ElementTree as ET
from zipfile import ZipFile

from ragtune.base.errors import RagtuneError
from ragtune.base.text import first_line, shortened, size_of
from ragtune.building.documents.document import UnreadableError

MAX_MEMBERS = 50_000
MAX_UNPACKED = 1024**3
"""Bytes of all members together, pictures and films too."""
_CHUNK = 1024**2
_OLD = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
_ENTITIES = (b"<!DOCTYPE", b"\0".join(b"<!DOCTYPE"[i : i + 1] for i in range(9)))
"""In UTF-8 and in UTF-16. Office writes no document type; entities that grow without end need one."""
_XML = (".xml", ".rels", ".vml")
_TITLE = "{http://purl.org/dc/elements/1.1/}title"
_NO_TITLES = frozenset(
    (
        "word document",
        "powerpoint presentation",
        "powerpoint プレゼンテーション",
        "untitled",
        "無題",
    )
)
"""What programs write where nobody gave a title."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of office file."""

    name: str
    folder: str
    """Where its archive has the text."""
    old: str
    """The ending of the format that it replaced."""
    xml: int
    """Bytes of XML that are read: a library that builds a tree takes many times as much memory."""


WORD = Kind("Word", "word/", ".doc", 128 * 1024**2)
POWERPOINT = Kind("PowerPoint", "ppt/", ".ppt", 256 * 1024**2)
EXCEL = Kind("Excel", "xl/", ".xls", 512 * 1024**2)


@contextmanager
def opened(content: bytes, name: str, kind: Kind) -> Iterator[str]:
    """Within it a library may read the file; gives the title that the file names, or "".

    Raises:
        UnreadableError: it is encrypted, of another kind, damaged, or grows too large; also if a
            library fails within it.
    """
    try:
        _refuse_other_files(content, name, kind)
        with ZipFile(io.BytesIO(content)) as archive:
            _refuse_bombs(archive, name, kind)
            title = _title(archive)
        yield title
    except (RagtuneError, MemoryError):
        raise
    except Exception as error:
        raise UnreadableError(
            f"{name}: the {kind.name} file is damaged "
            f"({type(error).__name__}: {shortened(first_line(error), 100)}).",
            f"Open it in {kind.name} or LibreOffice, and save it again.",
        ) from error


def _refuse_other_files(content: bytes, name: str, kind: Kind) -> None:
    if not content:
        raise UnreadableError(f"{name} is empty: 0 bytes.", "Put the whole file in its place.")
    if content.startswith(_OLD):
        if _ENCRYPTED in content:
            raise UnreadableError(
                f"{name} is encrypted: it opens only with a password.",
                f"Open it in {kind.name} or LibreOffice, and save it without one.",
            )
        raise UnreadableError(
            f"{name} is of the old format {kind.old}, whatever its name says.",
            f"Open it in {kind.name} or LibreOffice, and save it as {kind.old}x.",
        )
    if not content.startswith(b"PK"):
        raise UnreadableError(
            f"{name} is no {kind.name} file, whatever its name says.",
            "Give it the ending of what it is.",
        )


def _refuse_bombs(archive: ZipFile, name: str, kind: Kind) -> None:
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise UnreadableError(
            f"{name} holds {len(members):,} parts; at most {MAX_MEMBERS:,} are read.",
            f"It is hardly a file that {kind.name} wrote. Leave it out.",
        )
    if not any(member.filename.startswith(kind.folder) for member in members):
        raise UnreadableError(
            f"{name} is a ZIP archive, but no {kind.name} file.",
            "Give it the ending of what it is.",
        )
    xml = [member for member in members if member.filename.lower().endswith(_XML)]
    for what, found, most in (("", members, MAX_UNPACKED), (" of XML", xml, kind.xml)):
        size = sum(member.file_size for member in found)
        if size > most:
            raise UnreadableError(
                f"{name} grows to {size_of(size)}{what} when it is unpacked; at most {size_of(most)} "
                "are read.",
                "Divide it into several files, or take out what is no text. It was not unpacked.",
            )
    for member in xml:
        # What is longer than it said is damaged to zipfile: it reads no more than that.
        with archive.open(member) as file:
            before = b""
            while chunk := file.read(_CHUNK):
                if any(sign in before + chunk for sign in _ENTITIES):
                    raise UnreadableError(
                        f"{name}: {shortened(member.filename)} defines a document type, which no office "
                        "program writes.",
                        f"Open it in {kind.name} or LibreOffice, and save it again.",
                    )
                before = chunk[-len(_ENTITIES[1]) :]


def _title(archive: ZipFile) -> str:
    try:
        core = archive.read("docProps/core.xml")
    except KeyError:
        return ""
    found = ET.fromstring(core).findtext(_TITLE) or ""  # noqa: S314 - it has no document type
    return "" if found.strip().lower() in _NO_TITLES else found.strip()
