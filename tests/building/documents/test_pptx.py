"""PowerPoint files: slides, titles, tables, groups and notes."""

from __future__ import annotations

from typing import Any

from pptx import Presentation
from pptx.util import Inches

from ragtune.building.documents import pptx
from tests.building.documents.made import members, refused, saved, under, zipped


def deck() -> Any:
    made = Presentation()
    slide = made.slides.add_slide(made.slide_layouts[1])
    slide.shapes.title.text = "はじめに"
    slide.placeholders[1].text = "一つ目\n_二つ目_"
    slide.notes_slide.notes_text_frame.text = "Say hello."
    made.slides.add_slide(made.slide_layouts[6])
    slide = made.slides.add_slide(made.slide_layouts[5])
    slide.shapes.title.text = "Prices\vnet"
    table = slide.shapes.add_table(2, 2, 0, 0, Inches(2), Inches(1)).table
    for place, text in {(0, 0): "Pump", (0, 1): "¥1,200", (1, 0): "Tap\nsmall"}.items():
        table.cell(*place).text = text
    group = slide.shapes.add_group_shape()
    inner = group.shapes.add_group_shape()
    inner.shapes.add_textbox(0, 0, 9, 9).text_frame.text = "in a group"
    return made


def test_what_stands_on_each_slide() -> None:
    (document,) = pptx.read(saved(deck()), "talks/pump.pptx")
    assert under(document) == [
        (1, "はじめに", "はじめに\n\n一つ目\n_二つ目_\n\nSay hello."),
        (3, "Prices net", "Prices net\n\nPump | ¥1,200\nTap small\n\nin a group"),
    ]
    assert (document.id, document.title) == ("talks/pump.pptx", "はじめに")


def test_the_title_of_the_metadata() -> None:
    made = deck()
    made.core_properties.title = "PowerPoint Presentation"
    assert pptx.read(saved(made), "a.pptx")[0].title == "はじめに"
    made.core_properties.title = "ポンプ"
    assert pptx.read(saved(made), "a.pptx")[0].title == "ポンプ"


def test_files_that_cannot_be_read() -> None:
    made = Presentation()
    made.slides.add_slide(made.slide_layouts[6])
    assert "a.pptx: the PowerPoint file holds no text." in refused(pptx, saved(made), "a.pptx")
    assert "is no PowerPoint file, whatever its name says." in refused(pptx, b"text", "a.pptx")
    there = members(saved(deck()))
    for name in ("ppt/slides/slide1.xml", "ppt/presentation.xml"):
        said = refused(pptx, zipped(there, {name: b"<broken"}), "a.pptx")
        assert "a.pptx: the PowerPoint file is damaged (XMLSyntaxError" in said
    bomb = b'<!DOCTYPE a [<!ENTITY a "aaaa">]>' + there["ppt/slides/slide1.xml"]
    assert "defines a document type" in refused(
        pptx, zipped(there, {"ppt/slides/slide1.xml": bomb}), "a.pptx"
    )
