"""Word files: text as it stands, with headings, tables and footnotes."""

from __future__ import annotations

import io
from html.parser import HTMLParser

from ragtune.building.documents.document import Document
from ragtune.building.documents.office import WORD, opened
from ragtune.building.documents.parts import CELLS, LINE, PARAGRAPH, Headings, Parts, needed

_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_STYLES = "\n".join(
    (
        "p[style-name='Title'] => p.title:fresh",
        "p[style-name='表題'] => p.title:fresh",
        *(f"p[style-name='見出し {n}'] => h{n}:fresh" for n in range(1, 7)),
    )
)
"""Beside Word's own names, which are the same in every language: what other programs write."""
_NOTES = ("#footnote-", "#endnote-")


def read(content: bytes, name: str) -> list[Document]:
    """The document, with a mark for each heading.

    Raises:
        UnreadableError: as `office.opened`; or it has no text.
        UsageError: mammoth isn't installed.
    """
    mammoth = needed("mammoth", "mammoth", "Word files")
    with opened(content, name, WORD) as title:
        html = mammoth.convert_to_html(
            io.BytesIO(content), style_map=_STYLES, convert_image=lambda _: []
        ).value
        reader = _Html(Parts(name))
        reader.feed(html)
        reader.close()
        reader.finish()
    reader.parts.require_text("Word file")
    return [reader.parts.document(title or reader.title)]


class _Html(HTMLParser):
    """Puts a document together from mammoth's HTML, which has no attributes but those named here."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.parts = parts
        self.title = ""
        self._headings = Headings()
        self._text: list[str] = []
        self._rows: list[list[str]] = []
        """Of the tables that are open, each within a cell of the one before."""
        self._gap = PARAGRAPH
        self._hidden = self._is_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "a":
            # The number of a note, or the arrow back to it: no text of the document.
            self._hidden = (given.get("href") or "").startswith(_NOTES)
        elif tag == "br":
            self._text.append(LINE)
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("p", "ul", "ol", "table", *_HEADINGS):
            self.finish()
            self._is_title = given.get("class") == "title"
        elif tag == "li" and (given.get("id") or "").startswith(("footnote-", "endnote-")):
            self.parts.enter()

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self._hidden = False
        elif tag in ("td", "th"):
            self._rows[-1].append(" ".join("".join(self._text).split()))
            self._text = []
        elif tag == "tr":
            row = CELLS.join(cell for cell in self._rows.pop() if cell)
            if self._rows:
                self._text.append(row + LINE)
            else:
                self.parts.add(row, self._gap)
                self._gap = LINE
        elif tag in ("table", "ul", "ol"):
            self.finish()
            self._gap = LINE if self._rows else PARAGRAPH
        elif tag in ("p", "li", *_HEADINGS):
            self.finish(tag)

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._text.append(data)

    def finish(self, tag: str = "p") -> None:
        """Add what was read since the last paragraph; in a cell it only ends a line."""
        if self._rows:
            self._text.append(LINE)
            return
        text, self._text = "".join(self._text).strip(), []
        if not text:
            return
        if tag in _HEADINGS:
            self.title = self.title or text
            self.parts.enter(heading=self._headings.enter(int(tag[1]), text))
        elif self._is_title:
            self.title, self._is_title = text, False
        self.parts.add(text, self._gap)
        self._gap = LINE if tag == "li" else PARAGRAPH
