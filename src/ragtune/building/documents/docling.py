"""Scans and hard layouts, read by docling: it recognises letters in pictures, columns and tables."""

from __future__ import annotations

import io
from functools import cache
from typing import TYPE_CHECKING

from ragtune.building.documents.document import Document, UnreadableError
from ragtune.building.documents.parts import CELLS, LINE, Headings, Parts, needed

if TYPE_CHECKING:
    from docling.document_converter import DocumentConverter

_WHAT = "documents with docling"


def read(content: bytes, name: str) -> list[Document]:
    """The document, with a mark for each page and heading.

    Raises:
        UnreadableError: docling can't read it, or finds no text.
        UsageError: docling isn't installed.
    """
    base = needed("docling.datamodel.base_models", "docling", _WHAT)
    stream = base.DocumentStream(name=name, stream=io.BytesIO(content))
    result = _converter().convert(stream, raises_on_error=False)
    if result.status not in (base.ConversionStatus.SUCCESS, base.ConversionStatus.PARTIAL_SUCCESS):
        reasons = "; ".join(error.error_message for error in result.errors) or "it doesn't say why"
        raise UnreadableError(
            f"{name}: docling can't read it ({reasons}).",
            "Leave it out, or read it with documents.reader: auto.",
        )
    parts, headings, title, first = Parts(name), Headings(), "", ""
    page: int | None = None
    heading = ""
    for item, _ in result.document.iterate_items():
        stood, page = (page, heading), item.prov[0].page_no if item.prov else page
        label = str(getattr(item.label, "value", item.label))
        if label == "title":
            title = title or item.text
        elif label == "section_header":
            heading = headings.enter(item.level, item.text)
            first = first or item.text
        if (page, heading) != stood:
            parts.enter(page, heading)
        parts.add(_text(item))
    parts.require_text("document")
    return [parts.document(title or first)]


@cache
def _converter() -> DocumentConverter:
    """It loads its models once."""
    return needed("docling.document_converter", "docling", _WHAT).DocumentConverter()


def _text(item: object) -> str:
    """What an item says: a table's rows, a paragraph's text, of a picture nothing."""
    grid = getattr(getattr(item, "data", None), "grid", None)
    if grid is not None:
        return LINE.join(CELLS.join(cell.text for cell in row) for row in grid)
    return getattr(item, "text", "")
