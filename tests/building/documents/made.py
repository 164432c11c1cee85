"""Documents that tests make on the spot, and what stands under each of their marks."""

from __future__ import annotations

import importlib
import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from ragtune.building.documents.document import Document, UnreadableError

SCRIPTS = Path(__file__).parents[3] / "scripts"
ENGLISH = (
    "The wars finally ended with the granting of the Edict of Nantes, which granted the Huguenots "
    "substantial religious, political and military autonomy. Their numbers peaked near an estimated "
    "two million by 1562, concentrated mainly in the southern and central parts of France."
)
JAPANESE = (
    "それらは第33回世界遺産委員会(2009年)で審査されたときは、「大陸をまたぐカミノ・レアル」という推薦名であった。"
    "決議は情報照会となり、サン・ルイス・ポトシの位置づけを再考すべきだとされた。𠮷野家でABCを食べる。"
)


def script(name: str) -> Any:
    """A module of scripts/."""
    sys.path.insert(0, str(SCRIPTS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(SCRIPTS))


def under(document: Document) -> list[tuple[int | None, str, str]]:
    """What stands under each mark: page, heading, text."""
    ends = [*(mark.start for mark in document.marks), len(document.text)][1:]
    assert [mark.start for mark in document.marks] == sorted(mark.start for mark in document.marks)
    return [
        (mark.page, mark.heading, document.text[mark.start : end].rstrip("\n"))
        for mark, end in zip(document.marks, ends, strict=True)
    ]


def refused(reader: Any, content: bytes, name: str) -> str:
    """What is said of a file that can't be read: the message, and below it what to do."""
    with pytest.raises(UnreadableError) as caught:
        reader.read(content, name)
    assert caught.value.message.startswith(name)
    assert caught.value.advice
    return str(caught.value)


def zipped(members: dict[str, bytes], changes: dict[str, bytes] | None = None) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**members, **(changes or {})}.items():
            archive.writestr(name, content)
    return out.getvalue()


def members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def saved(made: Any) -> bytes:
    """The bytes of what python-docx, python-pptx or openpyxl made."""
    out = io.BytesIO()
    made.save(out)
    return out.getvalue()
