"""What a reader puts a document together from: its text piece by piece, and where each part stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from pathlib import PurePosixPath
from types import ModuleType

from ragtune.base.commands import install
from ragtune.base.errors import UsageError
from ragtune.base.text import shortened
from ragtune.building.documents.document import Document, Mark, UnreadableError
from ragtune.building.documents.normalise import normalise

MAX_CHARACTERS = 50_000_000
"""Of one document. The whole of Shakespeare has five million."""
PARAGRAPH, LINE, CELLS = "\n\n", "\n", " | "
"""What stands between paragraphs, lines, and the cells of a row."""
_MAX_HEADING = 200
_UNSEEN = {0x0B: LINE, 0xAD: None, 0x200B: None, 0xFEFF: None}
"""A line break of PowerPoint; soft hyphens and blanks without width, which nobody types in a question."""


def needed(module: str, package: str, what: str) -> ModuleType:
    """A library of the extra `documents`.

    Raises:
        UsageError: it isn't installed.
    """
    try:
        return import_module(module)
    except ImportError:
        raise UsageError(
            f"Reading {what} needs {package}, which is not installed.", f"Run: {install(package)}"
        ) from None


def stem(name: str) -> str:
    """A file's name without folders and ending, for documents that have no title."""
    return PurePosixPath(name).stem


@dataclass
class Headings:
    """The headings that what comes next stands under."""

    open: list[tuple[int, str]] = field(default_factory=list)

    def enter(self, level: int, text: str) -> str:
        """The whole path, such as `Installation > On Linux`."""
        while self.open and self.open[-1][0] >= level:
            self.open.pop()
        self.open.append((level, shortened(" ".join(text.split()), _MAX_HEADING)))
        return " > ".join(text for _, text in self.open)


@dataclass
class Parts:
    """A document's text as it grows, with marks."""

    name: str
    """Document.file."""
    marks: list[Mark] = field(default_factory=list)
    length: int = 0
    _pieces: list[str] = field(default_factory=list)
    _next: Mark | None = None

    def enter(self, page: int | None = None, heading: str = "") -> None:
        """What is added from here on stands on this page, or under this heading."""
        self._next = Mark(0, page, normalise(heading))

    def add(self, text: str, gap: str = PARAGRAPH) -> None:
        """Add text, which begins after `gap`; blank text is left out.

        Raises:
            UnreadableError: there is more text than a document has.
        """
        text = normalise(text).translate(_UNSEEN).strip()
        if not text:
            return
        if self._pieces:
            self._append(gap)
        if self._next is not None:
            self.marks.append(Mark(self.length, self._next.page, self._next.heading))
            self._next = None
        self._append(text)

    def _append(self, text: str) -> None:
        self._pieces.append(text)
        self.length += len(text)
        if self.length > MAX_CHARACTERS:
            raise UnreadableError(
                f"{self.name} has more than {MAX_CHARACTERS:,} characters of text.",
                "Divide it into several files.",
            )

    def require_text(self, kind: str) -> None:
        """That there is any.

        Raises:
            UnreadableError: there is none.
        """
        if not self._pieces:
            raise UnreadableError(
                f"{self.name}: the {kind} holds no text.",
                "Leave it out; if it shows text, it does so in pictures: set documents.reader: docling "
                f"(it needs {install('docling')}).",
            )

    def document(self, title: str, key: str = "") -> Document:
        """The document; `key` tells it from others of the same file."""
        return Document(
            f"{self.name}#{key}" if key else self.name,
            self.name,
            normalise(" ".join(title.split())) or stem(self.name),
            "".join(self._pieces),
            tuple(self.marks),
        )
