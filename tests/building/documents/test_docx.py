"""Word files: text as it stands under its headings, and what is refused of them."""

from __future__ import annotations

import docx as python_docx
import pytest
from docx.document import Document as Word
from docx.shared import Inches
from PIL import Image

from ragtune.building.documents import docx, office
from ragtune.building.documents.document import Document
from tests.building.documents.made import members, refused, saved, under, zipped

NOTE = (
    '<w:{0} xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">'
    '<w:{1} w:id="1"><w:p><w:r><w:t>{2}</w:t></w:r></w:p></w:{1}></w:{0}>'
)


def read(made: Word | bytes, name: str = "a/manual.docx") -> Document:
    content = made if isinstance(made, bytes) else saved(made)
    (document,) = docx.read(content, name)
    return document


def with_note(made: Word, kind: str, text: str) -> bytes:
    """python-docx makes no notes: the part, its relation and the reference are written here."""
    there = members(saved(made))
    reference = f'<w:r><w:{kind}Reference w:id="1"/></w:r></w:p>'.encode()
    body = there["word/document.xml"].replace(b"</w:p>", reference, 1)
    relation = (
        f'<Relationship Id="rId99" Target="{kind}s.xml" Type="http://schemas.openxmlformats.org/'
        f'officeDocument/2006/relationships/{kind}s"/></Relationships>'
    ).encode()
    relations = there["word/_rels/document.xml.rels"].replace(b"</Relationships>", relation)
    override = (
        f'<Override PartName="/word/{kind}s.xml" ContentType="application/vnd.openxmlformats-'
        f'officedocument.wordprocessingml.{kind}s+xml"/></Types>'
    ).encode()
    return zipped(
        there,
        {
            "word/document.xml": body,
            "word/_rels/document.xml.rels": relations,
            "[Content_Types].xml": there["[Content_Types].xml"].replace(b"</Types>", override),
            f"word/{kind}s.xml": NOTE.format(f"{kind}s", kind, text).encode(),
        },
    )


def test_what_stands_under_each_heading() -> None:
    made = python_docx.Document()
    made.add_heading("ポンプの手引き", 0)
    made.add_paragraph("Before any heading.")
    made.add_heading("Installation", 1)
    made.add_paragraph("水を_山_まで入れる。")
    made.add_heading("On  Linux", 2)
    made.add_paragraph("Use <b> & *stars*: 1 > 0.")
    made.add_heading("使用", 1)
    made.add_paragraph("Turn\tit\no\xadn\u200b.")
    document = read(made)
    assert document.title == "ポンプの手引き"
    assert document.text.startswith("ポンプの手引き\n\nBefore any heading.\n\nInstallation\n\n")
    assert under(document) == [
        (None, "Installation", "Installation\n\n水を_山_まで入れる。"),
        (None, "Installation > On Linux", "On  Linux\n\nUse <b> & *stars*: 1 > 0."),
        (None, "使用", "使用\n\nTurn\tit\non."),
    ]


def test_titles() -> None:
    made = python_docx.Document()
    made.add_paragraph("Only text.")
    assert read(made).title == "manual"
    made.add_heading("First heading", 1)
    assert read(made).title == "First heading"
    made.core_properties.title = "Word Document"
    assert read(made).title == "First heading"
    made.core_properties.title = " 文書の題 "
    assert read(made).title == "文書の題"


def test_tables_have_a_line_for_each_row() -> None:
    made = python_docx.Document()
    made.add_paragraph("Before.")
    table = made.add_table(3, 2)
    for row, texts in enumerate((("品名", "Price\nnet"), ("Pump", "¥1,200"), ("", ""))):
        for column, text in enumerate(texts):
            table.cell(row, column).text = text
    inner = table.cell(2, 1).add_table(1, 2)
    inner.cell(0, 0).text, inner.cell(0, 1).text = "in", "ner"
    made.add_paragraph("After.")
    assert read(made).text == ("Before.\n\n品名 | Price net\nPump | ¥1,200\nin | ner\n\nAfter.")


def test_lists_have_a_line_for_each_item() -> None:
    made = python_docx.Document()
    made.add_paragraph("Before.")
    for text in ("one", "two"):
        made.add_paragraph(text, style="List Bullet")
    made.add_paragraph("After.")
    assert read(made).text == "Before.\n\none\ntwo\n\nAfter."


@pytest.mark.parametrize("kind", ["footnote", "endnote"])
def test_notes_stand_at_the_end_and_their_numbers_in_no_sentence(kind: str) -> None:
    made = python_docx.Document()
    made.add_paragraph("The highest mountain")
    made.add_heading("Last", 1)
    made.add_paragraph("The end.")
    document = read(with_note(made, kind, "Of Japan: 富士山."))
    assert document.text == "The highest mountain\n\nLast\n\nThe end.\n\nOf Japan: 富士山."
    assert under(document) == [(None, "Last", "Last\n\nThe end."), (None, "", "Of Japan: 富士山.")]


def test_japanese_style_names() -> None:
    made = python_docx.Document()
    made.add_heading("導入", 1)
    content = saved(made)
    there = members(content)
    styles = there["word/styles.xml"].replace(b'w:val="heading 1"', 'w:val="見出し 1"'.encode())
    assert styles != there["word/styles.xml"]
    document = there["word/document.xml"].replace(b'"Heading1"', b'"a1"')
    styles = styles.replace(b'"Heading1"', b'"a1"')
    made_there = zipped(there, {"word/styles.xml": styles, "word/document.xml": document})
    assert under(read(made_there)) == [(None, "導入", "導入")]


def test_pictures_are_left_out() -> None:
    made = python_docx.Document()
    made.add_paragraph("A picture:")
    made.add_picture(_png(), width=Inches(1))
    assert read(made).text == "A picture:"
    empty = python_docx.Document()
    empty.add_picture(_png(), width=Inches(1))
    assert refused(docx, saved(empty), "a.docx") == (
        "a.docx: the Word file holds no text.\nLeave it out; if it shows text, it does so in pictures: set "
        "documents.reader: docling (it needs pip install docling)."
    )


def _png() -> object:
    import io

    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "png")
    out.seek(0)
    return out


def test_files_of_other_kinds_are_refused() -> None:
    old = office._OLD
    assert refused(docx, old + "EncryptedPackage".encode("utf-16-le"), "a.docx") == (
        "a.docx is encrypted: it opens only with a password.\n"
        "Open it in Word or LibreOffice, and save it without one."
    )
    assert refused(docx, old, "a.docx") == (
        "a.docx is of the old format .doc, whatever its name says.\n"
        "Open it in Word or LibreOffice, and save it as .docx."
    )
    assert "a.docx is no Word file, whatever its name says." in refused(docx, b"%PDF-1.7", "a.docx")
    assert "a.docx is a ZIP archive, but no Word file." in refused(
        docx, zipped({"xl/workbook.xml": b"<x/>"}), "a.docx"
    )
    assert "a.docx is empty: 0 bytes." in refused(docx, b"", "a.docx")


def test_damaged_files() -> None:
    content = saved(python_docx.Document())
    assert "the Word file is damaged (BadZipFile" in refused(docx, content[:999], "a.docx")
    there = members(content)
    for change in (b"", b"<w:document", b"<a/>"):
        broken = zipped(there, {"word/document.xml": change})
        assert "a.docx" in refused(docx, broken, "a.docx")
    deep = b"<w:r>" * 5_000 + b"</w:r>" * 5_000
    body = there["word/document.xml"].replace(b"<w:body>", b"<w:body>" + deep)
    assert "damaged (RecursionError" in refused(
        docx, zipped(there, {"word/document.xml": body}), "a.docx"
    )


def test_bombs_are_refused_before_they_are_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    there = members(saved(python_docx.Document()))
    monkeypatch.setattr(office, "MAX_UNPACKED", 2_000_000)
    said = refused(docx, zipped(there, {"word/media/a.png": bytes(3_000_000)}), "a.docx")
    assert "a.docx grows to 4 MiB when it is unpacked; at most 2 MiB are read." in said
    assert "It was not unpacked." in said
    monkeypatch.setattr(office, "MAX_MEMBERS", 5)
    assert "at most 5 are read" in refused(docx, zipped(there), "a.docx")


def test_a_member_that_is_longer_than_it_says_is_damage() -> None:
    there = members(saved(python_docx.Document()))
    text = b"<w:p><w:r><w:t>" + b"a" * 1_000_000 + b"</w:t></w:r></w:p>"
    there["word/document.xml"] = there["word/document.xml"].replace(b"<w:body>", b"<w:body>" + text)
    size = len(there["word/document.xml"]).to_bytes(4, "little")
    content = zipped(there)
    assert content.count(size) == 2
    assert "damaged (BadZipFile" in refused(
        docx, content.replace(size, (5000).to_bytes(4, "little")), "a.docx"
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_refused(encoding: str) -> None:
    there = members(saved(python_docx.Document()))
    bomb = (
        '<?xml version="1.0"?>'
        + "<!-- long -->" * 100_000
        + '<!DOCTYPE a [<!ENTITY a "aaaa">]><a>&a;</a>'
    )
    said = refused(docx, zipped(there, {"word/document.xml": bomb.encode(encoding)}), "a.docx")
    assert "a.docx: word/document.xml defines a document type" in said
