"""From files to documents: each source in its order, what can't be read named, and what was found said."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from fpdf import FPDF
from PIL import Image

from ragtune.base.errors import UsageError
from ragtune.building.documents import read as reading
from ragtune.building.documents.document import Document, UnreadableError
from ragtune.building.documents.kinds import require_kind
from ragtune.building.documents.read import find_files, read_source, read_sources
from ragtune.recipe.corpus import Documents

PDF = b"""%PDF-1.4
1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj
2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj
3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>>>endobj
4 0 obj<</Length 39>>stream
BT /F 12 Tf 20 100 Td (Some text) Tj ET
endstream endobj
5 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj
trailer<</Root 1 0 R/Size 6>>
"""


def docx() -> bytes:
    from docx import Document as Word

    word, out = Word(), io.BytesIO()
    word.add_heading("手順", 1)
    word.add_paragraph("本文です。")
    word.save(out)
    return out.getvalue()


def pptx() -> bytes:
    from pptx import Presentation

    deck, out = Presentation(), io.BytesIO()
    slide = deck.slides.add_slide(deck.slide_layouts[1])
    slide.shapes.title.text = "Slide"
    slide.placeholders[1].text = "Words"
    deck.save(out)
    return out.getvalue()


def xlsx() -> bytes:
    from openpyxl import Workbook

    book, out = Workbook(), io.BytesIO()
    for row in (["名前", "高さ"], ["富士山", 3776]):
        book.active.append(row)
    book.save(out)
    return out.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


HTML = "<html><body><h1>A</h1><p>本文</p></body></html>".encode()
FILES = {
    "a.md": b"# A\n\n## B\n\ntext\n",
    "b.txt": "東京は日本の首都です。".encode("cp932"),
    "c.html": HTML,
    "d.pdf": PDF,
    "e.docx": docx(),
    "f.pptx": pptx(),
    "g.xlsx": xlsx(),
    "h.csv": "名前,高さ\n富士山,3776\n".encode(),
    "i.jsonl": b'{"text": "one"}\n{"text": ""}\n',
    "j.jsonl.gz": gzip.compress(b'{"id": 7, "text": "two", "section": "S"}\n'),
    "k.zip": zipped({"m/x.md": b"# X", "m/y.csv": b"id,text\n1,y\n", "m/z.doc": b"z"}),
}


def put(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def read(folder: Path, **settings: Any) -> dict[str, list[Document] | str]:
    documents = Documents(files=[str(folder)], **settings)
    return {
        source.name.partition("/")[2]: found.message
        if isinstance(found, UnreadableError)
        else list(found)
        for source, found in read_sources(find_files(documents), documents)
    }


def test_pages_that_are_pictures_are_said_with_their_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, scans in (("one.pdf", 1), ("two.pdf", 2), ("whole.pdf", 0)):
        made = FPDF()
        made.set_font("helvetica")
        made.add_page()
        made.text(20, 20, "The pump must be vented.")
        for _ in range(scans):
            made.add_page()
            made.image(Image.new("RGB", (40, 40)), w=100)
        made.output(tmp_path / name)
    documents = Documents(files=[str(tmp_path)])
    assert len(list(read_sources(find_files(documents), documents))) == 3
    said = " ".join(capsys.readouterr().out.split())
    assert "! Pages that show pictures and hold no text, and are left out: 1 of 2 in " in said
    assert "2 of 3 in " in said
    assert "ocrmypdf --skip-text IN.pdf OUT.pdf" in said
    assert "whole.pdf" not in said


def test_every_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = read(put(tmp_path / "docs", FILES))
    assert list(found) == [*list(FILES)[:-1], "k.zip/m/x.md", "k.zip/m/y.csv", "k.zip/m/z.doc"]
    places = {
        name: [
            (
                document.id.partition("/")[2],
                document.text[mark.start :].partition("\n")[0],
                mark.page,
                mark.heading,
            )
            for document in documents
            for mark in document.marks
        ]
        for name, documents in found.items()
        if not isinstance(documents, str)
    }
    assert places == {
        "a.md": [("a.md", "# A", None, "A"), ("a.md", "## B", None, "A > B")],
        "b.txt": [],
        "c.html": [("c.html", "A", None, "A")],
        "d.pdf": [("d.pdf", "Some text", 1, "")],
        "e.docx": [("e.docx", "手順", None, "手順")],
        "f.pptx": [("f.pptx", "Slide", 1, "Slide")],
        "g.xlsx": [("g.xlsx#Sheet", "名前: 富士山", 2, "Sheet")],
        "h.csv": [("h.csv#2", "名前: 富士山", 2, "")],
        "i.jsonl": [],
        "j.jsonl.gz": [("j.jsonl.gz#7", "two", None, "S")],
        "k.zip/m/x.md": [("k.zip/m/x.md", "# X", None, "X")],
        "k.zip/m/y.csv": [("k.zip/m/y.csv#1", "y", 2, "")],
    }
    assert found["k.zip/m/z.doc"] == "docs/k.zip/m/z.doc: .doc files are not read."
    said = capsys.readouterr().out
    assert "Read as cp932: 1 file (docs/b.txt)." in said
    assert "Without a column text: docs/h.csv. Each row is read as lines of `column: value`" in said
    assert "! docs/i.jsonl: 1 record without text left out." in said


def test_the_same_in_this_process(tmp_path: Path) -> None:
    documents = Documents(files=[str(put(tmp_path / "docs", FILES))])
    sources = [source for source in find_files(documents) if not source.problem]
    apart = [
        list(found)
        for _, found in read_sources(sources, documents)
        if not isinstance(found, UnreadableError)
    ]
    assert apart == [list(read_source(source, documents)) for source in sources]


MISNAMED = {
    "a.pdf": (HTML, "is a page of HTML, whatever its name says."),
    "b.docx": (zipped({"x": b"x"}), "is a zip archive, whatever its name says."),
    "c.docx": (FILES["g.xlsx"], "is an Excel workbook, whatever its name says."),
    "d.xlsx": (PDF, "is a PDF file, whatever its name says."),
    "e.txt": (PDF, "is a PDF file, whatever its name says."),
    "f.md": (b"\x89PNG\r\n\x1a\n" + bytes(9), "is a picture (PNG), whatever its name says."),
    "g.html": (gzip.compress(HTML), "is packed by gzip, whatever its name says."),
    "h.docx": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "WordDocument".encode("utf-16-le"), "is an old Word document"),
    "i.xlsx": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"), "is encrypted: it opens only"),
    "j.pptx": (b"just text", "is no .pptx file, whatever its name says."),
    "k.txt": (b"", "is empty."),
    "l.pdf": (bytes(500), "is empty."),
    "m.txt": (b"\x00\x01\x02\xff" * 99, "no text"),
    "n.txt": (("東京" * 50).encode() + b"\xff\xff", "not UTF-8"),
    "o.docx": (b"PK\3\4junk", "is a damaged zip file"),
    "p.csv": (FILES["g.xlsx"], "is no text, whatever its name says."),
}  # fmt: skip


def test_what_is_not_what_it_is_called(tmp_path: Path) -> None:
    found = read(put(tmp_path / "docs", {name: content for name, (content, _) in MISNAMED.items()}))
    wrong = {
        name: (found[name], said)
        for name, (_, said) in MISNAMED.items()
        if said not in str(found[name])
    }
    assert wrong == {}
    assert all(str(found[name]).startswith(f"docs/{name}") for name in MISNAMED)


def test_an_encoding_that_the_user_named(tmp_path: Path) -> None:
    folder = put(
        tmp_path / "docs",
        {"a.txt": "表示".encode("cp932"), "b.txt": "\ufeff表示".encode(), "c.txt": b"\x81\x20"},
    )
    found = read(folder, encoding="cp932")
    assert [
        documents[0].text for documents in list(found.values())[:2] if isinstance(documents, list)
    ] == ["表示"] * 2
    assert found["c.txt"] == "docs/c.txt: not cp932 (byte 0)."


def test_a_missing_library_stops_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "stand-in", {"trafilatura.py": b"raise ImportError"})
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "stand-in"), prepend=":")
    with pytest.raises(UsageError, match="Reading HTML files needs trafilatura") as raised:
        read(put(tmp_path / "docs", {"a.html": HTML}))
    assert not isinstance(raised.value, UnreadableError)


@pytest.mark.parametrize("name", ["a.jsonl", "a.zip"])
def test_records_are_read_while_they_are_asked_for(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "AHEAD", 10)
    lines = "".join(json.dumps({"text": f"text {i}"}) + "\n" for i in range(50)) + "{}\n"
    content = {"a.jsonl": lines.encode(), "b.txt": b"b"}
    folder = put(tmp_path / "docs", {name: zipped(content)} if name == "a.zip" else content)
    documents = Documents(files=[str(folder)])
    seen: list[str] = []
    for source, found in read_sources(find_files(documents), documents):
        assert not isinstance(found, UnreadableError)
        seen.append(source.suffix)
        if source.suffix == ".jsonl":
            assert _until_error(found) == 50
    assert seen == [".jsonl", ".txt"]


def _until_error(found: Iterable[Document]) -> int:
    """How many are given before a record is wrong."""
    texts: list[str] = []
    with pytest.raises(UnreadableError, match=r"a\.jsonl:51: there is no column text"):
        texts.extend(document.text for document in found)
    assert texts == [f"text {number}" for number in range(len(texts))]
    return len(texts)


def test_what_is_wrong_at_the_beginning_is_no_source_begun(tmp_path: Path) -> None:
    found = read(put(tmp_path / "docs", {"a.jsonl": b'{"txt": "x"}', "b.jsonl": b'{"text": "x"}'}))
    assert "there is no column text" in str(found["a.jsonl"])
    assert len(found["b.jsonl"]) == 1


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    documents = Documents(files=[str(put(tmp_path / "docs", {"a.txt": b"a", "b.jsonl": b"{}"}))])
    sources = find_files(documents)
    for path in (tmp_path / "docs").iterdir():
        path.unlink()
    messages = [getattr(found, "message", "") for _, found in read_sources(sources, documents)]
    assert messages[0] == "docs/a.txt can't be read (No such file or directory)."
    assert "docs/b.jsonl" in messages[1]


@pytest.mark.timeout(20)
def test_to_look_at_a_page_takes_no_time() -> None:
    with pytest.raises(UnreadableError, match=r"is no \.pdf file"):
        require_kind(b"<!---->" * 280 + b"x", "pdf", "a.pdf")
