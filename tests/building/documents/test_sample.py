"""The sample of `make quickstart-documents`: every document can be read, and holds what is asked."""

from __future__ import annotations

import csv
import io
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from ragtune.building.documents.document import Document
from ragtune.building.documents.read import find_files, read_source
from ragtune.data.words import stands
from ragtune.recipe.corpus import Documents
from tests.building.documents.made import script

ROOT = Path(__file__).parents[3]
writers = script("writers")
sample = script("documents")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    there = tmp_path_factory.mktemp("sample")
    sample.main(there)
    return there


@pytest.fixture(scope="module")
def documents(folder: Path) -> list[Document]:
    chosen = Documents(files=[str(folder / "documents")])
    return [one for source in find_files(chosen) for one in read_source(source, chosen)]


def questions(folder: Path, language: str) -> list[dict[str, str]]:
    with (folder / f"questions.{language}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_few_dozen_documents_of_all_kinds(documents: list[Document]) -> None:
    kinds = Counter(Path(one.file).suffix for one in documents)
    assert set(kinds) == set(writers.WRITERS)
    assert min(kinds.values()) >= 10
    assert sum("/ja/" in one.file for one in documents) == 16
    assert sum("/en/" in one.file for one in documents) == 32
    assert all(one.title.partition(" ")[0] in one.file for one in documents)


def test_the_answers_stand_in_the_documents(folder: Path, documents: list[Document]) -> None:
    for language, least in (("en", 900), ("ja", 90)):
        texts = [one.text for one in documents if f"/{language}/" in one.file]
        asked = questions(folder, language)
        assert len(asked) >= least
        missing = [
            row
            for row in asked
            if not any(
                stands(text, a) for a in row["answers"].split(sample.SEPARATOR) for text in texts
            )
        ]
        assert missing == []


def test_licences_lie_beside_them(folder: Path) -> None:
    assert {path.name for path in folder.glob("*.md")} == {
        "README.md", "LICENSE-CC-BY-SA-3.0.md", "LICENSE-CC-BY-SA-4.0.md",
    }  # fmt: skip


def test_the_same_bytes_whenever_it_is_made() -> None:
    article = writers.Article("Title", [("One", ["Some text."])], "en")
    for suffix, write in writers.WRITERS.items():
        assert write(article) == write(article), suffix
    with zipfile.ZipFile(io.BytesIO(writers.word(article))) as archive:
        assert {member.date_time[0] for member in archive.infolist()} == {1980}
    assert b"D:2020" in writers.latin_pdf(article)


def test_the_archive_beside_the_recipe_holds_the_same(folder: Path) -> None:
    """`ragtune init --recipe quickstart-documents` unpacks it."""
    made = {one.relative_to(folder).as_posix(): one for one in folder.rglob("*") if one.is_file()}
    with zipfile.ZipFile(ROOT / "recipes/quickstart-documents.zip") as archive:
        assert sorted(archive.namelist()) == sorted(made)
        for name, path in made.items():
            content = [archive.read(name), path.read_bytes()]
            if name.endswith(".docx"):  # its frame is python-docx's, of whatever version
                content = [
                    zipfile.ZipFile(io.BytesIO(one)).read("word/document.xml") for one in content
                ]
            if not name.endswith(".pdf"):
                assert content[0] == content[1], name
