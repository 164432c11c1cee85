"""CSV and TSV files row by row, whatever their size."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from ragtune.base.reading import open_plain
from ragtune.base.text import first_line, size_of
from ragtune.building.documents.document import UnreadableError
from ragtune.building.documents.encoding import decode
from ragtune.building.documents.kinds import TABLES as SUFFIXES
from ragtune.building.documents.source import Source, unopened

_SAMPLE = 1 << 20
"""Bytes whose encoding, separator and quotation marks stand for those of the file."""
MAX_ROW = 16 << 20
"""Characters of the longest row."""
MAX_EMPTY = 100_000
"""Empty lines in a row; a small .gz can hold billions."""
MAX_COLUMNS = 10_000
_SEPARATORS = ",;\t|"
_LOOK = 2_000
"""Rows by which it is told what quotation marks mean."""
_WHOLE = re.compile(r'"([^"]|"")*"')

__all__ = ["SUFFIXES", "rows"]


def rows(
    path: Path, source: Source, named: str | None, tell: Callable[[str], None]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield each row's number, as a spreadsheet counts, and its cells by the names in the first one.

    A column without a name is called by its number: `column 3`. Empty rows are left out.

    Args:
        path: where the file's bytes are.
        source: what it is called.
        named: the encoding that the user named.
        tell: called with the encoding that it is in.

    Raises:
        UnreadableError: it is empty, no text, no table, or damaged.
    """
    try:
        with open_plain(path) as raw:
            file = (
                cast("BinaryIO", gzip.GzipFile(fileobj=raw))
                if source.suffix.endswith(".gz")
                else raw
            )
            yield from _rows(file, source, named, tell)
    except (EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise unopened(source.name, error) from None
        raise UnreadableError(
            f"{source.name} can't be unpacked ({first_line(error)}).",
            "It is cut off or no gzip: download or pack it again.",
        ) from None


def _rows(
    file: BinaryIO, source: Source, named: str | None, tell: Callable[[str], None]
) -> Iterator[tuple[int, dict[str, str]]]:
    start = file.read(_SAMPLE)
    if len(start) == _SAMPLE and b"\0" not in start:  # up to a line's end: no letter is cut
        start += file.readline(MAX_ROW)
    if not start.strip(b"\0 \t\r\n"):
        raise UnreadableError(f"{source.name} is empty.", "Remove it, or write the table into it.")
    if start.startswith(_OTHERS):
        raise _no_text(source.name)
    sample, encoding = decode(start, source.name, named)
    if "\0" in sample:
        raise _no_text(source.name)
    tell(encoding)
    file.seek(0)
    text = io.TextIOWrapper(file, "utf-8-sig" if encoding == "utf-8" else encoding, newline="")
    lines = _Lines(text, source.name)
    try:
        yield from _by_name(_parsed(lines, sample, source), lines)
    except csv.Error as error:
        raise UnreadableError(
            f"{source.name}:{lines.number}: no table ({first_line(error)}).",
            'A cell with quotation marks, separators or line breaks stands in "…", with "" for a mark.',
        ) from None
    except UnicodeDecodeError:
        raise UnreadableError(
            f"{source.name}: what follows line {lines.number:,} is not {encoding}, as its beginning is.",
            "Save it as UTF-8.",
        ) from None


_OTHERS = (b"PK\3\4", b"\xd0\xcf\x11\xe0", b"%PDF-")
"""How files begin that are called .csv, and were never saved as such."""


def _no_text(name: str) -> UnreadableError:
    return UnreadableError(
        f"{name} is no text, whatever its name says.",
        "Open it in a spreadsheet, and save it as CSV (UTF-8); or give it the ending of what it is.",
    )


def _by_name(rows: Iterable[list[str]], lines: _Lines) -> Iterator[tuple[int, dict[str, str]]]:
    names: list[str] = []
    for number, cells in enumerate(rows, 1):
        filled = any(map(str.strip, cells))
        lines.row_ends(empty=not filled)
        if len(cells) > MAX_COLUMNS:
            raise UnreadableError(
                f"{lines.name}: row {number} has more than {MAX_COLUMNS:,} cells.", "Is it a table?"
            )
        if not names:
            names = _names(cells) if filled else []
        elif filled:
            names += [f"column {n}" for n in range(len(names) + 1, len(cells) + 1)]
            yield number, {name: cell.strip() for name, cell in zip(names, cells, strict=False)}


class _Lines:
    """The lines of a file, none of them without end, nor a row."""

    def __init__(self, file: io.TextIOWrapper, name: str) -> None:
        self.file, self.name = file, name
        self.number = self.length = self.empty = 0

    def __iter__(self) -> Iterator[str]:
        while line := self.file.readline(MAX_ROW + 1):
            self.number += 1
            self.length += len(line)
            if self.length > MAX_ROW:
                raise UnreadableError(
                    f"{self.name}:{self.number}: a row of more than {size_of(MAX_ROW)}.",
                    "A quotation mark may be open: it ends where the next one stands.",
                )
            yield line

    def row_ends(self, *, empty: bool) -> None:
        self.length = 0
        self.empty = self.empty + 1 if empty else 0
        if self.empty > MAX_EMPTY:
            raise UnreadableError(
                f"{self.name}:{self.number}: {MAX_EMPTY:,} empty rows one after the other.",
                "Remove them.",
            )


def _parsed(lines: _Lines, sample: str, source: Source) -> Iterator[list[str]]:
    csv.field_size_limit(MAX_ROW)
    tabs = source.suffix.startswith(".tsv")
    if tabs and not _is_quoted(sample):
        return (line.rstrip("\r\n").split("\t") for line in lines)
    return csv.reader(iter(lines), delimiter="\t" if tabs else _separator(sample))


def _separator(sample: str) -> str:
    """What parts the first line, outside of quotation marks."""
    head = "".join(sample[: 1 << 16].lstrip("\r\n").split('"')[::2]).partition("\n")[0]
    return max(_SEPARATORS, key=head.count)


def _is_quoted(sample: str) -> bool:
    """Whether a TSV has cells in quotation marks, as Excel and Python write them.

    Others hold the marks as they are. Right is what gives more rows of the first one's length; else there
    must be more cells within marks than such as only begin with one.
    """
    lines = sample.splitlines(keepends=True)[:_LOOK]
    try:
        quoted = _odd(list(csv.reader(lines, delimiter="\t")))
    except csv.Error:
        return False
    plain = [line.rstrip("\r\n").split("\t") for line in lines]
    if quoted != _odd(plain):
        return quoted < _odd(plain)
    cells = [cell for row in plain for cell in row if cell.startswith('"')]
    whole = [cell for cell in cells if _WHOLE.fullmatch(cell)]
    return 2 * len(whole) > len(cells)


def _odd(rows: list[list[str]]) -> int:
    """How many rows are longer or shorter than the first."""
    return sum(len(row) != len(rows[0]) for row in rows if any(row))


def _names(cells: list[str]) -> list[str]:
    """The columns' names, each another one."""
    found: list[str] = []
    for number, cell in enumerate(cells, 1):
        name = " ".join(cell.split()) or f"column {number}"
        found.append(f"{name} ({number})" if name in found else name)
    return found
