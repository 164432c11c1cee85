"""The Japanese pages say what the English ones say: the same headings, code, tables, links and figures, none left out.

    python -m tests.test_docs_ja

notes that the Japanese pages were read beside the English ones as these are now: run it when they say the same.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from tests import reference

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TWINS = {ROOT / "README.md": ROOT / "README.ja.md"} | {
    page: DOCS / "ja" / page.name for page in sorted(DOCS.glob("*.md"))
}
each_pair = pytest.mark.parametrize(
    ("english", "japanese"), TWINS.items(), ids=[page.stem for page in TWINS]
)

READ = DOCS / "ja/read.yaml"
"""Of each English page the sha256 of its text when the Japanese one was last brought in step with it."""
KANJI_OR_KANA = r"[ぁ-んァ-ヺー一-龥々]"
SMALL = 20
"""A Japanese page may have figures up to here where the English one has words: two cores, 2 コア."""


@dataclass
class Page:
    """What of a page is the same in every language."""

    headings: list[str] = field(default_factory=list)
    blocks: list[str] = field(default_factory=list)
    rows: list[tuple[int, list[str]]] = field(default_factory=list)
    """Of each row of a table: how many cells, and the code of the first one."""
    text: str = ""
    """Without code blocks."""

    @property
    def anchors(self) -> list[str]:
        heads = (re.sub(r"[^\w -]", "", h.lower()) for h in self.headings)
        return [head.strip().replace(" ", "-") for head in heads]

    @property
    def codes(self) -> set[str]:
        return set(re.findall(r"`([^`\n]+)`", self.text))

    @property
    def prose(self) -> str:
        """Without code, the targets of links and comments."""
        text = re.sub(r"`[^`\n]+`|\{[^}\n]*\}", "`", self.text)
        text = re.sub(r"\]\([^)]*\)|<!--.*?-->|https?://\S+", "]", text)
        return re.sub(r"([\d,]+) 万", _millions, text)

    @property
    def figures(self) -> Counter[str]:
        return Counter(
            n.rstrip(",") for n in re.findall(r"(?<![\w.])\d[\d,]*(?:\.\d+)*", self.prose)
        )


def _millions(found: re.Match[str]) -> str:
    """600 万 as the English page has it: 6 (million)."""
    return f"{int(found[1].replace(',', '')) / 100:g}"


def read(path: Path) -> Page:
    page = Page()
    fence: str | None = None
    for line in path.read_text("utf-8").splitlines():
        mark = re.match(r" *```(.*)", line)
        if mark:
            fence = mark[1] if fence is None else None
            page.blocks += [] if fence is None else [fence]
        elif fence is not None:
            page.blocks[-1] += f"\n{_without_comment(line, fence)}"
        else:
            page.text += f"{line}\n"
            if line.startswith("#"):
                page.headings.append(line.lstrip("# "))
            elif line.startswith("|"):
                cells = re.split(r"(?<!\\)\|", line)[1:-1]
                page.rows.append((len(cells), sorted(re.findall(r"`([^`]+)`", cells[0]))))
    return page


def _without_comment(line: str, language: str) -> str:
    """A line of code; a comment, and what a drawn tree says of its files, is in the page's language."""
    if language in ("yaml", "bash", "python"):
        return re.sub(r"(^|\s+)#.*", "", line).strip()
    found = re.match(r"  +\S+(, \S+)*  +(?=\S)", line) if not language else None
    return found[0].strip() if found else line.strip()


def links(path: Path) -> list[tuple[str, int | None]]:
    """Where the links lead: the English name of the file, and the number of the heading."""
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", read(path).text):
        name, _, anchor = target.partition("#")
        if target.startswith("http"):
            found.append((target, None))
            continue
        file = (path.parent / name).resolve() if name else path
        number = read(file).anchors.index(anchor) if anchor else None
        english = next((en for en, ja in TWINS.items() if ja == file), file)
        found.append((str(english.relative_to(ROOT)), number))
    return found


def test_every_page_is_there_in_both_languages() -> None:
    there = {*(DOCS / "ja").glob("*.md"), ROOT / "README.ja.md"}
    assert there == set(TWINS.values())


@each_pair
def test_a_page_has_the_same_headings_code_and_tables(english: Path, japanese: Path) -> None:
    en, ja = read(english), read(japanese)
    level = r"^(#+) "
    assert re.findall(level, ja.text, re.MULTILINE) == re.findall(level, en.text, re.MULTILINE)
    assert ja.blocks == en.blocks
    assert ja.rows == en.rows


@each_pair
def test_a_page_has_the_same_links_names_and_figures(english: Path, japanese: Path) -> None:
    en, ja = read(english), read(japanese)
    between = {"README.md", "README.ja.md"}  # each README leads to the other
    assert sorted(map(str, (x for x in links(japanese) if x[0] not in between))) == sorted(
        map(str, (x for x in links(english) if x[0] not in between))
    )
    assert ja.codes == en.codes
    assert not en.figures - ja.figures, "figures are missing in Japanese"
    more = [n for n in (ja.figures - en.figures) if not (n.isdecimal() and int(n) <= SMALL)]
    assert not more, "figures are not in English"


@each_pair
def test_a_page_is_japanese_throughout(english: Path, japanese: Path) -> None:
    page = read(japanese)
    left = re.findall(r"(?:[A-Za-z][A-Za-z'-]*[ ,]+){5,}", page.prose)
    assert not left, "still in English"
    tight = rf"{KANJI_OR_KANA}[A-Za-z0-9`\[]|[A-Za-z0-9%`]{KANJI_OR_KANA}"
    assert not re.findall(rf".{{,8}}(?:{tight}).{{,8}}", _letters(page)), "a blank is missing"
    loose = r"[、。（）「」] (?!\|)|(?<![|.-]) [、。（）「」]"
    assert not re.findall(rf".{{,8}}(?:{loose}).{{,8}}", _letters(page)), "a blank too many"
    broken = rf"{KANJI_OR_KANA}[、。]?\n(?![-|#>\n]|\d+\. |\s|\Z)"
    assert not re.findall(rf".{{,12}}{broken}.{{,8}}", page.text), "a paragraph is one line"


def _letters(page: Page) -> str:
    """The prose, with a letter for each code, and links as their texts."""
    text = re.sub(r"`[^`\n]+`", "`", page.text).replace("AI王", "")
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return "\n".join(line for line in text.splitlines() if not line.startswith("|---"))


def test_what_the_code_says_has_its_japanese() -> None:
    words = reference.Words(reference.JAPANESE.read_text("utf-8"))
    for name in reference.PARTS:
        path = DOCS / "ja" / name
        assert path.read_text("utf-8") == reference.fresh(path, words), (
            "run: python -m tests.test_docs"
        )
    assert not words.missing, "docs/ja/reference.yaml has no Japanese for these"
    assert not words.there.keys() - words.used, "docs/ja/reference.yaml: nothing says these"


def digests() -> dict[str, str]:
    """Of the English pages, without what is made from the code: its Japanese is looked after above."""
    found = {}
    for page in TWINS:
        text = re.sub(r"<!-- (\w+) -->.*<!-- /\1 -->", "", page.read_text("utf-8"), flags=re.DOTALL)
        found[page.stem] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return found


def test_no_english_page_changed_behind_the_japanese_one() -> None:
    read_then = yaml.safe_load(READ.read_text("utf-8"))
    changed = [page for page, digest in digests().items() if read_then.get(page) != digest]
    assert not changed, (
        "bring the Japanese pages in step with these, then run: python -m tests.test_docs_ja"
    )
    assert read_then.keys() <= digests().keys()


if __name__ == "__main__":
    READ.write_text(yaml.safe_dump(digests()), "utf-8")
