"""Build the documentation in both languages into site/: English at its root, Japanese in ja/.

    python scripts/documentation.py

The pages lie in docs/ and docs/ja/, and link to files of the repository as GitHub shows them. They are copied
to build/docs/LANGUAGE with those files beside them, so that every link stays within the site.
Exit code 1: a page has a fault that the builder names, a link leads nowhere, or something would be fetched
from elsewhere.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[1]
CONFIGURATIONS = {"en": "mkdocs.yml", "ja": "mkdocs.ja.yml"}
"""In the order of building: what builds the English site empties site/."""
BESIDE = (
    "docs/*.png",
    "docs/*.svg",
    "recipes/*",
    "examples/*",
    "notebooks/*.ipynb",
    "bench/results/*.json",
)
"""Files that pages show or link to."""


def stage(language: str, root: Path) -> None:
    """Copy what the site of a language is made from to where its configuration looks for it."""
    target = root / "build/docs" / language
    shutil.rmtree(target, ignore_errors=True)
    for pattern in BESIDE:
        for source in ROOT.glob(pattern):
            copy = target / source.relative_to(ROOT / "docs" if "docs/" in pattern else ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
    for page in (ROOT / "docs" / ("" if language == "en" else language)).glob("*.md"):
        (target / page.name).write_text(within(page.read_text("utf-8")), "utf-8")


def within(text: str) -> str:
    """A page as the builder wants it.

    Links to files of the repository lead to the copies beside it. In a table's code GitHub wants a backslash
    before `|`, which the builder would show.
    """
    text = re.sub(
        r"^\|.*",
        lambda row: re.sub(r"`[^`]+`", lambda code: code[0].replace(r"\|", "|"), row[0]),
        text,
        flags=re.MULTILINE,
    )
    return re.sub(r"\]\((?:\.\./)+", "](", text)


def build(root: Path = ROOT) -> list[str]:
    """Build both sites below a folder; what is wrong with them.

    Raises:
        subprocess.CalledProcessError: the builder refused a page, and has said why.
    """
    for language, name in CONFIGURATIONS.items():
        stage(language, root)
        if root != ROOT:
            shutil.copyfile(ROOT / name, root / name)
        command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "-f", name]
        subprocess.run(command, cwd=root, check=True)  # noqa: S603 - of fixed words
    return [*unlisted(), *faults(root / "site")]


def unlisted() -> Iterator[str]:
    """Pages that the navigation doesn't name, and names without a page: the builder says neither."""
    for language, name in CONFIGURATIONS.items():
        pages = {p.name for p in (ROOT / "docs" / language.replace("en", "")).glob("*.md")}
        named = re.findall(r"^ *- .*?([\w-]+\.md)$", (ROOT / name).read_text("utf-8"), re.MULTILINE)
        yield from (f"{name}: {page} is not in nav" for page in sorted(pages - set(named)))
        yield from (f"{name}: there is no {page}" for page in sorted(set(named) - pages))


class Links(HTMLParser):
    """Of a page: its anchors, where it leads to, and what a browser fetches for it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.leads: set[str] = set()
        self.fetches: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Read what a tag names."""
        found = {name: value for name, value in attrs if value}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if "src" in found:
            self.fetches.add(found["src"])
        if "href" in found:
            (self.leads if tag == "a" else self.fetches).add(found["href"])


def faults(site: Path) -> list[str]:
    """Links and pictures of a built site that lead nowhere, and what would be fetched from elsewhere."""
    pages = {path: Links(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        if path.name == "404.html":  # its addresses are those of a server's root
            continue
        here = path.relative_to(site)
        found += [f"{here}: fetches {a}" for a in sorted(page.fetches) if urlsplit(a).netloc]
        for address in sorted(page.leads | page.fetches):
            parts = urlsplit(address)
            if parts.netloc or parts.scheme:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            anchors = pages[target].anchors if target in pages else set()
            if not target.is_file() or (parts.fragment and unquote(parts.fragment) not in anchors):
                found.append(f"{here}: {address} leads nowhere")
    for path in sorted(site.rglob("*.css")):
        found += [
            f"{path.relative_to(site)}: fetches {address}"
            for address in re.findall(
                r"(?:url\(|@import )[\"']?(\w*:?//[^\"')]+)", path.read_text("utf-8")
            )
        ]
    return found


if __name__ == "__main__":
    try:
        wrong = build()
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    print("\n".join(wrong))
    sys.exit(bool(wrong))
