"""Reading tables row by row: CSV and TSV in any usual encoding, and the first sheet of Excel."""

from __future__ import annotations

import csv
import itertools
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from ragtune.base.commands import install
from ragtune.base.encoding import decode
from ragtune.base.errors import UsageError
from ragtune.base.screen.console import note
from ragtune.base.text import first_line, one_or_many, shortened, size_of

MAX_TABLE = 128 << 20
"""Bytes of the largest table, unpacked: it is held as a whole."""
MAX_ROW = 8 << 20
"""Characters of the longest row."""
MAX_COLUMNS = 1_000
_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+$")
_SEPARATORS = ",;\t|"
_DAMAGED = (
    OSError, EOFError, zipfile.BadZipFile, zlib.error, SyntaxError, ValueError, LookupError, TypeError,
    AttributeError, ArithmeticError, RuntimeError,
)  # fmt: skip
"""What openpyxl, and the parsers below it, raise of a file that is damaged."""
_LARGE = "Write it as .parquet or .jsonl, which are read row by row, whatever their size."


def csv_rows(path: Path, file: BinaryIO) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of a CSV or TSV file by the names in its first line.

    Raises:
        UsageError: no text, no table.
        OSError: it can't be read.
    """
    content = file.read(MAX_TABLE + 1)
    if len(content) > MAX_TABLE:
        raise UsageError(f"{path}: a table of more than {size_of(MAX_TABLE)}.", _LARGE)
    try:
        text, encoding = decode(content)
    except ValueError as error:
        raise UsageError(f"{path}: {error}.", "Save it as UTF-8.") from None
    if encoding != "utf-8":
        note(f"{path} is read as {encoding}.")
    yield from _named(path, _parsed(path, text), "")


def _parsed(path: Path, text: str) -> Iterator[tuple[int, Sequence[Any]]]:
    """Each row's line and cells."""
    csv.field_size_limit(MAX_ROW)
    tabs = path.suffix.lower() == ".tsv"
    separator = "\t" if tabs else _separator(text)
    if tabs and not _is_quoted(text):
        for number, line in enumerate(_lines(text), 1):
            if len(line) > MAX_ROW:
                raise _long(path, number)
            yield number, line.rstrip("\r\n").split("\t")
        return
    held = 0

    def counted() -> Iterator[str]:
        nonlocal held
        for line in _lines(text):
            held += len(line)
            if held > MAX_ROW:
                raise _long(path, number)
            yield line

    reader = csv.reader(counted(), delimiter=separator, strict=True)
    number = 1
    try:
        for row in reader:
            yield number, row
            number, held = reader.line_num + 1, 0
    except csv.Error as error:
        raise UsageError(
            f"{path}:{number}: no CSV ({first_line(error)}).",
            'A cell that holds quotation marks, separators or line breaks stands in "…", with "" for a mark.',
        ) from None


def _long(path: Path, number: int) -> UsageError:
    return UsageError(
        f"{path}:{number}: a row of more than {size_of(MAX_ROW)}.",
        "Perhaps a quotation mark is opened there, and not closed.",
    )


def _lines(text: str) -> Iterator[str]:
    """Lines with their ends; `splitlines` would end some within a text."""
    return (found[0] for found in _LINE.finditer(text))


def _separator(text: str) -> str:
    """What parts the first line, outside of quotation marks."""
    head = "".join(text[: 1 << 16].split('"')[::2]).partition("\n")[0]
    return max(_SEPARATORS, key=head.count)


def _is_quoted(text: str) -> bool:
    """Whether a TSV has cells in quotation marks, as Excel writes them; others hold marks as they are.

    Only with them a row can have another number of tabs, or go on in the next line.
    """
    width = next(_lines(text), "").count("\t")
    return any(
        line.count("\t") != width and re.search(r'(^|\t)"', line) is not None
        for line in _lines(text)
    )


def excel_rows(path: Path, file: BinaryIO) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of an Excel file by the names in the first row of its first sheet that has any.

    Raises:
        UsageError: no Excel file, or too large a one; openpyxl is missing.
    """
    try:
        import openpyxl  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        raise UsageError(
            f"{path}: Excel files need openpyxl.",
            f"Install it: {install('ragtune[documents]') or install('openpyxl')}. Or save the sheet as CSV.",
        ) from None
    _require_small(path, file)
    try:
        with warnings.catch_warnings():  # of styles and links that it doesn't know
            warnings.simplefilter("ignore")
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
        for sheet in book.worksheets:
            sheet.reset_dimensions()  # some writers say a wrong one
            rows = enumerate(sheet.iter_rows(values_only=True), 1)
            first = next((row for row in rows if any(c is not None for c in row[1])), None)
            if first is None:
                continue
            if len(book.worksheets) > 1:
                note(f"{path}: of {len(book.worksheets)} sheets {sheet.title} is read.")
            yield from _named(path, itertools.chain([first], rows), f"{sheet.title}, row ")
            return
    except _DAMAGED as error:
        raise UsageError(
            f"{path}: no Excel file that can be read ({first_line(error)}).",
            "Open it in a spreadsheet, and save it as .xlsx or .csv.",
        ) from None


def _require_small(path: Path, file: BinaryIO) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            size = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, EOFError) as error:
        raise UsageError(
            f"{path}: no .xlsx file ({first_line(error)}).",
            "Open it in a spreadsheet, and save it as .xlsx or .csv. (A file with a password is no .xlsx.)",
        ) from None
    if size > MAX_TABLE:
        raise UsageError(
            f"{path}: {size_of(size)} unpacked, more than {size_of(MAX_TABLE)}.", _LARGE
        )
    file.seek(0)


def _named(
    path: Path, rows: Iterator[tuple[int, Sequence[Any]]], place: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows by the names in the first one; empty rows are left out."""
    head = next(rows, None)
    if head is None:
        return
    names = [str(cell).strip() if cell is not None else "" for cell in head[1]]
    while names and not names[-1]:
        names.pop()
    if len(names) > MAX_COLUMNS:
        raise UsageError(f"{path}: {len(names):,} columns, more than {MAX_COLUMNS:,}.")
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise UsageError(
            f"{path}: two columns are called {shortened(twice[0])}.", "Give one another name."
        )
    for number, cells in rows:
        where = f"{path}: {place}{number}" if place else f"{path}:{number}"
        if not any(map(_holds, cells)):
            continue
        if any(map(_holds, cells[len(names) :])):
            raise UsageError(
                f"{where}: {one_or_many(len(cells), 'cell')}, but "
                f"{one_or_many(len(names), 'column has', 'columns have')} a name.",
                'Name the others in the first row; in CSV put a cell with a separator in it in "…".',
            )
        # A column without a name may hold remarks.
        pairs = itertools.zip_longest(names, cells[: len(names)], fillvalue="")
        yield where, {name: cell for name, cell in pairs if name}


def _holds(cell: object) -> bool:
    return cell is not None and cell != ""
