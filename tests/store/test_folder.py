"""What is damaged is noticed and made again; what a changed recipe or file makes invalid is not mixed."""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ragtune
from ragtune.answering.prediction import Prediction, partial_line, read_partial
from ragtune.base.errors import UsageError
from ragtune.data import aio
from ragtune.model.source import resolve
from ragtune.recipe.schema import Model
from ragtune.store import seal as checksums
from ragtune.store.folder import RunFolder
from ragtune.store.proof import damage
from tests.conftest import make_records, tiny_recipe, write_records
from tests.faults import digests

Recipe = dict[str, Any]
MERGED = "merged answers"
EVERYTHING = f"data, questions, before, adapter, after, merged, {MERGED}"


def place(run: Path, name: str) -> Path:
    """Where a stage of a tiny run lies."""
    return run / name if name in ("data", "adapter", "merged") else run / "eval" / "eval" / name


@functools.cache
def template(folder: Path, tiny_folder: Path) -> tuple[Recipe, Path]:
    """A finished run and its recipe: one for all tests of this process."""
    folder.mkdir()
    recipe: Recipe = tiny_recipe.__wrapped__(folder, tiny_folder)  # type: ignore[attr-defined]
    ragtune.run(recipe, run_dir=folder / "run")
    return recipe, folder / "run"


@pytest.fixture(scope="session")
def finished(
    tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path
) -> Callable[[Path], tuple[Recipe, Path]]:
    """Gives a copy of a finished run, with its recipe."""
    recipe, run = template(tmp_path_factory.getbasetemp() / "finished", tiny_folder)

    def make(folder: Path) -> tuple[Recipe, Path]:
        return {**recipe, "data": {**recipe["data"]}}, shutil.copytree(run, folder / "run")

    return make


def flip(path: Path) -> None:
    """Change one byte, and neither size nor time."""
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize(
    ("file", "how"),
    [
        ("data/train.jsonl", flip),
        ("eval/eval/before/predictions.jsonl", flip),
        ("adapter/adapter_model.safetensors", flip),
        ("adapter/adapter_model.safetensors", Path.unlink),
        ("eval/eval/after/predictions.jsonl", lambda path: os.truncate(path, 10)),
        ("eval/eval/questions/stage.json", lambda path: os.truncate(path, 10)),
        ("adapter/stage.json", Path.unlink),
        ("merged/model.safetensors", flip),
    ],
)
def test_a_damaged_stage_is_set_aside_and_made_again(
    finished: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    file: str,
    how: Callable[[Path], None],
) -> None:
    recipe, run = finished(tmp_path)
    whole = digests(run)
    folder = (run / file).parent
    how(run / file)
    ragtune.run(recipe, run_dir=run)
    said = capsys.readouterr().out.replace("\n", " ")
    assert f"set aside as damaged-{folder.name}" in said
    assert folder.with_name(f"damaged-{folder.name}").is_dir()
    assert digests(run) == whole
    ragtune.run(recipe, run_dir=run)
    assert "set aside" not in capsys.readouterr().out


@pytest.mark.parametrize("content", ["{", "[]", '{"recipe": 1}', '{"times": 3, "plan": []}'])
def test_run_json_is_only_a_summary(finished: Any, tmp_path: Path, content: str) -> None:
    recipe, run = finished(tmp_path)
    whole, summary = digests(run), (run / "run.json").read_bytes()
    (run / "run.json").write_text(content, "utf-8")
    ragtune.run(recipe, run_dir=run)
    assert digests(run) == whole
    assert (run / "run.json").read_bytes() == summary


def test_a_finished_run_says_so_and_reads_no_large_file(
    finished: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe, run = finished(tmp_path)
    monkeypatch.setattr(checksums, "SMALL", 0)
    for path in run.rglob("*"):
        os.utime(path, (1, 1))
    ragtune.run(recipe, run_dir=run)  # the new times are taken in
    read: list[Path] = []
    monkeypatch.setattr(checksums, "sha256", lambda path: read.append(path) or "")
    capsys.readouterr()
    ragtune.run(recipe, run_dir=run)
    assert not read
    assert f"The run in {run} is finished" in capsys.readouterr().out.replace("\n", " ")


def test_a_large_file_is_read_when_its_time_has_changed_or_on_demand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checksums, "SMALL", 0)
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    files = checksums.checksums(tmp_path)
    flip(path)
    assert checksums.difference(tmp_path, files) is None
    assert checksums.difference(tmp_path, files, thorough=True) == "a has another checksum"
    os.utime(path)
    assert checksums.difference(tmp_path, files) == "a has another checksum"


def test_what_is_published_is_read_whole(
    finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, run = finished(tmp_path)
    monkeypatch.setattr(checksums, "SMALL", 0)
    assert damage(run / "merged", thorough=True) is None
    flip(run / "merged" / "model.safetensors")
    assert damage(run / "merged") is None
    assert damage(run / "merged", thorough=True) == "model.safetensors has another checksum"


def test_a_damaged_line_of_unfinished_answers_is_asked_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "before.jsonl"
    lines = [partial_line(Prediction(f"e{i}", "red", [1], stopped=True)) for i in range(3)]
    path.write_text(lines[0] + lines[1].replace("red", "rad") + lines[2] + lines[2][:9], "utf-8")
    assert [p.qid for p in read_partial(path)] == ["e0", "e2"]
    assert "1 damaged line; that question is asked again." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ("lora.alpha=9", f"adapter, after, merged, {MERGED}"),
        ("train.steps=9", f"adapter, after, merged, {MERGED}"),
        ("evaluate.limit=4", f"before, after, {MERGED}"),
        ("evaluate.max_new_tokens=7", f"before, after, {MERGED}"),
        ("evaluate.max_new_tokens=900", EVERYTHING),
        ("data.max_passages=1", EVERYTHING),
        ("seed=8", EVERYTHING),
        ("model.dtype=bfloat16", f"before, adapter, after, merged, {MERGED}"),
    ],
)
def test_a_changed_recipe_says_which_stages_are_no_longer_valid(
    finished: Any, tmp_path: Path, change: str, stages: str
) -> None:
    recipe, run = finished(tmp_path)
    whole = digests(run)
    with pytest.raises(UsageError) as refused:
        ragtune.run(recipe, change, run_dir=run)
    key, value = change.split("=")
    assert f"  {key}: " in refused.value.message
    assert value in refused.value.message
    assert refused.value.message.endswith(f"no longer valid: {stages}")
    assert "--redo" in refused.value.advice
    assert digests(run) == whole


@pytest.mark.parametrize(
    ("change", "gone", "kept"),
    [
        ("train.steps=9", {"adapter", "merged", "after"}, {"data", "questions", "before"}),
        ("evaluate.limit=4", {"before", "after"}, {"data", "questions", "adapter", "merged"}),
        (
            "seed=8 evaluate.answers=first",
            {"data", "questions", "before", "after", "adapter", "merged"},
            set(),
        ),
    ],
)
def test_redo_sets_aside_and_gives_what_a_new_run_gives(
    finished: Any, tmp_path: Path, change: str, gone: set[str], kept: set[str]
) -> None:
    recipe, run = finished(tmp_path)
    times = {name: place(run, name).stat().st_ino for name in kept}
    ragtune.run(recipe, *change.split(), run_dir=run, redo=True)
    old = run / "old-1"
    assert (old / "recipe.yaml").exists()
    assert (old / "run.json").exists()
    assert all(place(old, name).is_dir() for name in gone)
    assert not any(place(old, name).exists() for name in kept)
    assert {name: place(run, name).stat().st_ino for name in kept} == times
    ragtune.run(recipe, *change.split(), run_dir=tmp_path / "new")
    assert digests(run) == digests(tmp_path / "new")
    # The recipe is that of what is there now; nothing more is to be done.
    ragtune.run(recipe, *change.split(), run_dir=run, redo=True)
    assert not (run / "old-2").exists()
    merge = [
        json.loads((r / "run.json").read_text("utf-8"))["merge"] for r in (run, tmp_path / "new")
    ]
    assert merge[0] == merge[1]


def test_another_metric_is_another_view(finished: Any, tmp_path: Path) -> None:
    recipe, run = finished(tmp_path)
    answers = place(run, "after") / "predictions.jsonl"
    before = answers.stat().st_ino
    changes = ("evaluate.metric=contains", "evaluate.answers=first")
    comparison = ragtune.compare(recipe, *changes, run_dir=run)
    assert comparison["metric"] == "contains"
    ragtune.run(recipe, *changes, run_dir=run)
    assert answers.stat().st_ino == before
    ragtune.run(recipe, *changes, run_dir=tmp_path / "new")
    assert digests(run) == digests(tmp_path / "new")


def test_other_questions_lie_beside_the_first_and_touch_no_adapter(
    finished: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, run = finished(tmp_path)
    whole = digests(run)
    other = write_records(tmp_path / "other set.jsonl", make_records(6, "o"))
    adapter = (run / "adapter").stat().st_ino
    metrics = ragtune.evaluate(recipe, f"data.eval={other}", run_dir=run)
    assert metrics["asked"] == 6
    assert (run / "adapter").stat().st_ino == adapter
    assert (run / "eval" / "other-set" / "after" / "predictions.jsonl").exists()
    found = digests(run)
    assert {k: v for k, v in found.items() if "other-set" not in k} == whole
    # The first set's answers stand, and are not asked again.
    capsys.readouterr()
    ragtune.run(recipe, run_dir=run)
    assert "answering" not in capsys.readouterr().out
    assert digests(run) == found


def test_damaged_answers_are_not_compared(finished: Any, tmp_path: Path) -> None:
    recipe, run = finished(tmp_path)
    flip(place(run, "after") / "predictions.jsonl")
    with pytest.raises(UsageError, match="no answers before and after tuning"):
        ragtune.compare(recipe, run_dir=run)
    assert not place(
        run, "comparison.json"
    ).exists()  # it was of answers that are not there any more


def test_a_damaged_adapter_does_not_make_evaluate_answer_without_it(
    finished: Any, tmp_path: Path
) -> None:
    recipe, run = finished(tmp_path)
    flip(run / "adapter" / "adapter_model.safetensors")
    after = json.loads((place(run, "after") / "metrics.json").read_text("utf-8"))
    assert {"format": 1, **ragtune.evaluate(recipe, run_dir=run)} == after
    assert (run / "damaged-adapter").is_dir()


def test_what_was_set_aside_is_no_stage(finished: Any, tmp_path: Path) -> None:
    recipe, run = finished(tmp_path)
    ragtune.controls(recipe, run_dir=run)
    for which in ("before", "after"):
        flip(place(run, f"controls-{which}") / "predictions.jsonl")
    place(run, "damaged-controls-after").write_text("of another kind", "utf-8")
    ragtune.report(recipe, run_dir=run)
    found = {p.name for p in (run / "eval" / "eval").iterdir() if "controls" in p.name}
    assert found == {"damaged-controls-after", "damaged-controls-before"}
    times = json.loads((run / "run.json").read_text("utf-8"))["times"]
    assert not [name for name in times if name.startswith("controls")]


def test_unfinished_training_is_not_mixed_either(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    run = tmp_path / "run"

    def cut(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ragtune.training.train.save_adapter", cut)
    with pytest.raises(KeyboardInterrupt):
        ragtune.train(tiny_recipe, run_dir=run)
    monkeypatch.undo()
    (begun,) = (run / "work").glob("adapter-*")
    capsys.readouterr()
    ragtune.train(tiny_recipe, "lora.alpha=9", run_dir=run)
    said = capsys.readouterr().out.replace("\n", " ")
    assert f"unfinished work of another recipe or other data ({begun.name})" in said
    assert list(begun.glob("checkpoint-*"))
    ragtune.train(tiny_recipe, "lora.alpha=9", run_dir=tmp_path / "new")
    for name in ("adapter_model.safetensors", "train_log.jsonl"):
        assert (run / "adapter" / name).read_bytes() == (
            tmp_path / "new/adapter" / name
        ).read_bytes()


def test_a_data_file_that_changed_under_the_same_path_is_named(
    tiny_recipe: Recipe, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    ragtune.prepare(tiny_recipe, run_dir=run)
    path = Path(tiny_recipe["data"]["train"])
    os.utime(path, (1, 1))  # another time alone is no change
    ragtune.prepare(tiny_recipe, run_dir=run)
    path.write_text(path.read_text("utf-8").replace("colour", "color"), "utf-8")
    with pytest.raises(
        UsageError, match=r"data.train: .*train.jsonl has changed \(sha256 .*: data"
    ):
        ragtune.prepare(tiny_recipe, run_dir=run)
    ragtune.prepare(tiny_recipe, run_dir=run, redo=True)
    assert "color" in (run / "data" / "train.jsonl").read_text("utf-8")
    path.unlink()  # what was made of it stands
    ragtune.prepare(tiny_recipe, run_dir=run)


def test_a_model_that_changed_under_the_same_path_is_named(
    tiny_recipe: Recipe, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_recipe["model"]["id"], model)
    tiny_recipe["model"]["id"] = str(model)
    ragtune.prepare(tiny_recipe, run_dir=tmp_path / "run")
    flip(model / "model.safetensors")
    with pytest.raises(UsageError, match=r"model.id: .*model.safetensors has changed"):
        ragtune.prepare(tiny_recipe, run_dir=tmp_path / "run")


def test_data_that_come_out_otherwise_take_the_later_stages_away(
    finished: Any, tmp_path: Path
) -> None:
    recipe, run = finished(tmp_path)
    file = Path(recipe["data"]["train"])
    old = file.read_text("utf-8")
    for folder in (run / "data", place(run, "questions")):
        shutil.rmtree(folder)
    try:
        file.write_text(old.replace("colour", "color"), "utf-8")
        ragtune.train(recipe, run_dir=run)
    finally:
        file.write_text(old, "utf-8")
    assert (run / "old-1" / "adapter").is_dir()
    assert (run / "adapter").is_dir()


def test_a_run_of_an_older_layout_is_refused_and_left_alone(finished: Any, tmp_path: Path) -> None:
    recipe, run = finished(tmp_path)
    shutil.move(place(run, "before"), run / "before")
    files = digests(run)
    with pytest.raises(UsageError, match="made by an older ragtune: it holds before") as error:
        ragtune.run(recipe, run_dir=run, redo=True)
    assert "name=ANOTHER" in error.value.advice
    assert digests(run) == files


def test_a_damaged_download_is_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAGTUNE_CACHE", str(tmp_path))
    path = tmp_path / "aio" / aio.FILES["train"]
    path.parent.mkdir()
    path.write_bytes(b"an older version's")
    fetched = []

    def download(_: str, target: Path, __: Any) -> None:
        fetched.append(target)
        target.write_bytes(b"whole")
        checksums.seal(target)

    monkeypatch.setattr(aio, "download", download)
    assert aio.fetch("train") == path
    assert not fetched
    flip(path)
    assert aio.fetch("train") == path
    assert fetched == [path]
    assert path.with_name(f"damaged-{path.name}").exists()
    aio.fetch("train")
    assert len(fetched) == 1


@pytest.mark.parametrize("manifest", ["{", '{"files": {"a": 1}}', '{"files": []}'])
def test_a_cached_file_whose_manifest_is_damaged_is_not_trusted(
    tmp_path: Path, manifest: str
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x")
    assert checksums.cached(path)
    path.with_name("a.manifest.json").write_text(manifest, "utf-8")
    assert not checksums.is_whole(path)
    assert not checksums.cached(path)
    assert (tmp_path / "damaged-a").exists()


def test_a_damaged_converted_model_is_converted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_folder: Path
) -> None:
    monkeypatch.setenv("RAGTUNE_CACHE", str(tmp_path / "cache"))
    gguf = tmp_path / "a.gguf"
    gguf.write_bytes(b"x")
    folder = tmp_path / "cache" / "models" / f"a-{checksums.sha256(gguf)[:12]}"
    shutil.copytree(tiny_folder, folder)
    checksums.seal(folder)
    assert resolve(Model(id=str(gguf))).path == str(folder)
    flip(folder / "model.safetensors")
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    with pytest.raises(UsageError, match="gguf"):  # it goes on to convert
        resolve(Model(id=str(gguf)))
    assert (folder.parent / f"damaged-{folder.name}").is_dir()


def test_a_path_that_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    """The tokenizer would be saved there after the training, by a library that takes text."""
    with pytest.raises(UsageError, match="no UTF-8"):
        RunFolder(Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff")), "dev").require_ours()
