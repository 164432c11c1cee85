"""HTML pages: their main text without menus, in paragraphs, under its headings."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, field
from typing import Any

from ragtune.building.documents.document import Document, UnreadableError
from ragtune.building.documents.encoding import decode
from ragtune.building.documents.parts import LINE, PARAGRAPH, Headings, Parts, needed

_CHARSET = re.compile(rb"""<meta[^>]{0,300}?charset\s*=\s*["']?\s*([\w:.-]{1,40})""", re.IGNORECASE)
_HEAD = 4096
"""Bytes in which a page says its encoding (HTML asks for the first 1,024)."""
_OTHER_NAMES = {
    "shift_jis": "cp932",
    "x-sjis": "cp932",
    "iso-8859-1": "cp1252",
    "gb2312": "gb18030",
}
"""What browsers, too, understand by some names."""
_BREAK = re.compile("(?<=[\u2e80-\u9fff\uff01-\uff60])[ \t]*\n\\s*(?=[\u2e80-\u9fff\uff01-\uff60])")
"""A line that ends in the middle of Japanese: a browser shows a blank there, which no author meant."""
_PERMALINK = re.compile(r"\s*[¶§#🔗]\s*$")
"""What documentation puts behind a heading, to link to it."""
_MENUS = (
    "script", "style", "noscript", "template", "nav", "footer", "aside", "head", "button", "select", "svg",
    "textarea", "rt", "rp",
)  # fmt: skip
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_NAMES = {
    "li": "item", "dt": "item", "dd": "item", "tr": "row", "td": "cell", "th": "cell", "br": "lb",
    "pre": "code", "ul": "list", "ol": "list", "dl": "list",
    "blockquote": "p", "code": "inline", "quote": "inline",
    **dict.fromkeys(
        ("div", "section", "article", "main", "header", "details", "summary", "figure", "figcaption", "form",
         "fieldset", "address", "caption", "center", "hr", "body"),
        "p",
    ),
}  # fmt: skip
"""What trafilatura calls elements; what isn't named stands in a line."""
_ENOUGH, _HALF = 0.7, 0.5
"""Of a page's text without menus: what its main part should have, else an article is made of the page; and
what that should give, else all of it is taken."""
_APART = ("p", "head", "list", "table", "quote", "code")
_LINES = ("item", "row", "lb")
_AS_WRITTEN = ("quote", "code")
"""Of what trafilatura makes of <pre>."""


def read(content: bytes, name: str, encoding: str | None = None) -> tuple[Document, str]:
    """The page as a document, and the encoding that it was in.

    Args:
        content: of the file.
        name: Document.file.
        encoding: that the user named; what a page says of itself is believed more, where it is right.

    Raises:
        UnreadableError: its encoding can't be told, or it has no text.
        UsageError: trafilatura isn't installed.
    """
    text, found = decode(content, name, _declared(content) or encoding)
    needed("trafilatura", "trafilatura", "HTML files")
    page = needed("trafilatura.utils", "trafilatura", "HTML files").load_html(text)
    parts = Parts(name)
    title = ""
    if page is not None:
        _join_lines(page)
        _plain_headings(page)
        title = " ".join("".join(page.xpath("(.//title)[1]//text()")).split())
        main = _main(page)
        if main is not None:
            _Walk(parts).through(main)
    document = parts.document(title)
    if not document.text:
        raise UnreadableError(
            f"{name}: no text is found in this page.",
            "If a browser shows some, a script makes it: print the page as PDF, and give that.",
        )
    return document, found


def _declared(content: bytes) -> str | None:
    """The encoding that a page names, if its bytes fit: many name one and are in another."""
    found = _CHARSET.search(content[:_HEAD])
    name = found[1].decode("ascii", "ignore").lower() if found else ""
    name = _OTHER_NAMES.get(name, name)
    if name and not content.isascii() and _is_utf8(content):
        return "utf-8"  # by chance nothing else is; and whatever a page says, cp1252 fits nearly always
    try:
        content.decode(name)
    except (LookupError, ValueError):
        return None
    return name


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _join_lines(page: Any) -> None:  # noqa: ANN401 - lxml comes with trafilatura, an extra
    for node in page.iter():
        if node.text and node.tag != "pre":
            node.text = _BREAK.sub("", node.text)
        if node.tail:
            node.tail = _BREAK.sub("", node.tail)


def _plain_headings(page: Any) -> None:  # noqa: ANN401 - as above
    """Leave nothing but text in headings: those that are links, or code, trafilatura takes for menus."""
    for heading in page.xpath("|".join(f".//{tag}" for tag in _HEADINGS)):
        text = " ".join("".join(heading.itertext()).split())
        for inner in list(heading):
            heading.remove(inner)
        heading.text = _PERMALINK.sub("", text)


def _main(page: Any) -> Any:  # noqa: ANN401 - as above
    """The part of a page that trafilatura takes for its main text; all but menus where that is too little."""
    whole = copy.deepcopy(page)
    for menu in whole.xpath("|".join(f".//{tag}" for tag in (*_MENUS, "comment()"))):
        menu.drop_tree()
    body = whole.find(".//body")
    body = whole if body is None else body
    letters = _letters(body)
    headed = body.xpath("boolean(.//h1|.//h2|.//h3|.//h4)")
    found = _extracted(page)
    enough = found is not None and _letters(found) >= _ENOUGH * letters
    if enough and (not headed or found.find(".//head") is not None):
        return found
    wider = _extracted(_as_article(copy.deepcopy(whole)))
    return wider if wider is not None and _letters(wider) >= _HALF * letters else _renamed(body)


def _as_article(page: Any) -> Any:  # noqa: ANN401 - as above
    """The page with all of its body in an article, where trafilatura looks first."""
    body = page.find(".//body")
    body = page if body is None else body
    article = body.makeelement("article")
    article.text, body.text = body.text, None
    article.extend(list(body))
    body.append(article)
    return page


def _renamed(body: Any) -> Any:  # noqa: ANN401 - as above
    """All of a page, in trafilatura's names for its elements."""
    for node in body.iter():
        if node.tag in _HEADINGS:
            node.set("rend", node.tag)
            node.tag = "head"
        elif node.tag in _NAMES:
            node.tag = _NAMES[node.tag]
    return body


def _extracted(page: Any) -> Any:  # noqa: ANN401 - as above
    trafilatura = needed("trafilatura", "trafilatura", "HTML files")
    config = copy.deepcopy(trafilatura.settings.DEFAULT_CONFIG)
    config.set("DEFAULT", "MIN_EXTRACTED_SIZE", "1")  # else a short page loses headings and tables
    found = trafilatura.bare_extraction(
        page, favor_recall=True, include_comments=False, fast=True, config=config
    )
    return None if found is None else found.body


def _letters(node: Any) -> int:  # noqa: ANN401 - as above
    return sum(len(word) for text in node.itertext() for word in text.split())


@dataclass
class _Walk:
    """A way through trafilatura's tree, which adds to a document what stands there."""

    parts: Parts
    headings: Headings = field(default_factory=Headings)
    buffer: str = ""
    gap: str = PARAGRAPH

    def through(self, body: Any) -> None:  # noqa: ANN401 - as above
        inside: list[str] = []
        steps = needed("lxml.etree", "trafilatura", "HTML files").iterwalk(body, ("start", "end"))
        for step, node in steps:
            if step == "start":
                inside.append(node.tag)
                self.enter(node, inside)
                self.say(node.text, inside)
            else:
                inside.pop()
                self.leave(node)
                self.say(node.tail, inside)
        self.flush()

    def enter(self, node: Any, inside: list[str]) -> None:  # noqa: ANN401 - as above
        if node.tag == "cell":
            self.buffer += " | " if self.buffer.strip() else ""
        elif node.tag == "p" and inside[-2:-1] in (["item"], ["cell"]):
            pass  # its only paragraph, mostly: on the line that it begins
        elif node.tag in _APART or node.tag in _LINES:
            self.flush()
            self.gap = LINE if node.tag in _LINES and self.gap == LINE else PARAGRAPH
            if node.tag == "lb":
                self.gap = LINE

    def leave(self, node: Any) -> None:  # noqa: ANN401 - as above
        if node.tag == "head":
            level = (
                int((node.get("rend") or "h2")[-1]) if node.get("rend", "h2")[-1:].isdigit() else 2
            )
            heading = " ".join(self.buffer.split())
            if heading:
                self.parts.enter(heading=self.headings.enter(level, heading))
        if node.tag in _APART or node.tag in _LINES:
            self.flush()
            self.gap = LINE if node.tag in _LINES else PARAGRAPH

    def say(self, text: str | None, inside: list[str]) -> None:
        if not text:
            return
        if not any(tag in _AS_WRITTEN for tag in inside[-1:]):
            text = re.sub(r"\s+", " ", text)
        self.buffer += text

    def flush(self) -> None:
        self.parts.add(self.buffer, self.gap)
        self.buffer = ""
