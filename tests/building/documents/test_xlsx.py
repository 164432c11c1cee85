"""Excel files: sheets, rows under their header, and what cells show."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from openpyxl import Workbook

from ragtune.building.documents import xlsx
from ragtune.building.documents.cells import shown
from ragtune.building.documents.document import Document
from tests.building.documents.made import members, refused, saved, under, zipped

at = dt.datetime
SHEET = "xl/worksheets/sheet1.xml"


def book(rows: list[list[Any]], title: str = "価格") -> Workbook:
    made = Workbook()
    made.active.title = title
    for row in rows:
        made.active.append(row)
    return made


def read(made: Workbook) -> list[Document]:
    return xlsx.read(saved(made), "lists/prices.xlsx")


def with_cells(xml: str) -> bytes:
    """A file whose only sheet has these rows, as XML."""
    there = members(saved(book([["a"]])))
    start, _, end = there[SHEET].partition(b"<sheetData>")
    end = end.partition(b"</sheetData>")[2]
    return zipped(there, {SHEET: start + b"<sheetData>" + xml.encode() + b"</sheetData>" + end})


def test_what_stands_in_each_row() -> None:
    made = book(
        [["品名", "Price", "Note"], ["ポンプ", 1200, None], [], [None, 0.5, "a\nb", "more"]]
    )
    other = made.create_sheet("Staff")
    for row in (["Name", "Since"], ["山田", dt.date(2024, 3, 1)]):
        other.append(row)
    made.create_sheet("empty")
    first, second = read(made)
    assert (first.id, first.file, first.title) == (
        "lists/prices.xlsx#価格", "lists/prices.xlsx", "prices: 価格",
    )  # fmt: skip
    assert under(first) == [
        (2, "価格", "品名: ポンプ\nPrice: 1200"),
        (4, "価格", "Price: 0.5\nNote: a\nb\nmore"),
    ]
    assert second.id == "lists/prices.xlsx#Staff"
    assert under(second) == [(2, "Staff", "Name: 山田\nSince: 2024-03-01")]


def test_titles_above_the_header_are_text_of_their_own() -> None:
    (document,) = read(book([["Price list 2024"], [], ["品名", "Price"], ["Pump", 1200]]))
    assert under(document) == [
        (1, "価格", "Price list 2024"),
        (4, "価格", "品名: Pump\nPrice: 1200"),
    ]
    assert document.title == "prices"


@pytest.mark.parametrize(
    "rows",
    [
        [["one"], ["two"]],
        [["Pump", 12], ["Tap", 13]],
        [["same", "same"], ["Tap", "x"]],
        [["alone", "here"]],
    ],
)
def test_tables_without_a_header(rows: list[list[Any]]) -> None:
    (document,) = read(book(rows))
    assert document.text == "\n".join(" | ".join(map(str, row)) for row in rows)
    assert [mark.page for mark in document.marks] == list(range(1, len(rows) + 1))


def test_values_of_formulas() -> None:
    content = with_cells('<row r="1"><c r="A1"><f>1+1</f><v>2</v></c></row>')
    (document,) = xlsx.read(content, "a.xlsx")
    assert document.text == "2"
    made = book([["=1+1"]])
    assert "these are formulas that were never computed" in refused(xlsx, saved(made), "a.xlsx")
    assert "a.xlsx: no sheet holds text." in refused(xlsx, saved(Workbook()), "a.xlsx")


def test_far_cells_are_read_and_huge_empty_sheets_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    made = book([["a", "b"]])
    made.active["XFD1048576"] = "far"
    (document,) = read(made)
    assert under(document)[-1] == (1_048_576, "価格", "far")
    monkeypatch.setattr(xlsx, "MAX_ROWS", 1000)
    for row in (10**12, 1001):
        content = with_cells(
            f'<row r="{row}"><c r="A{row}" t="inlineStr"><is><t>x</t></is></c></row>'
        )
        said = refused(xlsx, content, "a.xlsx")
        assert "a.xlsx: sheet 価格 reaches beyond row 1,001" in said
    monkeypatch.setattr(xlsx, "MAX_CELLS", 40_000)
    wide = "".join(
        f'<row r="{n}"><c r="XFD{n}" t="inlineStr"><is><t>x</t></is></c></row>' for n in (1, 2, 3)
    )
    said = refused(xlsx, with_cells(wide), "a.xlsx")
    assert "sheet 価格 reaches beyond row 3, column 16,384" in said
    assert "Delete the empty rows and columns" in said


def test_files_that_cannot_be_read() -> None:
    assert "is no Excel file, whatever its name says." in refused(xlsx, b"a,b\n1,2\n", "a.xlsx")
    for xml in ('<row r="x"/>', "<row><c>", '<row r="1"><c r="A1" t="s"><v>99</v></c></row>'):
        assert "a.xlsx: the Excel file is damaged (" in refused(xlsx, with_cells(xml), "a.xlsx")


@pytest.mark.parametrize(
    ("value", "how", "text"),
    [
        (1200, "General", "1200"),
        (1.0, "General", "1"),
        (0.1 + 0.2, "General", "0.3"),
        (1e20, "General", "1e+20"),
        (-5, "General", "-5"),
        (True, "General", "TRUE"),
        (1200, "#,##0", "1,200"),
        (1200.5, '"¥"#,##0.00', "¥1,200.50"),
        (1200, "[$¥-411]#,##0", "¥1,200"),
        (3, '0"個"', "3個"),
        (0.125, "0%", "13%"),
        (0.125, "0.0%", "12.5%"),
        (-1200, "#,##0;[Red](#,##0)", "(1,200)"),
        (-1200, "#,##0", "-1,200"),
        (2.5, "0.##", "2.5"),
        (2, "0.##", "2"),
        (1234567, "0.0,", "1234567"),
        (0.5, "# ?/?", "0.5"),
        (7, "000", "007"),
        (-0.5, "0.00", "-0.50"),
        (1e300, "#,##0", "1e+300"),
        (1234.0, "#,##0.00", "1,234.00"),
        (5, "@", "5"),
        ("0012", "@", "0012"),
        ("a\r\nb ", "General", "a\nb"),
        (at(2024, 3, 1), "yyyy-mm-dd", "2024-03-01"),
        (at(2024, 3, 1), "mm-dd-yy", "2024-03-01"),
        (at(2024, 3, 1, 9, 5), "General", "2024-03-01 09:05:00"),
        (at(2024, 3, 1), 'yyyy"年"m"月"d"日"', "2024年3月1日"),
        (at(2024, 3, 1), '[$-411]ggge"年"m"月"d"日"', "令和6年3月1日"),
        (at(1989, 1, 7), "ggge", "昭和64"),
        (at(2024, 3, 1, 14, 5), "d.m.yy h:mm", "1.3.24 14:05"),
        (at(2024, 3, 1, 14, 5), "h:mm AM/PM", "2:05 PM"),
        (at(2024, 3, 1), "mmm d, yyyy", "Mar 1, 2024"),
        (at(2024, 3, 1), "m/d(aaa)", "3/1(金)"),
        (dt.time(9, 5, 7), "mm:ss", "05:07"),
        (dt.timedelta(hours=30, minutes=5), "[h]:mm:ss", "30:05:00"),
        (dt.timedelta(hours=30, minutes=5), "[h]:mm", "30:05"),
    ],
)
def test_what_a_cell_shows(value: object, how: str, text: str) -> None:
    assert shown(value, how) == text
