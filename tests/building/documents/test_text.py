"""Text and Markdown stay as they are written; headings are marks at the places where they stand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragtune.building.documents.document import Document, UnreadableError
from ragtune.building.documents.text import read_markdown, read_text


def marks(document: Document) -> list[tuple[str, str]]:
    """Each mark's line, and its heading."""
    return [(document.text[m.start :].partition("\n")[0], m.heading) for m in document.marks]


def test_a_text() -> None:
    document = read_text("# 見出しではない\r\n富士山は⽇本の山。\r\n", "folder/山.txt")
    assert document == Document(
        "folder/山.txt", "folder/山.txt", "山", "# 見出しではない\n富士山は日本の山。\n"
    )


MARKDOWN = """\
---
title: "The Manual: 手引き"
tags: [a, b]
---
Before.

# Pump

Text with _under_ and **bold** \\_ignored\\_.

## Install ##

```bash
# no heading
## nor this
```

~~~
# nor here
```
# nor here
~~~

### On Linux

    # code by its indent

Setext *one*
===

two
lines
---

- item
---
#No heading, no blank
#######  Seven
#
 ## 手順
"""


def test_markdown() -> None:
    document = read_markdown(MARKDOWN, "pump.md")
    assert document.title == "The Manual: 手引き"
    assert document.text == MARKDOWN.partition("---\n")[2].partition("---\n")[2]
    assert marks(document) == [
        ("# Pump", "Pump"),
        ("## Install ##", "Pump > Install"),
        ("### On Linux", "Pump > Install > On Linux"),
        ("Setext *one*", "Setext *one*"),
        ("two", "Setext *one* > two lines"),
        (" ## 手順", "Setext *one* > 手順"),
    ]


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("## B\n# A\n# C\n", "A"),
        ("text", "m"),
        ("+++\ntitle = 'T'\n+++\n# A", "T"),
        ("---\n---\n# A", "A"),
        ("---\ntext between lines\n---\n", "text between lines"),  # no front matter: no key
        ("---\ntitle: x\n", "m"),  # without an end
    ],
)
def test_titles(text: str, title: str) -> None:
    assert read_markdown(text, "m.md").title == title


@pytest.mark.parametrize("text", ["", " \n\t\u3000", "---\ntitle: x\n---\n"])
def test_nothing_is_refused(text: str) -> None:
    with pytest.raises(UnreadableError, match=r"a\.md is empty"):
        read_markdown(text, "a.md")


LINES = st.sampled_from(
    [
        "# A",
        "## B ##",
        "###",
        "text",
        "=",
        "---",
        "- item",
        "```",
        "~~~~",
        "    # code",
        "",
        "日本",
        "> q",
        "#x",
        "\t",
    ]
)


@given(st.lists(LINES | st.text(max_size=12), max_size=30))
def test_marks_stand_where_headings_do(lines: list[str]) -> None:
    text = "x\n" + "\n".join(lines)
    document = read_markdown(text, "a.md")
    starts = [m.start for m in document.marks]
    assert starts == sorted(set(starts))
    for mark in document.marks:
        assert mark.start == 0 or document.text[mark.start - 1] == "\n"
        last = mark.heading.rpartition(" > ")[2]
        assert last.partition(" ")[0] in document.text[mark.start :]


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "line",
    ["# " + " " * 200_000 + "x", "# " + "a #" * 70_000, "#" * 200_000, "---\n" + "a" * 90_000 + "\n---",
     "---\ntitle: a" + " " * 90_000 + "x\n---\nx", "- " * 100_000 + "x", "`" * 200_000 + "x`", " " * 200_000 + "x",
     "---\n" * 50_000, "a\n" * 100_000 + "---"],
)  # fmt: skip
def test_no_line_takes_long(line: str) -> None:
    """What a regular expression could go over again and again."""
    assert read_markdown(line, "a.md").text
