"""Gzip that is unpacked in large pieces gives what Python's own reader gives, and the same errors at the same line."""

from __future__ import annotations

import gzip
import io
import random
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from ragtune.data import unpacking
from ragtune.data.unpacking import unpacked

DRAWN = random.Random(1)
LINES = [DRAWN.randbytes(DRAWN.randrange(300)).hex().encode() + b"\n" for _ in range(1500)]
"""Some 450 kB, which gzip halves."""
TEXT = b"".join(LINES)
PACKED = gzip.compress(TEXT)
WHOLE = {
    "nothing": b"",
    "an empty member": gzip.compress(b""),
    "one member": PACKED,
    "with a name": gzip.compress(b"")[:3] + b"\x08" + gzip.compress(TEXT)[4:10] + b"name\0" + PACKED[10:],
    "many members": b"".join(map(gzip.compress, LINES)),
    "empty members between": gzip.compress(b"") + PACKED + gzip.compress(b"") + PACKED,
    "zeros behind it": PACKED + bytes(700_000),
    "zeros between members": PACKED + bytes(9) + PACKED + bytes(1),
    "what packs very well": gzip.compress(bytes(5_000_000) + b"\n" + TEXT),
    "stored as it is": gzip.compress(TEXT, compresslevel=0),
}  # fmt: skip
WRONG = {
    "no gzip": TEXT,
    "zeros alone": bytes(40),
    "half a head": PACKED[:5],
    "a head alone": PACKED[:10],
    "cut off": PACKED[:150_000],
    "without its checksum": PACKED[:-8],
    "half a checksum": PACKED[:-3],
    "another checksum": PACKED[:-8] + b"0000" + PACKED[-4:],
    "another length": PACKED[:-4] + b"0000",
    "no gzip behind it": PACKED + b"other",
    "zeros and no gzip behind it": PACKED + bytes(3) + b"other",
    "a second member that is cut off": PACKED + PACKED[:-1],
}


def lines_of(opened: Iterable[bytes]) -> tuple[list[bytes], str]:
    """The lines up to an error, and the error."""
    lines: list[bytes] = []
    try:
        lines.extend(opened)
    except (OSError, EOFError, zlib.error) as error:
        return lines, repr(error)
    return lines, ""


def by_python(packed: bytes) -> tuple[list[bytes], str]:
    return lines_of(gzip.GzipFile(fileobj=io.BytesIO(packed)))


@pytest.fixture(params=[None, (1000, 3000), (50_000, 100)], ids=["as it is", "small", "uneven"])
def sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces so small that borders lie everywhere."""
    if request.param:
        monkeypatch.setattr(unpacking, "_PACKED", request.param[0])
        monkeypatch.setattr(unpacking, "_UNPACKED", request.param[1])


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("name", WHOLE)
def test_what_is_whole_is_unpacked(name: str) -> None:
    found = lines_of(unpacked(io.BytesIO(WHOLE[name])))
    assert found == by_python(WHOLE[name])
    assert found[1] == ""


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_as_python_tells_it_behind_the_same_line(name: str) -> None:
    found = lines_of(unpacked(io.BytesIO(WRONG[name])))
    assert found == by_python(WRONG[name])
    assert found[1]


def test_a_damaged_piece_is_told_as_python_tells_it() -> None:
    """What comes out of it is lost with it: how many lines that are, the size of Python's pieces says."""
    for place in range(20, len(PACKED) - 8, 9973):
        damaged = PACKED[:place] + bytes([PACKED[place] ^ 255]) + PACKED[place + 1 :]
        (lines, error), (others, words) = (
            lines_of(unpacked(io.BytesIO(damaged))),
            by_python(damaged),
        )
        assert error == words != ""
        assert all(one == other for one, other in zip(lines, others, strict=False))


def test_one_piece_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece waits for whichever thread has the interpreter."""
    pieces: list[int] = []
    make: Callable[[int], Any] = zlib.decompressobj

    class Counting:
        def __init__(self, bits: int) -> None:
            self._inner = make(bits)

        def decompress(self, packed: bytes, size: int) -> bytes:
            pieces.append(len(packed))
            return bytes(self._inner.decompress(packed, size))

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

    monkeypatch.setattr(zlib, "decompressobj", Counting)
    assert list(unpacked(io.BytesIO(PACKED))) == LINES
    assert len(pieces) <= 3
