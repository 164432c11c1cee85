"""Putting a document together: marks, headings, and the libraries that readers need."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragtune.base.errors import UsageError
from ragtune.building.documents import docx, pdf, pptx, xlsx
from ragtune.building.documents.document import UnreadableError
from ragtune.building.documents.parts import Headings, Parts
from tests.building.documents.made import under

TEXT = st.text("あ⽬a \n\r", max_size=8)


@given(st.lists(st.tuples(st.integers(1, 3), TEXT)))
def test_each_mark_begins_what_was_added_under_it(added: list[tuple[int, str]]) -> None:
    parts = Parts("a.pdf")
    for number, (_, text) in enumerate(added, 1):
        parts.enter(page=number)
        parts.add(text)
    document = parts.document("")
    said = [
        (n, "", " ".join(text.replace("⽬", "目").split()))
        for n, (_, text) in enumerate(added, 1)
        if text.strip()
    ]
    assert [
        (page, heading, " ".join(text.split())) for page, heading, text in under(document)
    ] == said


def test_headings_stand_under_those_above() -> None:
    headings = Headings()
    entered = [headings.enter(level, f"h{level}") for level in (1, 2, 3, 2, 1, 3)]
    assert entered == ["h1", "h1 > h2", "h1 > h2 > h3", "h1 > h2", "h1", "h1 > h3"]


@pytest.mark.parametrize(
    ("reader", "module", "package", "what"),
    [
        (pdf, "pypdfium2", "pypdfium2", "PDF files"),
        (docx, "mammoth", "mammoth", "Word files"),
        (pptx, "pptx", "python-pptx", "PowerPoint files"),
        (xlsx, "openpyxl", "openpyxl", "Excel files"),
    ],
)
def test_a_library_that_is_not_there(
    reader: object, module: str, package: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError) as caught:
        reader.read(b"PK", "a.file")
    assert not isinstance(caught.value, UnreadableError)
    assert str(caught.value) == (
        f"Reading {what} needs {package}, which is not installed.\nRun: pip install {package}"
    )
