"""What in a run directory leads elsewhere, or is no file: nothing is written through it, and it is named."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ragtune
from ragtune.base.errors import RagtuneError, UsageError
from tests.faults import digests
from tests.store.test_folder import finished

__all__ = ["finished"]

FILES = (
    "recipe.yaml", "run.json", "report.html", "published.json", "run.lock", "lock.json",
    "eval/eval/comparison.json", "eval/eval/before/predictions.jsonl", "eval/eval/after/metrics.json",
    "adapter/stage.json", "adapter/adapter_model.safetensors", "work/plan.json",
)  # fmt: skip
FOLDERS = (
    "data", "eval", "adapter", "merged", "work", "eval/eval", "eval/eval/questions", "eval/eval/after",
    "work/adapter", "logs",
)  # fmt: skip


def content(path: Path) -> dict[str, bytes]:
    """What a file or a folder holds."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return {str(p): p.read_bytes() for p in files}


def writers(recipe: dict[str, Any], run: Path) -> list[Callable[[], object]]:
    """Every command that writes, each with something left to do."""
    changed = {**recipe, "train": {**recipe["train"], "steps": 4}}
    return [
        lambda: ragtune.run(recipe, run_dir=run),
        lambda: ragtune.prepare(recipe, run_dir=run),
        lambda: ragtune.train(changed, run_dir=run, redo=True),
        lambda: ragtune.evaluate(recipe, run_dir=run),
        lambda: ragtune.controls(recipe, run_dir=run),
        lambda: ragtune.compare(recipe, run_dir=run),
        lambda: ragtune.report(recipe, run_dir=run),
        lambda: ragtune.merge(recipe, run_dir=run),
        lambda: ragtune.push(recipe, "publish.repo=a/b", run_dir=run),
        lambda: ragtune.push(recipe, "publish.repo=a/b", run_dir=run, dry_run=True),
    ]


@pytest.mark.parametrize("name", [*FILES, *FOLDERS])
def test_a_link_is_named_by_every_command_that_writes(
    finished: Any, tmp_path: Path, name: str
) -> None:
    recipe, run = finished(tmp_path)
    path, canary = run / name, tmp_path / "canary"
    if path.exists():
        shutil.move(path, canary)
    elif name in FOLDERS:
        canary.mkdir()
        (canary / "own").write_text("mine")
    else:
        canary.write_text("mine")
    path.symlink_to(canary)
    before = content(canary)
    for command in writers(recipe, run):
        with pytest.raises(UsageError, match=r"is a link to .*canary: in a run directory none is"):
            command()
    (fault,) = (f for f in ragtune.check(recipe, run_dir=run) if f["level"] == "fail")
    assert f"{path} is a link to {canary}" in str(fault["message"])
    assert content(canary) == before


def test_a_run_directory_may_be_a_link_and_lie_behind_one(finished: Any, tmp_path: Path) -> None:
    recipe, run = finished(tmp_path)
    whole = digests(run)
    disk = tmp_path / "disk"
    disk.mkdir()
    shutil.move(run, disk / "run")
    run.symlink_to(disk / "run")
    (tmp_path / "behind").symlink_to(disk)
    for one in (run, tmp_path / "behind" / "run"):
        ragtune.run(recipe, run_dir=one)
        assert digests(one) == whole


@pytest.mark.parametrize(
    "name",
    [
        "run.json", "recipe.yaml", "report.html", "published.json", "run.lock", "work", "eval/eval",
        "eval/eval/before", "eval/eval/checkpoints", "eval/eval/comparison.json",
    ],
)  # fmt: skip
def test_a_pipe_or_what_is_in_the_wrong_place_is_named(
    finished: Any, tmp_path: Path, name: str
) -> None:
    recipe, run = finished(tmp_path)
    path = run / name
    for make, words in (
        (os.mkfifo, "is no plain file, but a pipe"),
        (Path.mkdir, "is a folder, where a run has a file")
        if "." in name
        else (Path.touch, "is a file, where a run has a folder"),
    ):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        make(path)
        for command in writers(recipe, run)[:5]:
            with pytest.raises(UsageError, match=f"{name} {words}"):
                command()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("adapter/tokenizer.json", None), ("eval/eval/after/predictions.jsonl", None),
        ("eval/eval/before/stage.json", None), (".run.json.partial", None),
        ("eval/eval/before/metrics.json", r"Could not write .*metrics\.json: a folder has this name"),
        ("work/merged-0123456789", None),
    ],
)  # fmt: skip
def test_a_folder_in_the_place_of_a_stage_s_file_ends_in_a_message_or_in_what_was_there(
    finished: Any, tmp_path: Path, name: str, words: str | None
) -> None:
    recipe, run = finished(tmp_path)
    whole, path = digests(run), run / name
    if path.exists():
        path.unlink()
    path.parent.mkdir(exist_ok=True)
    path.touch() if name.startswith("work") else path.mkdir()
    if words is None:
        ragtune.run(recipe, run_dir=run)
        assert digests(run) == whole
    else:
        with pytest.raises(RagtuneError, match=words):
            ragtune.run(recipe, run_dir=run)


@pytest.mark.parametrize(
    "name", [".report.html.partial", ".run.json.partial", ".recipe.yaml.partial", "old-1"]
)
def test_what_a_link_would_have_been_written_through_is_left_alone(
    finished: Any, tmp_path: Path, name: str
) -> None:
    recipe, run = finished(tmp_path)
    whole = digests(run)
    canary = tmp_path / "canary"
    canary.mkdir() if name == "old-1" else canary.write_text("mine")
    before = content(canary)
    (run / name).symlink_to(canary)
    ragtune.report(recipe, run_dir=run)
    if name == "old-1":
        ragtune.prepare(recipe, "evaluate.limit=5", run_dir=run, redo=True)
        assert (run / "old-2").is_dir()
    assert content(canary) == before
    if name != "old-1":
        assert digests(run) == whole


def test_a_file_with_another_name_keeps_what_it_has(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies by hard links are how some back up a folder."""
    from ragtune.answering import prediction

    run, kept = tmp_path / "run", tmp_path / "kept"
    add = prediction.Kept.add

    def stop(self: Any, predictions: Any) -> None:
        add(self, predictions)
        raise RagtuneError("stopped")

    monkeypatch.setattr(prediction.Kept, "add", stop)
    with pytest.raises(RagtuneError, match="stopped"):
        ragtune.evaluate(tiny_recipe, run_dir=run)
    monkeypatch.undo()
    shutil.copytree(run / "work", kept, copy_function=os.link)
    (half,) = (run / "work").rglob("*.jsonl")
    with half.open("a") as file:
        file.write("half a line")
    before = content(kept)
    assert ragtune.evaluate(tiny_recipe, run_dir=run)["n"] == 10
    assert content(kept) == before
