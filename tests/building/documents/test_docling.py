"""docling as a reader, by a stand-in for it: it weighs gigabytes.

The stand-in has what of docling's and docling-core's interface is used; its names are theirs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from ragtune.base.errors import UsageError
from ragtune.building.documents import docling
from ragtune.building.documents.document import UnreadableError
from tests.building.documents.made import under


def item(label: str, text: str, page: int | None = 1, **more: Any) -> SimpleNamespace:
    prov = [SimpleNamespace(page_no=page)] if page else []
    return SimpleNamespace(label=SimpleNamespace(value=label), text=text, prov=prov, **more)


TABLE = SimpleNamespace(
    label=SimpleNamespace(value="table"),
    prov=[SimpleNamespace(page_no=3)],
    data=SimpleNamespace(grid=[[SimpleNamespace(text="A"), SimpleNamespace(text="B")]]),
)
PICTURE = SimpleNamespace(label=SimpleNamespace(value="picture"), prov=[])


@dataclass
class StandIn:
    items: list[SimpleNamespace] = field(default_factory=list)
    status: str = "success"
    errors: list[SimpleNamespace] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    made: int = 0

    def convert(self, stream: SimpleNamespace, *, raises_on_error: bool) -> SimpleNamespace:
        assert not raises_on_error
        self.asked.append(f"{stream.name}: {stream.stream.read().decode()}")
        document = SimpleNamespace(iterate_items=lambda: ((one, 0) for one in self.items))
        return SimpleNamespace(status=self.status, errors=self.errors, document=document)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    found = StandIn()
    base, converter = ModuleType("base_models"), ModuleType("document_converter")
    base.DocumentStream = SimpleNamespace
    base.ConversionStatus = SimpleNamespace(SUCCESS="success", PARTIAL_SUCCESS="partial_success")

    def made() -> StandIn:
        found.made += 1
        return found

    converter.DocumentConverter = made
    for name, module in {
        "docling": ModuleType("docling"), "docling.datamodel": ModuleType("docling.datamodel"),
        "docling.datamodel.base_models": base, "docling.document_converter": converter,
    }.items():  # fmt: skip
        monkeypatch.setitem(sys.modules, name, module)
    docling._converter.cache_clear()
    yield found
    docling._converter.cache_clear()


def test_pages_and_headings(stand_in: StandIn) -> None:
    stand_in.items = [
        item("title", "ポンプの手引き"),
        item("text", "水を⼊れる。"),
        item("section_header", "Install", level=1),
        item("section_header", "On Linux", 2, level=2),
        item("list_item", "one", 2),
        TABLE,
        PICTURE,
    ]
    (document,) = docling.read(b"scan", "a/scan.pdf")
    assert stand_in.asked == ["a/scan.pdf: scan"]
    assert document.title == "ポンプの手引き"
    assert under(document) == [
        (1, "", "ポンプの手引き\n\n水を入れる。"),
        (1, "Install", "Install"),
        (2, "Install > On Linux", "On Linux\n\none"),
        (3, "Install > On Linux", "A | B"),
    ]
    docling.read(b"scan", "b.pdf")
    assert stand_in.made == 1


def test_what_it_cannot_read(stand_in: StandIn) -> None:
    with pytest.raises(UnreadableError, match=r"a\.pdf: the document holds no text"):
        docling.read(b"", "a.pdf")
    stand_in.status, stand_in.errors = "failure", [SimpleNamespace(error_message="no pages")]
    with pytest.raises(UnreadableError, match=r"a\.pdf: docling can't read it \(no pages\)"):
        docling.read(b"", "a.pdf")


def test_without_docling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "docling", None)
    docling._converter.cache_clear()
    with pytest.raises(UsageError) as caught:
        docling.read(b"", "a.pdf")
    assert not isinstance(caught.value, UnreadableError)
    assert str(caught.value) == (
        "Reading documents with docling needs docling, which is not installed.\nRun: pip install docling"
    )
