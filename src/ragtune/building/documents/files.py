"""A file that is read as a whole: by which reader, and what it is if it is not what it is called."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ragtune.base.reading import open_plain
from ragtune.base.text import size_of
from ragtune.building.documents import docling, docx, html, pdf, pptx, text, xlsx
from ragtune.building.documents.document import Document, UnreadableError
from ragtune.building.documents.encoding import decode
from ragtune.building.documents.kinds import MAX_WHOLE, READ_WHOLE, require_kind
from ragtune.building.documents.parts import MAX_CHARACTERS
from ragtune.building.documents.source import Source, unopened
from ragtune.recipe.corpus import Documents


@dataclass(frozen=True, slots=True)
class Reading:
    """What a file gave."""

    documents: list[Document]
    encoding: str = ""
    """Of a text file."""


def read_file(path: Path, source: Source, documents: Documents) -> Reading:
    """Read a file of one of the kinds of READ_WHOLE.

    Args:
        path: where its bytes are.
        source: what it is called.
        documents: the user's settings.

    Raises:
        UnreadableError: it is damaged, empty, encrypted, too large, or another kind of file.
        UsageError: a library isn't installed.
    """
    name = source.name
    content = _content(path, name)
    kind = READ_WHOLE[source.suffix]
    require_kind(content, kind, name)
    if kind == "html":
        page, encoding = html.read(content, name, documents.encoding)
        return Reading([page], encoding)
    if kind in ("text", "markdown"):
        decoded, encoding = decode(content, name, documents.encoding)
        if len(decoded) > MAX_CHARACTERS:
            raise UnreadableError(
                f"{name} has more than {MAX_CHARACTERS:,} characters of text.",
                "Divide it into several files.",
            )
        written = text.read_text if kind == "text" else text.read_markdown
        return Reading([written(decoded, name)], encoding)
    reader = docling.read if documents.reader == "docling" else _OFFICE[kind]
    return Reading(reader(content, name))


_OFFICE = {"pdf": pdf.read, "docx": docx.read, "pptx": pptx.read, "xlsx": xlsx.read}


def _content(path: Path, name: str) -> bytes:
    try:
        with open_plain(path) as file:
            content = file.read(MAX_WHOLE + 1)
    except OSError as error:
        raise unopened(name, error) from None
    if len(content) > MAX_WHOLE:
        raise UnreadableError(
            f"{name} has more than {size_of(MAX_WHOLE)}.",
            "Divide it, or write its text as .jsonl: one {id, title, text} a line.",
        )
    return content
