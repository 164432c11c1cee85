"""Pages of HTML: the main text, as a person reads it, under its headings; never escaped."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragtune.building.documents.document import Document, UnreadableError
from ragtune.building.documents.html import read


def page(body: str, head: str = "<title>The title</title>") -> Document:
    return read(
        f"<!DOCTYPE html><html><head>{head}</head><body>{body}</body></html>".encode(), "a.html"
    )[0]


def marks(document: Document) -> list[tuple[str, str]]:
    return [(document.text[m.start :].partition("\n")[0], m.heading) for m in document.marks]


MANUAL = """
<nav><a href="/">Home</a><a href="/b">Products</a></nav>
{begin}<h1>ポンプ</h1><p>最初の段落。</p>
<h2>設置</h2><p>壁に<b>固定</b>する。_山_ と *星*、&lt;b&gt; &amp; 1.0。</p>
<ul><li>一つ目</li><li><p>二つ目</p></li></ul>
<h3>Linux</h3><pre>a  b
  c</pre>
<table><tr><th>名</th><th>高さ</th></tr><tr><td>富士山</td><td>3776</td></tr></table>
<h2>保証</h2>裸のテキスト<br>次の行{end}
<footer>© 2024 Example</footer><script>var hidden = "script"</script>
"""


@pytest.mark.parametrize(
    ("begin", "end"),
    [("<main>", "</main>"), ("<article>", "</article>"), ("<div>", "</div>"), ("", ""),
     ("<div class='content'>", "</div>"), ("<table><tr><td>", "</td></tr></table>")],
)  # fmt: skip
def test_headings_paragraphs_lists_and_tables(begin: str, end: str) -> None:
    document = page(MANUAL.format(begin=begin, end=end))
    assert document.title == "The title"
    assert marks(document) == [
        ("ポンプ", "ポンプ"),
        ("設置", "ポンプ > 設置"),
        ("Linux", "ポンプ > 設置 > Linux"),
        ("保証", "ポンプ > 保証"),
    ]
    for text in ("最初の段落。", "壁に固定する。_山_ と *星*、<b> & 1.0。", "一つ目\n二つ目", "名 | 高さ\n富士山 | 3776",
                 "a  b\n  c", "裸のテキスト", "次の行"):  # fmt: skip
        assert text in document.text
    for text in ("Home", "Example", "hidden"):
        assert text not in document.text


def test_a_line_broken_within_japanese_has_no_blank() -> None:
    assert (
        page("<p>富士山は\n    日本の山。\nIt is\nhigh.</p>").text
        == "富士山は日本の山。 It is high."
    )


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("<p>短い</p>", "短い"),
        ("ただの文", "ただの文"),
        ("<t2</table><ul><li>1</ul>\0b>x", None),  # of its element the name is none: found by fuzzing
        ("<p>H<sub>2</sub>O、<ruby>漢字<rt>かんじ</rt></ruby></p>", "H2O、漢字"),
        ("<details><summary>質問</summary><p>答え</p></details>", "質問\n\n答え"),
        ("<!-- not this -->" + "".join(f"<div><a href='{i}'>見出し{i}</a><!-- nor this --></div>" for i in range(9)),
         " ".join(f"見出し{i}" for i in range(9))),  # all links, which look like a menu
        ("<p>同じ文が二度ある。同じ文が二度ある。</p><p>同じ文が二度ある。同じ文が二度ある。</p>" * 2,
         "\n\n".join(["同じ文が二度ある。同じ文が二度ある。"] * 4)),
        ("<p>⻑い⽬ &#xd800; &#0; x</p>", "長い目 \ufffd \ufffd x"),
    ],
)  # fmt: skip
def test_small_pages(body: str, text: str | None) -> None:
    found = page(body).text
    assert text is None or found == text


def test_headings_that_are_links_or_code() -> None:
    """As documentation has them."""
    document = page(
        "<main><h1 id=a><a class=header href=#a><code>lints</code></a></h1><p>One.</p>"
        "<h2>Install<a class=headerlink href=#b>¶</a></h2><p>Two.</p><h3><a href=#c><em>C</em></a></h3><p>x</p></main>"
    )
    assert marks(document) == [
        ("lints", "lints"),
        ("Install", "lints > Install"),
        ("C", "lints > Install > C"),
    ]


@pytest.mark.parametrize(
    ("encoding", "charset"),
    [("cp932", "Shift_JIS"), ("euc_jp", "euc-jp"), ("cp932", "utf-8"), ("utf-8", "Shift_JIS"), ("utf-16", "utf-8"),
     ("cp932", "nonsense"), ("utf-8", ""), ("utf-8", "iso-8859-1")],
)  # fmt: skip
def test_the_encoding_is_what_fits_whatever_the_page_says(encoding: str, charset: str) -> None:
    text = "富士山は日本で一番高い山である。表示とソースは別の物だ。"
    html = f'<html><head><meta charset="{charset}"></head><body><p>{text}</p></body></html>'
    document, found = read(html.encode(encoding), "a.html")
    assert document.text == text
    assert found == encoding


@pytest.mark.parametrize("body", ["", "<script>x = 1</script>", "<img src=x>"])
def test_a_page_without_text_is_refused(body: str) -> None:
    with pytest.raises(UnreadableError, match=r"a\.html: no text is found") as raised:
        read(f"<html><body>{body}</body></html>".encode(), "a.html")
    assert "print the page as PDF" in raised.value.advice


TAGS = [
    "p",
    "h1",
    "h2",
    "div",
    "ul",
    "li",
    "table",
    "tr",
    "td",
    "pre",
    "b",
    "br",
    "article",
    "span",
    "blockquote",
]


@st.composite
def bodies(draw: st.DrawFn) -> str:
    found = ""
    for _ in range(draw(st.integers(1, 12))):
        tag = draw(st.sampled_from(TAGS))
        word = draw(st.sampled_from(["山", "hill", "日本の山", "a b", " ", ""]))
        found += draw(
            st.sampled_from([f"<{tag}>{word}</{tag}>", f"<{tag}>{word}", f"</{tag}>{word}"])
        )
    return found


@settings(max_examples=60, deadline=None)
@given(bodies())
def test_marks_stand_where_headings_do(body: str) -> None:
    try:
        document = page(body)
    except UnreadableError:
        return
    starts = [m.start for m in document.marks]
    assert starts == sorted(set(starts))
    for mark in document.marks:
        last = mark.heading.rpartition(" > ")[2]
        assert document.text[mark.start :].startswith(last)
        assert mark.start == 0 or document.text[mark.start - 1] == "\n"
