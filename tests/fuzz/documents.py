"""The readers of documents, and malformed files for them, made the same way every time."""

from __future__ import annotations

import gzip
import io
import itertools
import tarfile
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from ragtune.base.errors import RagtuneError
from ragtune.building.documents.find import find_files
from ragtune.building.documents.read import read_source
from ragtune.recipe.corpus import Documents
from tests.fuzz.inputs import FAILED_DOCUMENTS, TEXTS, Input, failed
from tests.fuzz.readers import DOCUMENTS, NoPlaceError

PLAIN = ("doc.txt", "doc.md", "doc.html", "doc.csv", "doc.jsonl")
OFFICE = {
    "doc.docx": ("word/document.xml", "<w:document xmlns:w='w'><w:body><w:p><w:r><w:t>x</w:t></w:r></w:p></w:body></w:document>"),
    "doc.pptx": ("ppt/presentation.xml", "<p:presentation xmlns:p='p'/>"),
    "doc.xlsx": ("xl/workbook.xml", "<workbook xmlns='x'><sheets/></workbook>"),
}  # fmt: skip

MARKDOWN = "---\ntitle: T\n---\n# A\n\ntext\n\n```\n# code\n```\n\nB\n---\n\n- item\n"
HTML = "<html><head><meta charset=utf-8><title>T</title></head><body><h1>A</h1><p>x<b>y</b><ul><li>1</ul><table><tr><td>2</table></body></html>"
TABLE = 'id;text;title\n1;"a ""b""\nc";A\n2;d;\n'
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


class DocumentReader:
    """Reads file after file in this process, as the process of its own does."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.path = folder / DOCUMENTS[kind]

    def __call__(self, content: bytes) -> str | None:
        """None if the content could be read, else the first message.

        Raises:
            NoPlaceError: the message names no place; AssertionError: a mark that stands nowhere; and
                whatever else a reader raises, a bug.
        """
        self.path.write_bytes(content)
        said: list[str] = []
        try:
            documents = Documents(files=[str(self.path)])
            for source in find_files(documents):
                try:
                    for document in read_source(source, documents):
                        starts = [mark.start for mark in document.marks]
                        assert starts == sorted(starts)
                        assert document.text.strip()
                        assert all(0 <= start <= len(document.text) for start in starts)
                        f"{document.id}{document.title}{document.text}{document.marks}".encode()
                except RagtuneError as error:
                    said.append(self._placed(error))
        except RagtuneError as error:
            said.append(self._placed(error))
        return said[0] if said else None

    def _placed(self, error: RagtuneError) -> str:
        if self.path.name not in str(error) or len(str(error)) > 20_000:
            raise NoPlaceError(str(error)[:500]) from error
        str(error).encode()
        return str(error)


@cache
def corpus() -> tuple[Input, ...]:
    """All of them."""
    return (*_texts(), *_packed(), *failed(FAILED_DOCUMENTS))


def _texts() -> Iterator[Input]:
    for kind in PLAIN:
        for name, content in TEXTS.items():
            if len(content) < 200_000:
                yield Input(kind, name, content)
    for kind, text in (("doc.md", MARKDOWN), ("doc.html", HTML), ("doc.csv", TABLE)):
        yield from _changed(kind, "", text.encode(), 5)
        for encoding in ("cp932", "euc_jp", "utf-16", "utf-32", "utf-7", "cp1252"):
            yield Input(
                kind,
                encoding,
                text.replace("text", "本文" if "p" not in encoding[:2] else "texte").encode(
                    encoding, "replace"
                ),
            )
    yield from _changed("doc.pdf", "", PDF, 9)
    for kind in (
        "doc.pdf",
        "doc.docx",
        "doc.pptx",
        "doc.xlsx",
        "doc.zip",
        "doc.tar.gz",
        "doc.tsv.gz",
    ):
        for name, content in itertools.islice(TEXTS.items(), 0, None, 4):
            yield Input(kind, name, content[:100_000])


def _packed() -> Iterator[Input]:
    yield from _changed(
        "doc.tsv.gz", "", gzip.compress(TABLE.replace(";", "\t").encode(), mtime=0), 4
    )
    for kind, (part, text) in OFFICE.items():
        whole = zipped({part: text.encode()})
        yield Input(kind, "a part alone", whole)
        yield from _changed(kind, "", whole, 11)
        for name, content in itertools.islice(TEXTS.items(), 0, None, 6):
            yield Input(kind, f"part: {name}", zipped({part: content[:100_000]}))
    members = {
        "a.md": MARKDOWN.encode(),
        "b/c.txt": b"text",
        "t.csv": TABLE.encode(),
        "../x.txt": b"x",
    }
    yield from _changed("doc.zip", "", zipped(members), 7)
    yield from _changed("doc.tar.gz", "packed ", tarred(members), 7)
    for number, raw in enumerate(_broken(gzip.decompress(tarred(members)), 97)):
        yield Input("doc.tar.gz", f"header {number}", gzip.compress(raw, mtime=0))


def _changed(kind: str, name: str, whole: bytes, step: int) -> Iterator[Input]:
    yield Input(kind, f"{name}whole", whole)
    for number, content in enumerate(_broken(whole, step)):
        yield Input(kind, f"{name}broken {number}", content)


def _broken(whole: bytes, step: int) -> Iterator[bytes]:
    """The content cut off, and with one byte changed, here and there."""
    for place in range(0, len(whole), step):
        changed = bytearray(whole)
        changed[place] ^= 0xFF
        yield bytes(changed)
        if place % 2:
            yield whole[:place]


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return out.getvalue()


def tarred(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(out.getvalue(), mtime=0)
