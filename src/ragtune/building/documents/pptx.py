"""PowerPoint files: the text of each slide, its tables and its notes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ragtune.building.documents.document import Document
from ragtune.building.documents.office import POWERPOINT, opened
from ragtune.building.documents.parts import CELLS, LINE, Parts, needed

if TYPE_CHECKING:
    from pptx.shapes.base import BaseShape
    from pptx.slide import Slide
    from pptx.table import _CellCollection


def read(content: bytes, name: str) -> list[Document]:
    """The document, with a mark for each slide: its number, and its title as the heading.

    Raises:
        UnreadableError: as `office.opened`; or it has no text.
        UsageError: python-pptx isn't installed.
    """
    pptx = needed("pptx", "python-pptx", "PowerPoint files")
    parts, first = Parts(name), ""
    with opened(content, name, POWERPOINT) as title:
        for number, slide in enumerate(pptx.Presentation(io.BytesIO(content)).slides, 1):
            heading = _title(slide)
            first = first or heading
            parts.enter(page=number, heading=heading)
            parts.add(heading)
            for text in _texts(slide):
                parts.add(text)
    parts.require_text("PowerPoint file")
    return [parts.document(title or first)]


def _title(slide: Slide) -> str:
    shape = slide.shapes.title
    return "" if shape is None else " ".join(shape.text_frame.text.split())


def _texts(slide: Slide) -> Iterator[str]:
    """What stands on a slide beside its title, and in its notes."""
    title = slide.shapes.title
    for shape in slide.shapes:
        if title is None or shape.shape_id != title.shape_id:
            yield from _of_shape(shape)
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        yield slide.notes_slide.notes_text_frame.text


def _of_shape(shape: BaseShape) -> Iterator[str]:
    from pptx.shapes.autoshape import Shape  # noqa: PLC0415 - of an extra
    from pptx.shapes.graphfrm import GraphicFrame  # noqa: PLC0415 - of an extra
    from pptx.shapes.group import GroupShape  # noqa: PLC0415 - of an extra

    if isinstance(shape, GroupShape):
        for inner in shape.shapes:
            yield from _of_shape(inner)
    elif isinstance(shape, GraphicFrame) and shape.has_table:
        yield LINE.join(_row(row.cells) for row in shape.table.rows)
    elif isinstance(shape, Shape):
        yield shape.text_frame.text


def _row(cells: _CellCollection) -> str:
    texts = (" ".join(cell.text.split()) for cell in cells)
    return CELLS.join(filter(None, texts))
