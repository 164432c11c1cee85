"""Writes an article as Markdown, HTML, PDF or Word: for the sample of documents, and for benchmarks.

The same article gives the same bytes, whenever it is written.
"""

from __future__ import annotations

import html
import io
import re
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

THEN = datetime(2020, 1, 1, tzinfo=UTC)
PAGE_LINES, LINE_LETTERS = 40, 42
"""Of a Japanese page."""
SYSTEM = (
    "/CIDSystemInfo << /Registry (Adobe) /Ordering (Japan1) /Supplement 4 >> /FontDescriptor 5 0 R"
)
METRICS = (
    "/Flags 6 /FontBBox [-123 -257 1001 910] /ItalicAngle 0 /Ascent 709 /Descent -241 "
    "/CapHeight 709 /StemV 69"
)
NEVER_FIRST = "、。，．・：；？！）」』】〕》〉ー々ぁぃぅぇぉっゃゅょァィゥェォッャュョ"


@dataclass(frozen=True)
class Article:
    """A title, and sections of paragraphs under headings."""

    title: str
    sections: Sequence[tuple[str, Sequence[str]]]
    language: str

    def lines(self) -> Iterator[tuple[str, str]]:
        """What it consists of, in order: (kind, text)."""
        yield "title", self.title
        for heading, paragraphs in self.sections:
            yield "heading", heading
            for paragraph in paragraphs:
                yield "text", paragraph


def markdown(article: Article) -> bytes:
    marks = {"title": "# ", "heading": "## ", "text": ""}
    return "\n\n".join(marks[kind] + text for kind, text in article.lines()).encode() + b"\n"


def web(article: Article) -> bytes:
    """A page of a site: what is said, between navigation and footer."""
    tags = {"title": "h1", "heading": "h2", "text": "p"}
    body = "\n".join(
        f"<{tags[kind]}>{html.escape(text)}</{tags[kind]}>" for kind, text in article.lines()
    )
    title = html.escape(article.title)
    return (
        f'<!DOCTYPE html>\n<html lang="{article.language}">\n<head><meta charset="utf-8">'
        f"<title>{title}</title></head>\n<body>\n"
        '<nav><a href="/">Home</a> <a href="/all">All</a></nav>\n'
        f"<main><article>\n{body}\n</article></main>\n<footer>Sample</footer>\n</body>\n</html>\n"
    ).encode()


def word(article: Article) -> bytes:
    from docx import Document  # noqa: PLC0415 - only where it is needed

    document = Document()
    for kind, text in article.lines():
        if kind == "text":
            document.add_paragraph(text)
        else:
            document.add_heading(text, level=0 if kind == "title" else 1)
    document.core_properties.title = article.title
    out = io.BytesIO()
    document.save(out)
    return _undated(out.getvalue())


def _undated(content: bytes) -> bytes:
    """A ZIP archive whose members have no time."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        for member in old.infolist():
            info = zipfile.ZipInfo(member.filename)
            info.compress_type = zipfile.ZIP_DEFLATED
            new.writestr(info, old.read(member))
    return out.getvalue()


def pdf(article: Article) -> bytes:
    """With a font that is embedded, as most programs write it; Japanese without, as Acrobat allows."""
    return japanese_pdf(article) if article.language == "ja" else latin_pdf(article)


def can_print(article: Article) -> bool:
    """Whether the fonts that are used here have its letters: DejaVu has no Chinese ones."""
    text = "".join(text for _, text in article.lines())
    return article.language == "ja" or not any(
        unicodedata.east_asian_width(c) in "WF" for c in text
    )


def latin_pdf(article: Article) -> bytes:
    import matplotlib as mpl  # noqa: PLC0415 - for its font, DejaVu
    from fpdf import FPDF  # noqa: PLC0415 - only where it is needed

    font = Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    document = FPDF()
    document.set_creation_date(THEN)
    document.set_title(article.title)
    document.add_font("DejaVu", fname=font)
    document.add_page()
    for kind, text in article.lines():
        document.set_font("DejaVu", size={"title": 18, "heading": 14, "text": 10}[kind])
        document.multi_cell(0, 6, text, align="L", new_x="LMARGIN", new_y="NEXT")
        document.ln(3)
    return bytes(document.output())


def japanese_pdf(article: Article) -> bytes:
    lines: list[tuple[int, str]] = []
    for kind, text in article.lines():
        size = {"title": 18, "heading": 14, "text": 11}[kind]
        lines += [(size, line) for line in broken(text, LINE_LETTERS * 11 // size)]
        lines.append((11, ""))
    pages = [lines[at : at + PAGE_LINES] for at in range(0, len(lines), PAGE_LINES)]
    return cid_pdf([_content(page) for page in pages], article.title)


def broken(text: str, width: int) -> list[str]:
    """Lines of a Japanese text: no sign that ends something begins one, and no word is broken."""
    lines, line = [], ""
    for piece in re.findall(rf"[!-~]+[{NEVER_FIRST}]*|\s|.[{NEVER_FIRST}]*", text):
        if line and _ems(line + piece) > width:
            lines.append(line)
            line = ""
        line += piece
    return [*lines, line]


def _ems(text: str) -> float:
    """How wide a text is, in letters."""
    return sum(0.5 if letter.isascii() else 1 for letter in text)


def _content(lines: Sequence[tuple[int, str]]) -> str:
    """A page's drawing: each line a size and a text, from top to bottom."""
    shown, y = [], 790
    for size, text in lines:
        shown.append(f"/F1 {size} Tf 1 0 0 1 60 {y} Tm <{text.encode('utf-16-be').hex()}> Tj")
        y -= size + 7
    return "BT " + "\n".join(shown) + " ET"


def cid_pdf(contents: Sequence[str], title: str = "", encoding: str = "UniJIS-UTF16-H") -> bytes:
    """A PDF file of these pages, whose font F1 is Japanese, of the reader's machine, and not embedded."""
    font = "/BaseFont /HeiseiMin-W3"
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "",
        f"<< /Type /Font /Subtype /Type0 {font} /Encoding /{encoding} /DescendantFonts [4 0 R] >>",
        f"<< /Type /Font /Subtype /CIDFontType0 {font} /DW 1000 /W [1 95 500] {SYSTEM} >>",
        f"<< /Type /FontDescriptor /FontName /HeiseiMin-W3 {METRICS} >>",
        f"<< /Title <feff{title.encode('utf-16-be').hex()}> >>",
    ]
    bodies = [text.encode() for text in objects]
    kids = []
    for content in contents:
        packed = zlib.compress(content.encode())
        bodies.append(
            f"<< /Length {len(packed)} /Filter /FlateDecode >>\nstream\n".encode()
            + packed
            + b"\nendstream"
        )
        bodies.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] "
            b"/Resources << /Font << /F1 3 0 R >> >> /Contents %d 0 R >>" % len(bodies)
        )
        kids.append(f"{len(bodies)} 0 R")
    bodies[1] = f"<< /Type /Pages /Count {len(kids)} /Kids [{' '.join(kids)}] >>".encode()
    out, places = b"%PDF-1.5\n", []
    for number, body in enumerate(bodies, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    end = (
        f"xref\n0 {len(bodies) + 1}\n0000000000 65535 f \n{table}trailer\n"
        f"<< /Size {len(bodies) + 1} /Root 1 0 R /Info 6 0 R >>\nstartxref\n{len(out)}\n%%EOF\n"
    )
    return out + end.encode()


WRITERS: dict[str, Callable[[Article], bytes]] = {
    ".md": markdown,
    ".html": web,
    ".pdf": pdf,
    ".docx": word,
}
