"""Documents that are given: read and cut as a build does; of many passages the best are found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ragtune.asking.given import read_given
from ragtune.base.errors import UsageError
from ragtune.recipe.corpus import Passages

GUIDE = "# Pump\n\n## Start\n\nPress the green button.\n\n## Stop\n\nPress the red button. Wait for ten minutes.\n"


def test_documents_are_cut_and_the_best_are_found(tmp_path: Path) -> None:
    (tmp_path / "guide.md").write_text(GUIDE, "utf-8")
    (tmp_path / "塔.txt").write_text("東京タワーの高さは333メートルである。", "utf-8")
    given = read_given([tmp_path / "guide.md", tmp_path / "塔.txt"], Passages(), 3)
    start, stop, tower = given.passages
    assert start.place
    assert start.place.in_words() == "guide.md, Pump > Start"
    assert given.search(["?"], 3) == [[start, stop, tower]]  # in order
    assert given.search(["東京タワーの高さは?", "How do I stop the pump?"], 1) == [[tower], [stop]]


def test_a_file_of_passages_is_taken_as_it_is(tmp_path: Path) -> None:
    long = "A sentence. " * 100
    lines = [
        {"passage_id": 7, "title": "Seven", "text": long},
        {"passage_id": "b", "text": "Short."},
    ]
    path = tmp_path / "passages.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    first, second = read_given([path], Passages(), 3).passages
    assert (first.text, first.title, first.passage_id) == (long, "Seven", "7")
    assert (second.text, second.title) == ("Short.", "")
    path.write_text(json.dumps({"id": "d", "text": long}) + "\n", "utf-8")  # a document
    assert all(len(p.text) <= 400 for p in read_given([path], Passages(), 3).passages)


def test_how_many_are_shown_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "guide.md").write_text(GUIDE, "utf-8")
    read_given([tmp_path / "guide.md"], Passages(), 1)
    assert (
        "2 passages to answer from: each question is asked with the best 1."
        in capfd.readouterr().out
    )
    read_given([tmp_path / "guide.md"], Passages(), 2)
    assert "2 passages to answer from.\n" in capfd.readouterr().out


def test_no_advice_about_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(bytes(range(128, 256)) * 4)
    with pytest.raises(UsageError) as caught:
        read_given([tmp_path / "x.txt"], Passages(), 3)
    assert caught.value.advice == "Save it as UTF-8."


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("gone.md", None, "gone.md does not exist"),
        ("empty.md", "", "empty.md"),
        ("x.exe", "MZ", "is of a kind that is not read"),
        ("p.jsonl", '{"passage_id": 1}\n', "p.jsonl:1: a passage needs text"),
    ],
)
def test_what_can_t_be_read(tmp_path: Path, name: str, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content, "utf-8")
    with pytest.raises(UsageError) as caught:
        read_given([tmp_path / name], Passages(), 3)
    assert said in caught.value.message
    assert "documents.files" not in caught.value.message
    assert "Hub" not in caught.value.advice  # where no file of such a name could be


def test_an_empty_name_is_not_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret.md").write_text("A secret.", "utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="The name of a document is empty"):
        read_given([""], Passages(), 3)
