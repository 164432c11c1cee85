"""Questions in tables: CSV of every usual kind, TSV, Excel; what is no table is said with its place."""

from __future__ import annotations

import csv
import datetime as dt
import io
import random
import sys
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragtune.base.errors import UsageError
from ragtune.data import tables
from ragtune.data.read import records

ROWS = [
    {"質問": "日本一高い山は?", "正解": "富士山"},
    {"質問": 'どこに, "誰"が\n住む?', "正解": "東京; 大阪"},
]


def read(path: Path) -> list[dict[str, Any]]:
    return [record for _, record in records(str(path))]


def refusal(path: Path) -> str:
    with pytest.raises(UsageError) as raised:
        read(path)
    return str(raised.value).replace(f"{path.parent}/", "")


def write_csv(path: Path, encoding: str = "utf-8", **form: Any) -> Path:
    out = io.StringIO()
    writer = csv.DictWriter(out, ["質問", "正解"], **form)
    writer.writeheader()
    writer.writerows(ROWS)
    path.write_bytes(out.getvalue().encode(encoding))
    return path


def write_excel(path: Path, *sheets: list[list[Any]]) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for number, rows in enumerate(sheets, 1):
        sheet = book.create_sheet(f"Sheet{number}")
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "cp932", "euc_jp", "utf-16", "utf-16-le"]
)
@pytest.mark.parametrize(
    "form",
    [
        {},
        {"delimiter": ";"},
        {"delimiter": "\t"},
        {"quoting": csv.QUOTE_ALL},
        {"lineterminator": "\n"},
    ],
)
def test_every_kind_of_csv_gives_the_same_rows(
    tmp_path: Path, encoding: str, form: dict[str, Any]
) -> None:
    assert read(write_csv(tmp_path / "a.csv", encoding, **form)) == ROWS


def test_the_encoding_is_said_unless_it_is_utf_8(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read(write_csv(tmp_path / "a.csv", "cp932"))
    assert "a.csv is read as cp932." in capsys.readouterr().out.replace("\n", "")
    read(write_csv(tmp_path / "b.csv", "utf-8-sig"))
    assert capsys.readouterr().out == ""


cell = st.text(
    st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from('",;\n'), max_size=8
)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None
)
@given(st.lists(st.tuples(cell.map("x".__add__), cell), min_size=1, max_size=4))
def test_what_is_written_as_csv_is_read_again(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    out = io.StringIO(newline="")
    csv.writer(out).writerows([("question", "answer"), *rows])
    (tmp_path / "a.csv").write_bytes(out.getvalue().encode())
    assert read(tmp_path / "a.csv") == [{"question": q, "answer": a} for q, a in rows]


def test_a_tsv_holds_quotation_marks_as_they_are_unless_excel_wrote_it(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('question\tanswer\n"Who"?\t6" long\nWhat?\t"x"\n', "utf-8")
    assert read(path) == [
        {"question": '"Who"?', "answer": '6" long'},
        {"question": "What?", "answer": '"x"'},
    ]
    assert read(write_csv(tmp_path / "b.tsv", delimiter="\t")) == ROWS


def test_rows_have_their_line_and_blanks_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('q,a,\n"one\ntwo",1,\n\n,,\nthree,,\n', "utf-8")
    places = [(where.rpartition(":")[2], row) for where, row in records(str(tmp_path / "a.csv"))]
    assert places == [("2", {"q": "one\ntwo", "a": "1"}), ("6", {"q": "three", "a": ""})]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"q,a\none,two,three\n", "a.csv:2: 3 cells, but 2 columns have a name."),
        (b"q\none,two\n", "a.csv:2: 2 cells, but 1 column has a name."),
        (b"q,q\none,two\n", "a.csv: two columns are called q."),
        (b'q,a\n"one,two\n', "a.csv:2: no CSV (unexpected end of data)."),
        (b'q,a\n"one"x,two\n', "a.csv:2: no CSV ("),
        (b",".join(b"c%d" % i for i in range(1001)), "a.csv: 1,001 columns, more than 1,000."),
        (b"\x1f\x8b\x08\x00" + random.Random(1).randbytes(3000), "a.csv: no text"),
        (b"PK\x03\x04" + bytes(range(256)) * 4, "a.csv: no text"),
    ],
)
def test_what_is_no_table_is_told(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    assert refusal(tmp_path / "a.csv").startswith(message)


def test_a_large_table_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_TABLE", 1 << 20)
    (tmp_path / "a.csv").write_bytes(b"q,a\n" + b"x" * (1 << 20))
    assert "a.csv: a table of more than 1 MiB.\nWrite it as .parquet or .jsonl" in refusal(
        tmp_path / "a.csv"
    )


def test_a_sheet_of_excel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        ["question", "answer", "when", None],
        ["How many?", 42, dt.date(2024, 1, 31), None],
        [None, None, None, None],
        ["How much?", 1.5, None, None],
    ]
    found = list(records(str(write_excel(tmp_path / "a.xlsx", [], rows, [["other"]]))))
    assert [(where.rpartition(": ")[2], list(row.values())) for where, row in found] == [
        ("Sheet2, row 2", ["How many?", 42, dt.datetime.fromisoformat("2024-01-31")]),
        ("Sheet2, row 4", ["How much?", 1.5, ""]),
    ]
    assert "of 3 sheets Sheet2 is read." in capsys.readouterr().out


def test_excel_without_openpyxl_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_excel(tmp_path / "a.xlsx", [["q"], ["x"]])
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    assert "a.xlsx: Excel files need openpyxl." in refusal(path)
    assert "save the sheet as CSV" in refusal(path)


def test_old_excel_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "a.xls").write_bytes(b"\xd0\xcf\x11\xe0")
    assert refusal(tmp_path / "a.xls") == (
        "a.xls: unknown kind of file.\nOpen it in a spreadsheet, and save it as .xlsx or .csv."
    )


def test_an_excel_file_with_a_password_or_none_at_all_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_bytes(b"\xd0\xcf\x11\xe0" + bytes(600))
    assert refusal(tmp_path / "a.xlsx").startswith(
        "a.xlsx: no .xlsx file (File is not a zip file)."
    )


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = write_excel(tmp_path / "a.xlsx", [["q"], ["x"]])
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive,
        archive.open("xl/big", "w") as big,
    ):
        for _ in range(129):
            big.write(bytes(1 << 20))
    assert refusal(path).startswith("a.xlsx: 129 MiB unpacked, more than 128 MiB.")


def test_damage_of_any_kind_ends_in_a_message(tmp_path: Path) -> None:
    whole = write_excel(tmp_path / "a.xlsx", [["q", "a"], ["x", 1], ["y", "2"]]).read_bytes()
    parts: dict[str, bytes] = {}
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    shuffled = random.Random(3)
    path = tmp_path / "b.xlsx"
    for number in range(60):
        damaged = bytearray(whole)
        damaged[shuffled.randrange(len(damaged))] ^= 1 << shuffled.randrange(8)
        path.write_bytes(damaged)
        if number % 2:  # inside of a part, which checksums don't see
            name = shuffled.choice(sorted(parts))
            part = bytearray(parts[name])
            for _ in range(3):
                part[shuffled.randrange(len(part))] = shuffled.randrange(256)
            with zipfile.ZipFile(path, "w") as archive:
                for other, content in parts.items():
                    archive.writestr(other, bytes(part) if other == name else content)
        try:
            read(path)
        except UsageError:
            continue
