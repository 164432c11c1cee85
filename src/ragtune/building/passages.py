"""Documents cut into passages: by headings, then sentences, packed up to a size with an overlap."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import pairwise
from operator import attrgetter

from ragtune.base.text import shortened
from ragtune.building.borders import pieces
from ragtune.building.documents.document import Document, Mark
from ragtune.building.ruler import Characters, Ruler, Tokenizer
from ragtune.building.sentences import Span, sentence_spans
from ragtune.data.example import Passage, Place
from ragtune.recipe.corpus import Passages

_SHORT = 4
"""A last passage of less than one part in so many of the size shares with the one before it."""
_HEADING = 200
"""Characters of a heading that a title shows."""


class Cutter:
    """Cuts documents into passages.

    A passage never crosses a heading: what stands under another is about something else. It may cross
    pages, where sentences go on; its page is that on which it begins.

    Args:
        passages: how long, and counted in what.
        language: of the documents, such as ja; `und` where it isn't known.

    Raises:
        UsageError: the tokenizer that counts can't be loaded.
    """

    def __init__(self, passages: Passages, language: str) -> None:
        self._size = passages.longest
        self._overlap = passages.shared
        self._language = language
        self._tokenizer = (
            Tokenizer(passages.tokenizer)
            if passages.unit == "tokens" and passages.tokenizer is not None
            else None
        )

    def cut(self, document: Document) -> list[Passage]:
        """The passages of a document, in order; none if it holds nothing but white space.

        Raises:
            UsageError: the extra `documents` is not installed.
        """
        ruler: Ruler = self._tokenizer.ruler(document.text) if self._tokenizer else Characters()
        spans = [
            span
            for section in sections(document)
            for span in self._packed(document.text, section, ruler)
        ]
        return [
            _passage(document, span, f"{document.id}#{number}" if len(spans) > 1 else document.id)
            for number, span in enumerate(spans, 1)
        ]

    def _packed(self, text: str, section: Span, ruler: Ruler) -> Iterator[Span]:
        """Whole sentences of a section, as many as fit."""
        parts = [
            part
            for sentence in sentence_spans(text, *section, self._language)
            for part in pieces(text, sentence, ruler, self._size, self._overlap or self._size)
        ]
        starts, ends = [start for start, _ in parts], [end for _, end in parts]
        first = behind = 0
        while behind < len(parts):
            fits = bisect_right(ends, ruler.reach(starts[first], self._size), first)
            fits = max(fits, behind + 1)
            behind = self._before_tail(starts, ends, (first, behind + 1, fits), ruler)
            yield starts[first], ends[behind - 1]
            if behind < len(parts):
                # What is repeated leaves room for the next sentence, or for all that is left of the section.
                last = ends[behind] if behind == fits else ends[-1]
                earliest = ruler.back(ends[behind - 1], self._overlap)
                earliest = max(earliest, ruler.back(last, self._size))
                first = bisect_left(starts, earliest, first + 1, behind)

    def _before_tail(
        self, starts: list[int], ends: list[int], passage: tuple[int, int, int], ruler: Ruler
    ) -> int:
        """Where a passage ends: earlier than it might, if very little would be left for the last one.

        Args:
            starts: of the section's sentences.
            ends: of the same.
            passage: its first sentence, and the least and the most for the one behind its last.
            ruler: of the text.
        """
        first, least, most = passage
        if most == len(ends) or ruler.reach(starts[most], self._size // _SHORT) < ends[-1]:
            return most
        middle = bisect_left(starts, (starts[first] + ends[-1]) // 2, least, most)
        fitting = bisect_left(starts, ruler.back(ends[-1], self._size), least, most)
        return max(middle, fitting)


def sections(document: Document) -> list[Span]:
    """The parts of a document between its headings."""
    borders = [0]
    for before, mark in pairwise((Mark(0), *document.marks)):
        # On the same page there is no other reason for a mark.
        if mark.heading != before.heading or (mark.page == before.page and mark.heading):
            borders.append(mark.start)
    spans = pairwise([*borders, len(document.text)])
    return [span for span in spans if not _is_heading(document, span)]


def _is_heading(document: Document, span: Span) -> bool:
    """Whether a part is only a heading, which the one below it has in its own."""
    start, end = span
    here, below = _mark(document, start).heading, _mark(document, end).heading
    return below.startswith(f"{here} > ") and here.rpartition(" > ")[2] == (
        document.text[start:end].strip("#=-* \t\r\n")
    )


def _mark(document: Document, at: int) -> Mark:
    """The page and heading that a place of a document stands under."""
    behind = bisect_right(document.marks, at, key=attrgetter("start"))
    return document.marks[behind - 1] if behind else Mark(0)


def _passage(document: Document, span: Span, passage_id: str) -> Passage:
    mark = _mark(document, span[0])
    place = Place(document.file, *span, mark.page, mark.heading)
    return Passage(
        document.text[slice(*span)], titled(document.title, mark.heading), passage_id, place
    )


def titled(title: str, heading: str) -> str:
    """A passage's title: the document's, and the heading, which says what the text itself may not repeat.

    Both are indexed, and shown to the model that reads: "it is screwed on" then has a subject.
    """
    if f"{heading} > ".startswith(f"{title} > "):
        heading = heading[len(title) + 3 :]
    return " — ".join(filter(None, (title, shortened(heading, _HEADING))))
