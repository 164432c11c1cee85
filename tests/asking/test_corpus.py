"""Passages are found in the corpus that a run's data came from, as its build found them; nothing is changed."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

import ragtune
from ragtune.asking.corpus import open_corpus
from ragtune.asking.reader import Reader
from ragtune.base.errors import UsageError
from ragtune.building import shelf_file
from ragtune.data.read import read_examples
from tests.building.retrieval.tiny import save_encoder
from tests.building.test_build import corpus as settings
from tests.building.test_build import place, questions

__all__ = ["place"]


def built(folder: Path, **changes: Any) -> Path:
    ragtune.build(settings(**changes), folder=folder)
    return folder


def digests(folder: Path) -> dict[str, str]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_it_finds_what_the_build_found_and_changes_nothing(place: Path) -> None:
    folder = built(place / "corpora" / "towns")
    before = digests(folder)
    corpus = open_corpus(folder)
    asked = [question for question, _ in questions()]
    found = dict(zip(asked, corpus.search(asked, 99), strict=True))
    assert all(len(passages) == 4 for passages in found.values())  # retrieval.passages
    for side in ("train", "eval"):
        for example in read_examples(str(folder / f"{side}.jsonl"), side):
            # Of its own side alone, in the order in which all are found.
            own = [p.passage_id for p in found[example.question]]
            theirs = [p.passage_id for p in example.passages if p.passage_id in own]
            assert theirs == [p for p in own if p in theirs]
            assert theirs
    assert digests(folder) == before


def test_a_build_may_go_on_meanwhile_and_several_read(place: Path) -> None:
    folder = built(place / "corpora" / "towns")
    first, second = open_corpus(folder), open_corpus(folder)
    asked = ["Who founded Arlem?"]
    found = first.search(asked, 3)
    writer = sqlite3.connect(folder / "corpus.sqlite", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM passages")
    assert first.search(asked, 3) == second.search(asked, 3) == found
    writer.execute("COMMIT")
    assert first.search(asked, 3) == [[]]  # what the index has and the shelf has no more
    writer.close()


def test_where_nothing_can_be_written(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = built(place / "corpora" / "towns")
    found = open_corpus(folder).search(["Who founded Arlem?"], 2)
    connect = sqlite3.connect

    def refuse(name: str, **how: Any) -> Any:
        if "mode=rw" in name:  # as SQLite does it in a folder that may only be read
            db = connect(":memory:")
            db.execute("PRAGMA query_only = 1")
            return db
        return connect(name, **how)

    monkeypatch.setattr(shelf_file.sqlite3, "connect", refuse)
    assert open_corpus(folder).search(["Who founded Arlem?"], 2) == found


@pytest.mark.parametrize("kind", ["dense", "hybrid"])
def test_the_retrieval_is_the_corpus_s(
    place: Path, tmp_path_factory: pytest.TempPathFactory, kind: str
) -> None:
    encoder = save_encoder(tmp_path_factory.mktemp("encoder"))
    folder = built(
        place / "corpora" / "towns",
        **{"retrieval.retriever": kind, "retrieval.model": str(encoder)},
    )
    before = digests(folder)
    corpus = open_corpus(folder)
    for side in ("train", "eval"):
        for example in read_examples(str(folder / f"{side}.jsonl"), side):
            (found,) = corpus.search([example.question], 99)
            own = [p.passage_id for p in found]
            theirs = [p.passage_id for p in example.passages if p.passage_id in own]
            assert theirs == [p for p in own if p in theirs]
    assert digests(folder) == before


def test_what_can_t_be_asked(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = built(place / "corpora" / "towns")
    path = folder / "corpus.yaml"
    text = path.read_text("utf-8")
    found = place / "found.jsonl"
    found.write_text("", "utf-8")
    path.write_text(
        text.replace("retriever: lexical", "retriever: file").replace(
            "retrieved: null", f"retrieved: {found}"
        ),
        "utf-8",
    )
    with pytest.raises(UsageError, match="its passages were found elsewhere"):
        open_corpus(folder)
    path.write_text(text, "utf-8")
    built_text = (folder / "build.json").read_text("utf-8")
    (folder / "build.json").write_text(
        built_text.replace('"retriever": "lexical"', '"retriever": "own (mine)"'), "utf-8"
    )
    with pytest.raises(UsageError, match="by a retriever of your own"):
        open_corpus(folder)
    (folder / "build.json").write_text(built_text, "utf-8")
    db = sqlite3.connect(folder / "corpus.sqlite")
    db.execute("INSERT INTO changes VALUES ('lexical', 'docs/Arlem.md#1')")
    db.commit()
    db.close()
    capsys.readouterr()
    open_corpus(folder)
    assert "lacks 1 change: a build was stopped" in " ".join(capsys.readouterr().out.split())
    shutil.rmtree(folder / "index")
    with pytest.raises(UsageError, match="holds no index of passages"):
        open_corpus(folder)


def test_a_run_finds_its_corpus(place: Path, tuned: Path, reader: Reader) -> None:
    folder = built(place / "corpora" / "towns")
    asked = Reader.load(tuned, corpus=folder)
    assert asked.retrieves
    (answer,) = asked.ask(["Who founded Arlem?"])
    assert list(answer.passages) == asked.retrieve(["Who founded Arlem?"])[0]
    assert len(answer.passages) == 2  # data.max_passages
    assert answer.passages[0].place is not None
    assert not reader.retrieves
    with pytest.raises(UsageError, match="There are no passages to answer from"):
        reader.ask(["Who?"])
