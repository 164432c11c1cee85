"""Excel files: each sheet a document, each row as lines of `header: value`."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING

from ragtune.building.documents.cells import shown
from ragtune.building.documents.document import Document, UnreadableError
from ragtune.building.documents.office import EXCEL, opened
from ragtune.building.documents.parts import CELLS, LINE, Parts, needed, stem

if TYPE_CHECKING:
    from openpyxl.cell import ReadOnlyCell
    from openpyxl.worksheet._read_only import ReadOnlyWorksheet

MAX_ROWS, MAX_CELLS = 1_048_576, 20_000_000
"""Of a sheet: Excel's own limit, and how many places a reader may step through, with or without a value."""
_LOOK = 20
"""Rows in which the header is looked for."""


def read(content: bytes, name: str) -> list[Document]:
    """A document for each sheet that holds anything, with a mark for each row.

    Raises:
        UnreadableError: as `office.opened`; or no sheet holds text, or one is too large.
        UsageError: openpyxl isn't installed.
    """
    openpyxl = needed("openpyxl", "openpyxl", "Excel files")
    documents = []
    with opened(content, name, EXCEL) as title:
        book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
        for sheet in book.worksheets:
            parts = Parts(name)
            sheet.reset_dimensions()  # They are often wrong, in both directions
            _add(parts, _rows(sheet, name), sheet.title)
            if parts.length:
                named = title or stem(name)
                whole = named if len(book.worksheets) == 1 else f"{named}: {sheet.title}"
                documents.append(parts.document(whole, key=sheet.title))
    if not documents:
        raise UnreadableError(
            f"{name}: no sheet holds text.",
            "If it shows some, these are formulas that were never computed: open it in Excel or "
            "LibreOffice, and save it again. Else leave it out.",
        )
    return documents


Row = tuple[int, list[str]]


def _rows(sheet: ReadOnlyWorksheet, name: str) -> Iterator[Row]:
    """The number of each row that holds anything, and what its cells show."""
    seen = 0
    for number, row in enumerate(sheet.iter_rows(), 1):
        seen += max(len(row), 1)
        if number > MAX_ROWS or seen > MAX_CELLS:
            raise UnreadableError(
                f"{name}: sheet {sheet.title} reaches beyond row {number:,}, column {len(row):,}; a sheet may "
                f"have {MAX_ROWS:,} rows and {MAX_CELLS:,} cells, empty ones too.",
                "Delete the empty rows and columns behind the table, or save the sheet as CSV.",
            )
        values = _values(row)
        if any(values):
            yield number, values


def _values(row: Sequence[ReadOnlyCell]) -> list[str]:
    found = [
        shown(cell.value, cell.number_format) if cell.value is not None else "" for cell in row
    ]
    while found and not found[-1]:
        found.pop()
    return found


def _add(parts: Parts, rows: Iterator[Row], sheet: str) -> None:
    first = list(islice(rows, _LOOK))
    header = _header(first)
    names = first[header][1] if header is not None else []
    for position, (number, values) in enumerate(chain(first, rows)):
        if position == header:
            continue
        parts.enter(page=number, heading=sheet)
        if header is None or position < header:
            parts.add(CELLS.join(filter(None, values)), LINE)
        else:
            parts.add(LINE.join(_named(names, values)))


def _named(names: Sequence[str], values: Iterable[str]) -> Iterator[str]:
    for column, value in enumerate(values):
        if value:
            name = names[column] if column < len(names) else ""
            yield f"{name}: {value}" if name else value


def _header(rows: Sequence[Row]) -> int | None:
    """Which of the first rows names the columns: the first that is as full as any, without a number.

    Above it titles may stand. A sheet of one column, or of one row, has none.
    """
    fullest = max((sum(map(bool, values)) for _, values in rows), default=0)
    for position, (_, values) in enumerate(rows[:-1]):
        if sum(map(bool, values)) == fullest:
            named = [value for value in values if value]
            good = fullest > 1 and len(set(named)) == len(named) and not any(map(_is_number, named))
            return position if good else None
    return None


def _is_number(value: str) -> bool:
    return value.replace(",", "").replace(".", "", 1).lstrip("-").isdecimal()
