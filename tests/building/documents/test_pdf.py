"""PDF files, as many programs write them: pages, columns, paragraphs, and what is refused of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fpdf import FPDF
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ragtune.building.documents import parts, pdf
from ragtune.building.documents.document import Document
from tests.building.documents.made import ENGLISH, JAPANESE, refused, script, under

writers = script("writers")
NOTO = Path("/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc")


def read(content: bytes, name: str = "manuals/pump.pdf") -> Document:
    (document,) = pdf.read(content, name)
    return document


def english(size: int = 11) -> FPDF:
    made = FPDF()
    made.add_page()
    made.set_font("helvetica", size=size)
    return made


def drawn(lines: list[str], *, x: int = 60, y: int = 780, size: int = 11) -> str:
    """Japanese lines, each below the one before."""
    return "".join(
        f" /F1 {size} Tf 1 0 0 1 {x} {y - 16 * n} Tm <{line.encode('utf-16-be').hex()}> Tj"
        for n, line in enumerate(lines)
    )


def page(*columns: str) -> str:
    return f"BT {' '.join(columns)} ET"


def test_a_page_is_what_stands_on_it() -> None:
    made = english()
    made.multi_cell(80, 6, f"First page. {ENGLISH}", align="L")
    made.add_page()
    made.add_page()
    made.multi_cell(80, 6, "Third page, after an empty one.")
    document = read(bytes(made.output()))
    assert under(document) == [
        (1, "", f"First page. {ENGLISH}"),
        (3, "", "Third page, after an empty one."),
    ]
    assert (document.id, document.file) == ("manuals/pump.pdf", "manuals/pump.pdf")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("", "pump"),
        ("The  pump", "The pump"),
        ("Microsoft Word - Pump manual.docx", "Pump manual"),
        ("ポンプの手引き", "ポンプの手引き"),
    ],
)
def test_the_title_is_the_metadatas_or_the_files(given: str, shown: str) -> None:
    made = english()
    made.cell(text="hello")
    made.set_title(given)
    assert read(bytes(made.output())).title == shown


def test_english_lines_are_joined_with_blanks_and_paragraphs_apart() -> None:
    made = english()
    for align in ("L", "J"):
        made.multi_cell(70, 6, ENGLISH, align=align)
        made.ln(6)
    assert read(bytes(made.output())).text == f"{ENGLISH}\n\n{ENGLISH}"


def test_columns_are_read_one_after_the_other_and_sentences_go_on_in_the_next() -> None:
    made = english(10)
    with made.text_columns(ncols=2, gutter=8, text_align="J", balance=True) as columns:
        columns.write("\n\n".join(f"{n}: {ENGLISH}" for n in range(5)))
    text = read(bytes(made.output())).text
    assert text.split("\n\n") == [f"{n}: {ENGLISH}" for n in range(5)]


def test_japanese_lines_are_joined_without_blanks() -> None:
    made = writers.cid_pdf([page(drawn(writers.broken(JAPANESE, 20)))])
    assert read(made).text == JAPANESE


def test_japanese_columns() -> None:
    lines = writers.broken(JAPANESE, 20)
    made = writers.cid_pdf([page(drawn(lines[:4]), drawn(lines[4:], x=320))])
    assert read(made).text == JAPANESE


def test_vertical_lines_are_read_from_right_to_left_in_tiers() -> None:
    plain = re.sub(r"[A-Z0-9𠮷]", "字", JAPANESE)
    lines = writers.broken(plain, 15)
    tiers = [
        drawn([line], x=540 - 18 * (n % 4), y=780 - 330 * (n // 4)) for n, line in enumerate(lines)
    ]
    made = writers.cid_pdf([page(*tiers)], encoding="UniJIS-UTF16-V")
    assert read(made).text == plain


def test_a_paragraph_goes_on_over_pages_and_each_page_has_its_part() -> None:
    lines = writers.broken(JAPANESE, 20)
    made = writers.cid_pdf([page(drawn(lines[:3])), page(drawn(lines[3:]))])
    document = read(made)
    assert document.text == JAPANESE
    first = "".join(lines[:3])
    assert under(document) == [(1, "", first), (2, "", JAPANESE[len(first) :])]


def test_short_lines_and_items_stay_lines() -> None:
    lines = [
        *writers.broken(JAPANESE[:60], 20),
        "・東京駅から歩く",
        "・大阪駅から歩く",
        "(1)名古屋",
    ]
    assert read(writers.cid_pdf([page(drawn(lines))])).text == "\n".join(
        (JAPANESE[:60], "・東京駅から歩く", "・大阪駅から歩く", "(1)名古屋")
    )
    made = english()
    for line in ("Apples", "Bananas", "Pears"):
        made.cell(text=line, new_x="LMARGIN", new_y="NEXT")
    assert read(bytes(made.output())).text == "Apples\nBananas\nPears"


def test_other_sizes_are_other_paragraphs() -> None:
    made = writers.cid_pdf(
        [
            page(
                drawn(["題名"], size=20),
                drawn(["本文が続く。"], y=764),
                drawn(["注"], y=740, size=7),
            )
        ]
    )
    assert read(made).text == "題名\n\n本文が続く。\n\n注"


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["The water is trans-", "ported by pumps."], "The water is transported by pumps."),
        (["He moved to Austria-", "Hungary in 1900."], "He moved to Austria-Hungary in 1900."),
        (["in English-", "and German-speaking parts"], "in English- and German-speaking parts"),
    ],
)
def test_words_divided_at_the_end_of_a_line(lines: list[str], text: str) -> None:
    made = english()
    for line in lines:
        made.cell(text=line, new_x="LMARGIN", new_y="NEXT")
    assert read(bytes(made.output())).text == text


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        ("⽬⽴⻑⼭", "目立長山"),
        ("eﬃcient oﬀer ﬂow", "efficient offer flow"),
        ("well\xadknown", "well-known"),
        ("a\u200bb", "ab"),
        ("𠮷野𩸽", "𠮷野𩸽"),
    ],
)
def test_letters_become_those_that_are_typed(shown: str, text: str) -> None:
    """A font whose map leads to radicals, ligatures and soft hyphens, as many programs write it."""
    codes = "".join(f"{n:04x}" for n in range(1, len(shown) + 1))
    made = writers.cid_pdf([f"BT /F1 11 Tf 60 700 Td <{codes}> Tj ET"], encoding="Identity-H")
    pairs = "".join(f"<{n:04x}> <{c.encode('utf-16-be').hex()}>\n" for n, c in enumerate(shown, 1))
    mapping = (
        "/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /X def /CMapType 2 def\n"
        f"1 begincodespacerange <0000> <ffff> endcodespacerange\n{len(shown)} beginbfchar\n{pairs}endbfchar\n"
        "endcmap end end"
    )
    body = f"9 0 obj\n<< /Length {len(mapping)} >>\nstream\n{mapping}\nendstream\nendobj\n"
    made = made.replace(b"/Identity-H", b"/Identity-H /ToUnicode 9 0 R")
    made = made.replace(b"xref\n0", body.encode() + b"xref\n0", 1)
    assert read(made).text == text


@pytest.mark.skipif(
    not NOTO.exists(), reason="no Japanese font here: fonts-noto-cjk of Debian has it"
)
def test_an_embedded_japanese_font() -> None:
    made = FPDF()
    made.add_font("noto", fname=NOTO, collection_font_number=0)
    made.add_page()
    made.set_font("noto", size=11)
    made.multi_cell(90, 7, f"{JAPANESE}⻑い⽬で⽴つ", align="L")
    assert read(bytes(made.output())).text == f"{JAPANESE}長い目で立つ"


@given(
    st.lists(st.text("あいうえお漢字東京、。「」", min_size=6, max_size=90), min_size=1, max_size=4)
)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_nothing_is_lost_or_added(texts: list[str]) -> None:
    made = writers.pdf(writers.Article("題", [("節", texts)], "ja"))
    assert "".join(read(made).text.split()) == "題節" + "".join(texts)


def test_files_that_cannot_be_read() -> None:
    made = english()
    made.multi_cell(80, 6, ENGLISH)
    good = bytes(made.output())
    assert refused(pdf, b"", "a.pdf").startswith("a.pdf is empty: 0 bytes.")
    assert "a.pdf is no PDF file, whatever its name says" in refused(pdf, b"PK\3\4 word", "a.pdf")
    assert "damaged, or not whole" in refused(pdf, good[:400], "a.pdf")
    assert "damaged (Failed to load page" in refused(
        pdf, good.replace(b"/Type /Page\n", b"/Type /Nope\n"), "a.pdf"
    )


def test_encrypted_files_are_refused_unless_anybody_may_read_them() -> None:
    for password in ("", "secret"):
        made = english()
        made.set_encryption("owner", password)
        made.cell(text="hello")
        content = bytes(made.output())
        if password:
            said = refused(pdf, content, "a.pdf")
            assert "a.pdf is encrypted: it opens only with a password.\n" in said
            assert "qpdf --decrypt" in said
        else:
            assert read(content).text == "hello"


def test_scans_are_refused_with_the_way_out() -> None:
    made = FPDF()
    made.add_page()
    made.image(Image.new("RGB", (40, 40)), w=100)
    said = refused(pdf, bytes(made.output()), "scan.pdf")
    assert said == (
        "scan.pdf: no text can be read from its 1 page; they are empty, or scanned.\n"
        "Recognise the letters first (`ocrmypdf IN.pdf OUT.pdf`), or set documents.reader: docling "
        "(pip install docling)."
    )


def test_pages_that_are_pictures_among_others_are_counted() -> None:
    made = FPDF()
    made.set_font("helvetica")
    for kind in ("text", "scan", "blank", "both", "scan"):
        made.add_page()
        if kind in ("text", "both"):
            made.text(20, 20, "The pump must be vented before the first start.")
        if kind in ("scan", "both"):
            made.image(Image.new("RGB", (40, 40)), y=100, w=100)
    (found,) = pdf.read(bytes(made.output()), "half.pdf")
    assert (found.pages, found.silent) == (5, 2)
    assert [mark.page for mark in found.marks] == [1, 4]


def test_fonts_that_do_not_say_their_letters_are_refused() -> None:
    made = writers.cid_pdf(["BT /F1 11 Tf 60 700 Td <12341235> Tj ET"], encoding="Identity-H")
    said = refused(pdf, made.replace(b"(Japan1)", b"(Identity)"), "a.pdf")
    assert "its fonts don't say which letters they show" in said


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    made = writers.cid_pdf([page(drawn(["一頁"])), page(drawn(["二頁"]))])
    monkeypatch.setattr(parts, "MAX_CHARACTERS", 4)
    assert "a.pdf has more than 4 characters of text." in refused(pdf, made, "a.pdf")
    monkeypatch.setattr(pdf, "MAX_PAGES", 1)
    assert "a.pdf has 2 pages; at most 1 are read." in refused(pdf, made, "a.pdf")
