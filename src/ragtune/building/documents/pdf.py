"""PDF files: the text of each page, in paragraphs."""

from __future__ import annotations

import ctypes
import dataclasses
import math
import re
from typing import Any

from ragtune.base.commands import install
from ragtune.base.text import one_or_many
from ragtune.building.documents.document import Document, UnreadableError
from ragtune.building.documents.layout import Line, first_word, over_pages, paragraphs
from ragtune.building.documents.parts import Parts, needed

MAX_PAGES = 10_000
_PASSWORD = 4
"""FPDF_ERR_PASSWORD of fpdfview.h."""
_PROGRAM = re.compile(
    r"^(Microsoft (Word|PowerPoint|Excel) - )|(\.(docx?|pptx?|xlsx?|tex|indd|dvi))$"
)
_MOVED = 3
"""Letters that may stand in the next Japanese line though there was room: some signs mustn't begin or end
a line."""


def read(content: bytes, name: str) -> list[Document]:
    """The document, with a mark for each page.

    Raises:
        UnreadableError: it is encrypted, damaged, has no text or too many pages.
        UsageError: pypdfium2 isn't installed.
    """
    pdfium = needed("pypdfium2", "pypdfium2", "PDF files")
    try:
        pdf = pdfium.PdfDocument(content)
    except pdfium.PdfiumError as error:
        raise _no_pdf(name, content, getattr(error, "err_code", None)) from None
    try:
        return [_read(pdf, name)]
    except pdfium.PdfiumError as error:
        raise UnreadableError(f"{name}: the PDF file is damaged ({error}).", _AGAIN) from None
    finally:
        pdf.close()


_AGAIN = "Open it in a PDF viewer and print or export it as PDF again."


def _no_pdf(name: str, content: bytes, code: int | None) -> UnreadableError:
    if code == _PASSWORD:
        return UnreadableError(
            f"{name} is encrypted: it opens only with a password.",
            "Save it without one: `qpdf --decrypt --password=… IN.pdf OUT.pdf`, or print it as PDF.",
        )
    if not content:
        return UnreadableError(f"{name} is empty: 0 bytes.", "Put the whole file in its place.")
    if b"%PDF-" not in content[:1024]:
        return UnreadableError(
            f"{name} is no PDF file, whatever its name says.", "Give it the ending of what it is."
        )
    return UnreadableError(f"{name}: the PDF file is damaged, or not whole.", _AGAIN)


def _read(pdf: Any, name: str) -> Document:  # noqa: ANN401 - pypdfium2 is imported where it is needed
    if len(pdf) > MAX_PAGES:
        raise UnreadableError(
            f"{name} has {len(pdf):,} pages; at most {MAX_PAGES:,} are read.",
            "Divide it into several files.",
        )
    parts, before = Parts(name), list[Line]()
    count = known = silent = 0
    for number in range(len(pdf)):
        page = pdf[number]
        lines = _lines(page)
        silent += not lines and _shows_picture(page)
        page.close()
        count, known = count + len(lines), known + sum(line.known for line in lines)
        parts.enter(page=number + 1)
        parts.add(paragraphs(lines), over_pages(before, lines))
        before = lines
    if not known or known < count / 2:
        raise _no_text(name, len(pdf), count)
    title = _PROGRAM.sub("", pdf.get_metadata_value("Title").strip())
    return dataclasses.replace(parts.document(title), pages=len(pdf), silent=silent)


def _no_text(name: str, pages: int, lines: int) -> UnreadableError:
    what = "its fonts don't say which letters they show" if lines else "they are empty, or scanned"
    return UnreadableError(
        f"{name}: no text can be read from its {one_or_many(pages, 'page')}; {what}.",
        "Recognise the letters first (`ocrmypdf IN.pdf OUT.pdf`), or set documents.reader: docling "
        f"({install('docling')}).",
    )


def _lines(page: Any) -> list[Line]:  # noqa: ANN401 - as above
    """The lines of a page, in the order in which the file has them."""
    textpage = page.get_textpage()
    found, start = [], 0
    for text in textpage.get_text_range().split("\r\n"):
        end = start + len(text.encode("utf-16-le")) // 2  # PDFium counts so
        if text.strip():
            found.append(_line(textpage, text, start, end - 1))
        start = end + len("\r\n")
    textpage.close()
    return found


def _shows_picture(page: Any) -> bool:  # noqa: ANN401 - as above
    raw = needed("pypdfium2.raw", "pypdfium2", "PDF files")
    return any(True for _ in page.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE]))


def _line(textpage: Any, text: str, start: int, end: int) -> Line:  # noqa: ANN401 - as above
    raw = needed("pypdfium2.raw", "pypdfium2", "PDF files")

    def letter(index: int) -> int:
        return max(int(raw.FPDFText_GetCharIndexFromTextIndex(textpage.raw, index)), 0)

    def stands(index: int) -> tuple[float, float]:
        x, y = ctypes.c_double(), ctypes.c_double()
        raw.FPDFText_GetCharOrigin(textpage.raw, letter(index), x, y)
        return x.value, y.value

    def right(index: int) -> float:
        return float(textpage.get_charbox(letter(index), loose=True)[2])

    matrix = raw.FS_MATRIX()
    raw.FPDFText_GetMatrix(textpage.raw, letter(start), matrix)
    size = raw.FPDFText_GetFontSize(textpage.raw, letter(start)) * math.hypot(matrix.c, matrix.d)
    (left, first), (x, last) = stands(start), stands(end)
    known = raw.FPDFText_HasUnicodeMapError(textpage.raw, letter(start)) != 1
    if abs(x - left) < size / 2 and first - last > size:
        return Line(text, -first, size - last, x, x, size, _MOVED * size, known, vertical=True)
    word = first_word(text)
    width = right(start + len(word) - 1) - left + size / 2 if word else _MOVED * size
    return Line(text, left, right(end), first, last, size, width, known)
