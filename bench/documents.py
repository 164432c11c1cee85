"""A thousand pages of PDF, HTML and Word, read as `ragtune build` reads them: time and memory.

    python bench/documents.py [--pages 1000] [--keep FOLDER] [--out bench/results/documents.json]

The pages are made from the shipped samples' paragraphs, each used once, in English and Japanese, a third
in each format. A page of HTML or Word is as much text as a page of the PDF files; how many pages these
really have is written down. Two bad files lie among them. Time is that of reading alone; memory the
largest that the process took, and its reader, together.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from machine import made_with
from ragtune.base.files import write_json
from ragtune.building.documents.document import UnreadableError
from ragtune.building.documents.read import find_files, read_sources
from ragtune.recipe.corpus import Documents

ROOT = Path(__file__).resolve().parent.parent
SEED = 20
PAGE = {"en": 2700, "ja": 1330}
"""Letters of text on a page of scripts/writers.py."""
ENGLISH = 0.18
"""Of the pages: the English samples have no more text."""
SIZES = (3, 8, 15, 30, 60)
"""Pages of a document, in turn."""
FORMATS = (".pdf", ".html", ".docx")
READERS = ("pypdfium2", "trafilatura", "mammoth", "openpyxl", "python-pptx", "charset-normalizer")


def make(folder: Path, pages: int) -> dict[str, int]:
    """Write the documents; gives how many of each format there are."""
    sys.path.insert(0, str(ROOT / "scripts"))
    from documents import paragraphs
    from writers import WRITERS, Article, can_print

    counts = dict.fromkeys(FORMATS, 0)
    for language, share in (("en", ENGLISH), ("ja", 1 - ENGLISH)):
        texts = [text for article in paragraphs(language).values() for text in article.values()]
        texts = [t for t in texts if can_print(Article("", [("", [t])], language))]
        random.Random(SEED).shuffle(texts)
        for number, some in enumerate(_documents(texts, language, round(pages * share))):
            sections = [(f"{number}.{n}", some[n : n + 6]) for n in range(0, len(some), 6)]
            suffix = FORMATS[number % len(FORMATS)]
            article = Article(f"Document {number}", sections, language)
            (folder / f"{language}-{number:03}{suffix}").write_bytes(WRITERS[suffix](article))
            counts[suffix] += 1
    whole = next(folder.glob("*.docx")).read_bytes()
    (folder / "half.docx").write_bytes(whole[: len(whole) // 2])
    (folder / "a picture.pdf").write_bytes(b"\x89PNG\r\n\x1a\n")
    return counts


def _documents(texts: list[str], language: str, pages: int) -> Iterator[list[str]]:
    """The paragraphs of each document; the next three have the same size, one in each format."""
    rest = iter(texts)
    left, number = pages * PAGE[language], 0
    while left > 0:
        wanted = min(SIZES[number // len(FORMATS) % len(SIZES)] * PAGE[language], left)
        some: list[str] = []
        while sum(map(len, some)) < wanted:
            some.append(next(rest))
        left -= sum(map(len, some))
        yield some
        number += 1


def read(folder: Path) -> dict[str, Any]:
    """Read them, and say what it took."""
    documents = Documents(files=[str(folder)])
    begun = time.perf_counter()
    found = dict.fromkeys(FORMATS, 0)
    letters = pages = 0
    refused = []
    for source, given in read_sources(find_files(documents), documents):
        if isinstance(given, UnreadableError):
            refused.append(given.message)
            continue
        for document in given:
            found[Path(source.name).suffix] += 1
            letters += len(document.text)
            pages += max((mark.page or 0 for mark in document.marks), default=0)
    seconds = time.perf_counter() - begun
    here, reader = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(here.ru_utime + here.ru_stime + reader.ru_utime + reader.ru_stime, 1),
        "peak_mib": round((here.ru_maxrss + reader.ru_maxrss) / 1024),
        "read": found,
        "letters": letters,
        "pdf_pages": pages,
        "refused": sorted(refused),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pages", type=int, default=1000)
    parser.add_argument("--keep", type=Path, help="write the documents here, and leave them there")
    parser.add_argument("--out", type=Path, default=ROOT / "bench/results/documents.json")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        print(json.dumps(read(options.read)))
        return
    made = made_with(*READERS)
    with tempfile.TemporaryDirectory() as work:
        folder = options.keep or Path(work) / "pages"
        folder.mkdir(parents=True, exist_ok=True)
        written = make(folder, options.pages)
        # A process of its own: this one has made them, which takes memory, too.
        done = subprocess.run(  # noqa: S603 - this file
            [sys.executable, __file__, "--read", str(folder)],
            capture_output=True,
            text=True,
            check=True,
        )
        size = sum(file.stat().st_size for file in folder.iterdir())
    result = {
        **made,
        "pages": options.pages,
        "written": written,
        "mib": round(size / 2**20, 1),
        **json.loads(done.stdout.splitlines()[-1]),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
