"""Documents onto the shelf: what can't be read to its end is left out as a whole, and the others are there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ragtune.building import reading
from ragtune.building.documents import read, source
from ragtune.building.documents.document import UnreadYetError
from ragtune.building.documents.source import Source
from ragtune.building.reading import brought_by, fill
from ragtune.building.shelf import Shelf
from ragtune.recipe.corpus import Corpus, Documents, Questions


def test_a_file_that_is_wrong_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "AHEAD", 5)
    lines = [json.dumps({"id": i, "text": f"This is the text number {i}."}) for i in range(20)]
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, "{}"]), "utf-8")
    (tmp_path / "b.jsonl").write_text("\n".join(lines), "utf-8")
    files = [str(tmp_path / name) for name in ("a.jsonl", "b.jsonl")]
    corpus = Corpus(
        name="c", documents=Documents(files=files), questions=Questions(files=["q.csv"])
    )
    with Shelf.open(tmp_path / "corpus.sqlite") as shelf:
        fill(shelf, corpus, brought_by([]), strict=False)
        assert shelf.count()[0] == 20
        assert [name for name, _, _ in shelf.unread()] == ["a.jsonl"]
        assert shelf.unread()[0][1] == "a.jsonl:21: there is no column text (there are: none)."


def test_what_could_not_be_read_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("This is a text.", "utf-8")
    (tmp_path / "b.txt").write_text("This is another.", "utf-8")
    documents = Documents(files=[str(tmp_path / "*.txt")])
    corpus = Corpus(name="c", documents=documents, questions=Questions(files=["q.csv"]))
    real = reading.read_sources

    def slow(sources: Any, documents: Any) -> Any:
        for one, found in real(sources, documents):
            slow_one = one.name.endswith("b.txt")
            yield one, UnreadYetError("b.txt took too long.", "") if slow_one else found

    with Shelf.open(tmp_path / "corpus.sqlite") as shelf:
        monkeypatch.setattr(reading, "read_sources", slow)
        fill(shelf, corpus, brought_by([]), strict=False)
        assert (shelf.count()[0], len(shelf.unread())) == (1, 1)
        monkeypatch.setattr(reading, "read_sources", real)
        fill(shelf, corpus, brought_by([]), strict=False)
        assert (shelf.count()[0], shelf.unread()) == (2, [])


def filled(folder: Path, shelf: Shelf) -> tuple[list[Any], list[Any]]:
    """The documents of a folder, and what could not be read, after it was read onto a shelf."""
    documents = Documents(files=[str(folder)])
    fill(
        shelf,
        Corpus(name="c", documents=documents, questions=Questions(files=["q.csv"])),
        brought_by([]),
        strict=False,
    )
    texts = [(p.passage_id, p.text) for p, _ in shelf.every_passage()]
    return sorted(texts), shelf.unread()


def write(folder: Path, **files: dict[str, str] | None) -> None:
    for name, records in files.items():
        lines = [json.dumps({"id": key, "text": text}) for key, text in (records or {}).items()]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), "utf-8")
        if records is None:
            (folder / f"{name}.jsonl").unlink()


def test_ids_that_are_there_twice_end_as_in_a_build_from_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    clashes = [0, 1, 0, 1, 0, 1, 0, 1, 0]
    long = "A sentence that is here. " * 30
    steps: tuple[dict[str, dict[str, str] | None], ...] = (
        {"a": {"X": "X of a"}, "a.jsonl#b": {"c": "C of b", "Y": "Y of b"}, "z": {"Z": "Z of z"}},
        {"a": {"b.jsonl#c": "C of a"}},  # it comes before b, and gets what b had
        {"a": {"W": "W of a"}},  # b gets it back, though it did not change
        {"a": {"b.jsonl#c": long}},
        {"a": {"W": "W of a"}, "a.jsonl#b": {"c": long}},
        {"a": {"b.jsonl#c#1": "a passage of the other's"}},
        {"a": None},
        {"a.jsonl#b": {"c": long, "c#2": "its passage"}},
        {"a.jsonl#b": {"c": long, "c#9": "none of its passages", "d": "D"}},
    )
    with Shelf.open(tmp_path / "kept.sqlite") as kept:
        for number, step in enumerate(steps):
            write(folder, **step)
            with Shelf.open(tmp_path / f"{number}.sqlite") as fresh:
                assert filled(folder, kept) == (found := filled(folder, fresh))
            assert len(found[1]) == clashes[number]


def test_a_file_that_could_not_be_opened_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    write(folder, a={"A": "A of a"}, b={"B": "B of b"})
    (folder / "c.txt").write_text("Some text.", "utf-8")
    real, whole = Source.digest, [(folder / name).read_bytes() for name in ("b.jsonl", "c.txt")]

    def gone(self: Source) -> str:
        """What it was when it was looked at, and nothing when it is read."""
        found = real(self)
        if self.path.name != "a.jsonl":
            self.path.unlink()
        return found

    with Shelf.open(tmp_path / "corpus.sqlite") as shelf:
        with monkeypatch.context() as patch:
            patch.setattr(Source, "digest", gone)
            texts, unread = filled(folder, shelf)
        assert (len(texts), [one[0] for one in unread]) == (1, ["docs/b.jsonl", "docs/c.txt"])
        for name, content in zip(("b.jsonl", "c.txt"), whole, strict=True):
            (folder / name).write_bytes(content)
        texts, unread = filled(folder, shelf)
        assert (len(texts), unread) == (3, [])


def test_an_id_that_no_index_takes_is_one_bad_file(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    write(folder, a={"A": "A of a"}, b={"能" * 400: "B of b"})
    with Shelf.open(tmp_path / "corpus.sqlite") as shelf:
        texts, unread = filled(folder, shelf)
    assert [one[0] for one in texts] == ["docs/a.jsonl#A"]
    ((name, problem, advice),) = unread
    assert name == "docs/b.jsonl"
    assert "is longer than 980 bytes" in problem
    assert "shorter" in advice


def test_of_a_file_that_is_too_large_no_more_is_looked_at_than_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "MAX_WHOLE", 10)
    (tmp_path / "a.txt").write_bytes(b"0123456789a")
    (tmp_path / "b.txt").write_bytes(b"0123456789abcdefgh")
    first, second = (Source(tmp_path / name, name).digest() for name in ("a.txt", "b.txt"))
    assert first == second
