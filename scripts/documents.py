"""Make a folder of documents and their questions from the shipped samples: seeded, nothing by outcome.

    python scripts/documents.py FOLDER
    python scripts/documents.py recipes/quickstart-documents.zip

The folder, or the archive that comes with the recipe, then holds documents/en and documents/ja (Markdown,
HTML, PDF and Word, in turn), questions.en.csv and questions.ja.csv (question, answers; several answers with
| between them), and the licences.
Each English article becomes two documents, since there are only 16; of the Japanese ones those with the
most questions are taken. A document has at most PARAGRAPHS paragraphs, drawn by the seed, in their order.
A question comes along if the paragraph that holds its answer does.
"""

from __future__ import annotations

import csv
import gzip
import json
import random
import shutil
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from zipfile import ZipInfo

from writers import WRITERS, Article, can_print

SEED = 20
SAMPLES = Path(__file__).parents[1] / "src/ragtune/data/samples"
PARAGRAPHS, SECTION = 12, 4
SEPARATOR = "|"
FILES = {"en": ("squad2.train", "squad2.dev"), "ja": ("jaquad.train", "jaquad.dev")}
JAPANESE = 16
Paragraphs = dict[str, dict[str, str]]
"""Of each article: its paragraphs by a name that puts them in order."""


def records(language: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in FILES[language]:
        with gzip.open(SAMPLES / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
            for line in file:
                yield name, json.loads(line)


def paragraphs(language: str) -> Paragraphs:
    found: Paragraphs = {}
    for name, record in records(language):
        for passage in record["passages"]:
            key = f"{name} {passage['passage_id']:06}"
            found.setdefault(passage["title"], {})[key] = " ".join(passage["text"].split())
    return {title: dict(sorted(texts.items())) for title, texts in sorted(found.items())}


def articles(language: str, asked: Sequence[str]) -> Iterator[Article]:
    """The documents; `asked` holds the paragraph that each question is about."""
    found = paragraphs(language)
    if language == "ja":
        count = Counter(
            title for title, texts in found.items() for text in asked if text in texts.values()
        )
        found = {title: found[title] for title, _ in count.most_common(JAPANESE)}
    heading = "第{}節" if language == "ja" else "Section {}"
    for title, texts in found.items():
        whole = list(texts.values())
        half = -(-len(whole) // 2) if language == "en" else len(whole)
        for part, start in enumerate(range(0, len(whole), half), 1):
            there = whole[start : start + half]
            drawn = random.Random(f"{SEED}:{title}:{part}").sample(
                range(len(there)), min(PARAGRAPHS, len(there))
            )
            chosen = [there[i] for i in sorted(drawn)]
            sections = [
                (heading.format(n), chosen[at : at + SECTION])
                for n, at in enumerate(range(0, len(chosen), SECTION), 1)
            ]
            yield Article(title if half == len(whole) else f"{title} {part}", sections, language)


def write(language: str, folder: Path) -> None:
    there = folder / "documents" / language
    there.mkdir(parents=True)
    asked = [" ".join(record["passages"][0]["text"].split()) for _, record in records(language)]
    written: set[str] = set()
    count = 0
    for count, article in enumerate(articles(language, asked), 1):
        suffix = list(WRITERS)[(count - 1) % len(WRITERS)]
        if suffix == ".pdf" and not can_print(article):
            suffix = ".docx"
        (there / (article.title.replace("/", "_") + suffix)).write_bytes(WRITERS[suffix](article))
        written.update(text for _, texts in article.sections for text in texts)
    rows = [
        (record["question"], SEPARATOR.join(record["answers"]))
        for (_, record), text in zip(records(language), asked, strict=True)
        if text in written
    ]
    with (folder / f"questions.{language}.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("question", "answers"), *rows])
    print(f"{language}: {count} documents, {len(written):,} paragraphs, {len(rows):,} questions")


def main(target: Path) -> None:
    if target.suffix != ".zip":
        fill(target)
        return
    with tempfile.TemporaryDirectory() as there, zipfile.ZipFile(target, "w") as archive:
        fill(Path(there))
        for path in sorted(Path(there).rglob("*.*")):
            name = path.relative_to(there).as_posix()
            archive.writestr(ZipInfo(name), path.read_bytes(), zipfile.ZIP_DEFLATED, 9)


def fill(folder: Path) -> None:
    shutil.rmtree(folder / "documents", ignore_errors=True)
    for language in FILES:
        write(language, folder)
    for licence in sorted(SAMPLES.glob("*.md")):
        shutil.copyfile(licence, folder / licence.name)


if __name__ == "__main__":
    if len(sys.argv) != 2:  # noqa: PLR2004 - the script and one target
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
