import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.building.documents.document import Document, Mark
from ragtune.building.shelf import Shelf
from ragtune.data.example import Passage, Place


def cut(document: Document, size: int = 4) -> list[Passage]:
    text = document.text
    return [
        Passage(
            text[i : i + size],
            document.title,
            f"{document.id}#{i}",
            Place(document.file, i, i + size),
        )
        for i in range(0, len(text), size)
    ]


def put(shelf: Shelf, source: str, **texts: str) -> int:
    documents = [Document(name, source, name.upper(), text) for name, text in texts.items()]
    return shelf.put(source, str(texts), ((one, cut(one)) for one in documents))


@pytest.fixture
def shelf(tmp_path: Path) -> Any:
    with Shelf.open(tmp_path / "corpus.sqlite") as opened:
        yield opened


def index_all(shelf: Shelf, engine: str = "lexical") -> tuple[set[str], set[str]]:
    """Ids that go and come, until nothing waits."""
    gone, come = set(), set()
    while True:
        ids, entries = shelf.waiting(engine, 2)
        if not ids:
            return gone, come
        come |= {e.passage_id for e in entries}
        gone |= set(ids) - {e.passage_id for e in entries}
        shelf.done(engine, ids)


def test_passages_are_found_by_name_with_their_places(shelf: Shelf) -> None:
    assert put(shelf, "a.md", one="abcdefgh", two="xy") == 2
    assert shelf.count() == (2, 3)
    found = shelf.passages(["one#4", "two#0", "three"])
    assert found["one#4"] == Passage("efgh", "ONE", "one#4", Place("a.md", 4, 8))
    assert set(found) == {"one#4", "two#0"}
    assert shelf.document_of(["one#4"]) == {"one#4": "one"}
    assert [name for name, _, _ in shelf.documents()] == ["one", "two"]


def test_a_source_that_changes_changes_only_what_differs(shelf: Shelf) -> None:
    put(shelf, "a.md", one="abcdefgh", two="xy")
    shelf.attach("lexical", empty=True)
    assert index_all(shelf) == (set(), {"one#0", "one#4", "two#0"})
    before = shelf.version
    assert put(shelf, "a.md", one="abcdefgh", two="xyz", three="q") == 2
    assert shelf.version != before
    assert index_all(shelf) == (set(), {"two#0", "three#0"})
    assert put(shelf, "a.md", two="xyz", three="q") == 0
    assert index_all(shelf) == ({"one#0", "one#4"}, set())


def test_nothing_changes_where_nothing_differs(shelf: Shelf) -> None:
    put(shelf, "a.md", one="abcdefgh")
    shelf.attach("lexical", empty=True)
    index_all(shelf)
    before = shelf.version
    assert put(shelf, "a.md", one="abcdefgh") == 0
    assert shelf.version == before
    assert shelf.attach("lexical", empty=False) == 0


def test_an_index_that_comes_later_lacks_everything(shelf: Shelf) -> None:
    put(shelf, "a.md", one="abcdefgh")
    shelf.attach("lexical", empty=True)
    index_all(shelf)
    put(shelf, "b.md", two="x")
    assert shelf.attach("lexical", empty=False) == 1
    assert shelf.attach("dense", empty=False) == 3
    assert shelf.attach("lexical", empty=True) == 3  # it was lost, and is filled again


def test_what_can_t_be_read_is_gone_and_told(shelf: Shelf) -> None:
    put(shelf, "a.md", one="abcd")
    shelf.attach("lexical", empty=True)
    index_all(shelf)
    shelf.put_problem("a.md", "2", UsageError("a.md is empty.", "Fill it."))
    assert shelf.count() == (0, 0)
    assert shelf.unread() == [("a.md", "a.md is empty.", "Fill it.")]
    assert index_all(shelf) == ({"one#0"}, set())
    put(shelf, "a.md", one="abcd")
    assert shelf.unread() == []


def test_a_source_that_breaks_off_leaves_what_was_there(shelf: Shelf) -> None:
    put(shelf, "a.md", one="abcd")

    def broken() -> Any:
        document = Document("two", "a.md", "", "x")
        yield document, cut(document)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shelf.put("a.md", "2", broken())
    assert shelf.count() == (1, 1)
    assert shelf.passages(["one#0"])


def test_two_documents_of_one_name_are_refused(shelf: Shelf) -> None:
    put(shelf, "a.md", one="abcd")
    with pytest.raises(
        UsageError, match=r"Two documents are called 'one': one in a.md, one in b.md"
    ):
        put(shelf, "b.md", one="efgh")
    with pytest.raises(UsageError, match=r"c\.md holds two documents that are called 'x'"):
        shelf.put(
            "c.md",
            "1",
            ((d, cut(d)) for d in [Document("x", "c.md", "", "a"), Document("x", "c.md", "", "b")]),
        )
    assert shelf.sources() == {"a.md": str({"one": "abcd"})}


def test_names_mean_passages_documents_files_and_titles(shelf: Shelf) -> None:
    put(shelf, "docs/a.md", one="abcdefgh")
    named = shelf.named(["one#4", "one", "docs/a.md", "a.md", "ONE", "other"])
    assert named == {
        "one#4": ({"one"}, {"one#4"}),
        **dict.fromkeys(("one", "docs/a.md", "a.md", "ONE"), ({"one"}, set())),
    }


def test_many_names_at_once(shelf: Shelf) -> None:
    put(shelf, "a.md", one="x" * 8000)
    assert len(shelf.passages(f"one#{i}" for i in range(0, 8000, 4))) == 2000


def test_pages_and_headings_come_back(shelf: Shelf) -> None:
    document = Document("d", "d.pdf", "", "abcd", (Mark(0, 3, "A > B"),))
    passage = Passage("abcd", "", "d", Place("d.pdf", 0, 4, 3, "A > B"))
    shelf.put("d.pdf", "1", [(document, [passage])])
    assert list(shelf.every_passage()) == [(passage, "d")]


def test_a_damaged_shelf_ends_in_words(tmp_path: Path) -> None:
    path = tmp_path / "corpus.sqlite"
    path.write_bytes(b"no database" * 100)
    with (
        pytest.raises(RagtuneError, match="can't be used: file is not a database") as raised,
        Shelf.open(path),
    ):
        pass
    assert "it is built anew" in raised.value.advice


def test_a_shelf_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "corpus.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(RagtuneError, match="another version"), Shelf.open(path):
        pass


@pytest.mark.parametrize("seed", range(20))
def test_a_shelf_that_is_damaged_somewhere_ends_in_words(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "corpus.sqlite"
    with Shelf.open(path) as shelf:
        put(shelf, "a.md", one="abcd", two="efgh")
    content, drawn = bytearray(path.read_bytes()), random.Random(seed)
    for _ in range(60):
        content[drawn.randrange(100, 4096)] ^= drawn.randrange(1, 256)
    path.write_bytes(content)
    try:
        with Shelf.open(path) as shelf:
            list(shelf.every_passage())
            shelf.sources()
    except RagtuneError as error:
        assert "Delete corpus.sqlite" in error.advice  # noqa: PT017 - it may be whole enough


def test_a_folder_in_the_place_of_a_shelf(tmp_path: Path) -> None:
    (tmp_path / "corpus.sqlite").mkdir()
    with pytest.raises(RagtuneError, match="can't be used"), Shelf.open(tmp_path / "corpus.sqlite"):
        pass
