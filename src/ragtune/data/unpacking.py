"""Gzip unpacked in large pieces: other threads go on meanwhile, and are less often asked to let go."""

from __future__ import annotations

import gzip
import io
import zlib
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_PACKED, _UNPACKED = 2**18, 2**20
"""Bytes that are read, and that come out, at a time. Python's own reader takes 8 KiB of each."""
_GZIP = 16 + zlib.MAX_WBITS
"""For zlib: with gzip's head and checksum."""


def unpacked(raw: BinaryIO) -> BinaryIO:
    """What a gzip file holds, of one member or several.

    Args:
        raw: the file, at its beginning.

    Raises:
        OSError, EOFError, zlib.error: when it is read, as Python's own reader raises them, and behind the
            same bytes: it is read again by that one, which says what is wrong.
    """
    return io.BufferedReader(_Unpacked(raw), _UNPACKED)


class _Unpacked(io.RawIOBase):
    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._member: zlib._Decompress | None = None
        self._packed = b""
        """Read, and not yet unpacked."""
        self._given = 0
        self._careful: gzip.GzipFile | None = None
        """Python's own reader, once something was wrong."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer)
        part = self._careful_part() if self._careful else self._part(len(view))
        view[: len(part)] = part
        self._given += len(part)
        return len(part)

    def _part(self, size: int) -> bytes:
        """The next bytes, at most `size`; none at the end."""
        while packed := self._packed or self._raw.read(_PACKED):
            if self._member is None:
                packed = (
                    packed.lstrip(b"\0") if self._given else packed
                )  # zeros may follow a member
                self._packed = b""
                if not packed:
                    continue
                self._member = zlib.decompressobj(_GZIP)
            try:
                part = self._member.decompress(packed, size)
            except zlib.error:
                return self._again()
            self._packed = self._member.unconsumed_tail
            if self._member.eof:
                self._packed, self._member = self._member.unused_data, None
            if part:
                return part
        return b"" if self._member is None else self._again()

    def _again(self) -> bytes:
        """Go on by Python's own reader, behind what was given."""
        self._raw.seek(0)
        self._careful = gzip.GzipFile(fileobj=self._raw)
        left = self._given
        while (part := self._careful_part()) and len(part) <= left:
            left -= len(part)
        return part[left:]

    def _careful_part(self) -> bytes:
        assert self._careful
        return self._careful.read1(io.DEFAULT_BUFFER_SIZE)
