"""What thumbs keep: whole lines, read as questions where a right answer is known, and nowhere else."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path
from typing import Any, Self

import pytest

from ragtune.asking import feedback
from ragtune.asking.feedback import Feedback, append, forgotten, pasted, path_of
from ragtune.base.errors import RagtuneError
from ragtune.building.build import build
from ragtune.building.questions import read_questions
from ragtune.cli import main
from ragtune.data.read import read_examples
from ragtune.recipe.corpus import Questions
from ragtune.recipe.load import load_corpus

UP = Feedback("How high is it?", "3776 m", "up", ("3776 m",), "m")
CORRECTED = Feedback("Who made it?", "nobody", "down", ("Ann Lee",), "m")
UNKNOWN = Feedback("Who sold it?", "Ann Lee", "down", (), "m")
UNANSWERABLE = Feedback("Who ate it?", "not said", "up", (), "m", unanswerable=True)


def questions(path: Path) -> list[tuple[str, tuple[str, ...]]]:
    found = read_questions([str(path)], Questions(files=[str(path)]))
    return [(one.question, one.answers) for one in found]


def test_what_has_no_right_answer_is_no_question(tmp_path: Path) -> None:
    path = tmp_path / "feedback.jsonl"
    for one in (UNKNOWN, UP, CORRECTED, UNANSWERABLE):
        append(path, one)
    assert questions(path) == [
        ("How high is it?", ("3776 m",)), ("Who made it?", ("Ann Lee",)), ("Who ate it?", ()),
    ]  # fmt: skip
    assert len(path.read_text("utf-8").splitlines()) == 4
    only = tmp_path / "only.jsonl"
    append(only, UNKNOWN)
    with pytest.raises(RagtuneError, match=r"only.jsonl holds no question"):
        questions(only)


def test_a_corpus_is_built_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The documents' questions, and of a run without an index the passages that were pasted."""
    documents = tmp_path / "documents"
    documents.mkdir()
    path = tmp_path / "feedback.jsonl"
    for number in range(12):
        (documents / f"{number}.txt").write_text(
            f"Mount {number} is {3000 + number} m high.", "utf-8"
        )
        append(
            path,
            Feedback(f"How high is Mount {number}?", "?", "down", (f"{3000 + number} m",), "m"),
        )
    append(path, UNKNOWN)
    append(
        path,
        Feedback(
            "Who made it?",
            "Ann Lee",
            "up",
            ("Ann Lee",),
            "m",
            tuple(pasted("Ann Lee made it.\n\nTrees.")),
        ),
    )
    corpus = load_corpus({
        "name": "x", "documents": {"files": [str(documents)]}, "questions": {"files": [str(path)]},
    })  # fmt: skip
    build(corpus, tmp_path / "out")
    assert "is read as feedback of ragtune demo" in " ".join(capsys.readouterr().out.split())
    examples = [
        e
        for side in ("train", "eval")
        for e in read_examples(str(tmp_path / "out" / f"{side}.jsonl"), "")
    ]
    by_question = {e.question: e for e in examples}
    assert "Who sold it?" not in by_question
    assert by_question["How high is Mount 3?"].answers == ("3003 m",)
    made = by_question["Who made it?"]
    assert [made.passages[i].text for i in made.positive_passage_indices] == ["Ann Lee made it."]


def _append_many(path: Path, letter: str) -> None:
    for number in range(20):
        append(path, Feedback(f"{letter}{number}", letter * 9000, "up", (letter,), "m"))


def test_lines_of_two_processes_are_whole(tmp_path: Path) -> None:
    """Nine thousand letters are more than is written at one time."""
    path = tmp_path / "feedback.jsonl"
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=_append_many, args=(path, letter)) for letter in "ab"]
    for one in both:
        one.start()
    for one in both:
        one.join(60)
        assert one.exitcode == 0
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert sorted(line["question"] for line in lines) == sorted(
        f"{c}{n}" for c in "ab" for n in range(20)
    )
    assert [p.name for p in tmp_path.iterdir()] == ["feedback.jsonl"]


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "feedback.jsonl"
    append(path, UP)
    before = path.read_bytes()
    monkeypatch.setattr(feedback, "appending", lambda _: _Full(path))
    with pytest.raises(RagtuneError, match=r"The disk is full: could not write .*feedback.jsonl"):
        append(path, CORRECTED)
    assert path.read_bytes() == before


class _Full:
    """A file of which the disk takes the first half of what is written."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        return self

    def write(self, text: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text[: len(text) // 2])
        raise OSError(28, os.strerror(28), str(self._path))

    def __exit__(self, *_: object) -> None:
        pass


def test_a_line_that_a_kill_cut_off_does_not_swallow_the_next(tmp_path: Path) -> None:
    path = tmp_path / "feedback.jsonl"
    path.write_text('{"question": "cut o', "utf-8")
    append(path, UP)
    assert json.loads(path.read_text("utf-8").splitlines()[1])["question"] == UP.question


@pytest.mark.skipif(os.name == "nt", reason="no links")
def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    aim = tmp_path / "aim"
    (tmp_path / "feedback.jsonl").symlink_to(aim)
    with pytest.raises(RagtuneError, match="is a link, through which nothing is written"):
        append(tmp_path / "feedback.jsonl", UP)
    assert not aim.exists()


def test_one_command_deletes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = path_of(tmp_path)
    assert path == tmp_path / "feedback.jsonl"
    append(path, UP)
    append(path, UNKNOWN)
    with pytest.raises(SystemExit) as end:
        main(["demo", str(tmp_path), "--forget-feedback"])
    assert not end.value.code
    assert capsys.readouterr().out == f"Deleted {path}: 2 thumbs.\n"
    assert list(tmp_path.iterdir()) == []
    assert forgotten(tmp_path) == f"There is no {path}."
    path.touch()
    assert forgotten(tmp_path) == f"Deleted {path}: 0 thumbs."
    append(path, UP)
    assert forgotten(tmp_path) == f"Deleted {path}: 1 thumb."
    assert not path.exists()


def test_of_a_model_on_the_hub_it_lies_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert path_of("owner/name") == Path("owner--name.feedback.jsonl")
    assert forgotten("owner/name") == "There is no owner--name.feedback.jsonl."


def test_a_recipe_names_the_directory_of_its_run(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(json.dumps(tiny_recipe | {"name": "houses"}), "utf-8")
    assert path_of("r.yaml") == Path("runs/houses/feedback.jsonl")
    assert path_of("r.yaml", ["name=other"]) == Path("runs/other/feedback.jsonl")
    assert forgotten("r.yaml") == "There is no runs/houses/feedback.jsonl."
    run = tmp_path / "runs/houses"
    run.mkdir(parents=True)
    recipe.rename(run / "recipe.yaml")
    assert path_of("runs/houses/recipe.yaml") == Path("runs/houses/feedback.jsonl")
    assert path_of(run, ["name=other"]) == run.parent / "other/feedback.jsonl"


@pytest.mark.parametrize("nobody", ["nope", "runs/nope", "nope.yaml"])
def test_what_is_not_there_can_not_be_forgotten(
    nobody: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(SystemExit) as end:
        main(["demo", nobody, "--forget-feedback"])
    assert end.value.code == 2
    assert f"{nobody} does not exist, and there is no " in capsys.readouterr().err


def test_pasted_passages() -> None:
    text = "one\r\nstill one\n\n  \n\t\ntwo\n \n\n　三　\n\n"
    assert [p.text for p in pasted(text)] == ["one\nstill one", "two", "　三　"]
    assert pasted(" \n\n ") == []
