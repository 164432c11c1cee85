"""Malformed office and PDF files, made the same way every time: they end in documents or in a message."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from types import ModuleType

import docx as python_docx
import pytest

from ragtune.building.documents import docx, pdf, pptx, xlsx
from ragtune.building.documents.document import Document, UnreadableError
from tests.building.documents.made import JAPANESE, members, saved, script, under, zipped
from tests.building.documents.test_pptx import deck
from tests.building.documents.test_xlsx import book

writers = script("writers")
PIECES = (
    b"99999999999", b"-1", b"\0", b"<", b">", b'"', b"0", b"1e999", b"/", b"&#x1F;", b"&x;", b"[", b"]",
)  # fmt: skip
EACH = 20


def word() -> bytes:
    made = python_docx.Document()
    made.add_heading("Title", 1)
    made.add_table(2, 2).cell(0, 0).text = "cell"
    made.add_paragraph("item", style="List Bullet")
    return saved(made)


def sheet() -> bytes:
    made = book([["a", "b"], [1, 2.5], ["x", True]])
    made.active["B2"].number_format = "#,##0.0;[Red](0)"
    return saved(made)


SEEDS = {
    pdf: lambda: writers.japanese_pdf(writers.Article("題", [("節", [JAPANESE * 3])], "ja")),
    docx: word,
    pptx: lambda: saved(deck()),
    xlsx: sheet,
}


def changed(content: bytes, rng: random.Random) -> bytes:
    found = bytearray(content)
    for _ in range(rng.choice((1, 2, 5, 20))):
        at = rng.randrange(len(found) + 1)
        how = rng.random()
        if how < 0.3:
            found[at : at + 1] = bytes((rng.randrange(256),))
        elif how < 0.5:
            del found[at : at + rng.randrange(1, 40)]
        elif how < 0.7:
            start = rng.randrange(len(found) + 1)
            found[at:at] = found[start : start + rng.randrange(1, 60)]
        else:
            found[at : at + 1] = rng.choice(PIECES)
    return bytes(found)


def malformed(reader: ModuleType, content: bytes, rng: random.Random) -> Iterator[bytes]:
    """Without end: bytes changed in a PDF file; of the others in one of the files within."""
    there = members(content) if reader is not pdf else {}
    inner = sorted(name for name in there if name.endswith((".xml", ".rels")))
    while True:
        if not inner or rng.random() < 0.1:
            yield changed(content, rng)
        else:
            name = rng.choice(inner)
            yield zipped(there, {name: changed(there[name], rng)})


def outcome(reader: ModuleType, content: bytes) -> list[Document] | UnreadableError:
    """Anything else is a bug."""
    try:
        return reader.read(content, "a.file")
    except UnreadableError as error:
        return error


@pytest.mark.parametrize("reader", SEEDS, ids=lambda reader: reader.__name__.rpartition(".")[2])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_malformed_files_end_in_documents_or_a_message(reader: ModuleType) -> None:
    inputs = islice(malformed(reader, SEEDS[reader](), random.Random(1)), EACH)
    refused = 0
    for found in (outcome(reader, content) for content in inputs):
        if isinstance(found, UnreadableError):
            refused += 1
            assert found.message.startswith("a.file")
            assert len(str(found)) < 1000
            str(found).encode()
        else:
            assert all(text for document in found for _, _, text in under(document))
            "".join(document.text for document in found).encode()
    assert 0 < refused < EACH
