"""A document as it was read: its text, and which page or heading each part of it stands under."""

from __future__ import annotations

from dataclasses import dataclass

from ragtune.base.errors import UsageError
from ragtune.base.text import shortened


class UnreadableError(UsageError):
    """One file can't be read: it is named with its reason and counted, and the others are read."""


class UnreadYetError(UnreadableError):
    """What may be otherwise the next time, though the file is the same: each build tries it again."""


class ClashError(UnreadYetError):
    """A document has the id of one of another source.

    Args:
        name: the id.
        source: that has it now.
        other: that has it already.
    """

    def __init__(self, name: str, source: str, other: str) -> None:
        super().__init__(
            f"Two documents are called {shortened(name)!r}: one in {other}, one in {source}.",
            "An id names one document of a corpus: give one of the two another.",
        )
        self.other = other


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a part of a document begins: a page, or what stands under a heading."""

    start: int
    """Of its first character in the document's text."""
    page: int | None = None
    """From 1; of a presentation the slide, of a table the row."""
    heading: str = ""
    """With those above it: `Installation > On Linux`."""


@dataclass(frozen=True, slots=True)
class Document:
    """A text with a name."""

    id: str
    """Unique in a corpus, and the same whenever it is read again: the file's name below what the user
    named, with `#` and a number or the record's own id behind it where a file holds several."""
    file: str
    """Where it stands, as a person would say it: `manuals/pump.pdf`, `all.zip/pump.pdf`."""
    title: str
    text: str
    marks: tuple[Mark, ...] = ()
    """In order; what stands before the first has neither page nor heading."""
    pages: int = 0
    """Of a PDF file."""
    silent: int = 0
    """Of these, those that show pictures and hold no text: scans, perhaps."""
