"""What is damaged is noticed and made again; what a changed recipe or file makes invalid is not mixed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ragtune
from ragtune.answering.generate import Prediction, partial_line, read_partial
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.data import aio
from ragtune.model.source import resolve
from ragtune.recipe.schema import Model
from ragtune.store import seal as checksums
from ragtune.store.changes import there
from tests.faults import digests

Recipe = dict[str, Any]


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path
) -> Callable[[Path], tuple[Recipe, Path]]:
    """Gives a copy of a finished run, with its recipe and its data."""
    from tests.conftest import tiny_recipe

    template = tmp_path_factory.mktemp("finished")
    recipe: Recipe = tiny_recipe.__wrapped__(template, tiny_folder)  # type: ignore[attr-defined]
    ragtune.run(recipe, run_dir=template / "run")

    def copy(folder: Path) -> tuple[Recipe, Path]:
        shutil.copytree(template / "run", folder / "run")
        data = {}
        for split in ("train", "eval"):
            data[split] = recipe["data"][split]
        return {**recipe, "data": {**recipe["data"], **data}}, folder / "run"

    return copy


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
        ("before/predictions.jsonl", flip),
        ("adapter/adapter_model.safetensors", flip),
        ("adapter/adapter_model.safetensors", Path.unlink),
        ("after/metrics.json", lambda path: os.truncate(path, 10)),
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
    folder = file.split("/", maxsplit=1)[0]
    how(run / file)
    ragtune.run(recipe, run_dir=run)
    said = capsys.readouterr().out.replace("\n", " ")
    assert f"set aside as damaged-{folder}" in said
    assert (run / f"damaged-{folder}").is_dir()
    assert digests(run) == whole
    ragtune.run(recipe, run_dir=run)
    assert "set aside" not in capsys.readouterr().out


def test_a_damaged_run_json_is_set_aside(finished: Any, tmp_path: Path) -> None:
    recipe, run = finished(tmp_path)
    whole = digests(run)
    (run / "run.json").write_text("{", "utf-8")
    ragtune.run(recipe, run_dir=run)
    assert (run / "damaged-run.json").read_text("utf-8") == "{"
    assert digests(run) == whole


def test_a_finished_run_says_so_and_reads_no_large_file(
    finished: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe, run = finished(tmp_path)
    monkeypatch.setattr(checksums, "SMALL", 0)
    ragtune.run(recipe, run_dir=run)  # the copy's times are taken in
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
    from ragtune.store.folder import RunDir

    _, run = finished(tmp_path)
    RunDir(run).see_whole("merged")
    flip(run / "merged" / "model.safetensors")
    with pytest.raises(RagtuneError, match=r"merged is damaged: model\.safetensors has another"):
        RunDir(run).see_whole("merged")
    assert (run / "damaged-merged").is_dir()


def test_a_damaged_line_of_unfinished_answers_is_asked_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "before.jsonl"
    lines = [partial_line(Prediction(f"e{i}", "red", [1], stopped=True)) for i in range(3)]
    path.write_text(lines[0] + lines[1].replace("red", "rad") + lines[2] + lines[2][:9], "utf-8")
    assert [p.qid for p in read_partial(path)] == ["e0", "e2"]
    assert "1 damaged lines" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ("lora.alpha=9", "adapter, after, merged"),
        ("train.steps=9", "adapter, after, merged"),
        ("evaluate.limit=4", "before, after"),
        ("evaluate.max_new_tokens=7", "before, after"),
        ("evaluate.max_new_tokens=900", "data, before, adapter, after, merged"),
        ("data.max_passages=1", "data, before, adapter, after, merged"),
        ("seed=8", "data, before, adapter, after, merged"),
        ("model.dtype=bfloat16", "before, adapter, after, merged"),
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
        ("train.steps=9", {"adapter", "after", "merged"}, {"data", "before"}),
        ("evaluate.limit=4", {"before", "after"}, {"data", "adapter", "merged"}),
        ("seed=8 evaluate.answers=first", {"data", "before", "after", "adapter", "merged"}, set()),
    ],
)
def test_redo_sets_aside_and_gives_what_a_new_run_gives(
    finished: Any, tmp_path: Path, change: str, gone: set[str], kept: set[str]
) -> None:
    recipe, run = finished(tmp_path)
    times = {name: (run / name).stat().st_ino for name in kept}
    ragtune.run(recipe, *change.split(), run_dir=run, redo=True)
    there = {p.name for p in (run / "old-1").iterdir()}
    assert gone | {"recipe.yaml", "run.json", "comparison.json", "report.html"} <= there
    assert not kept & there
    assert {name: (run / name).stat().st_ino for name in kept} == times
    ragtune.run(recipe, *change.split(), run_dir=tmp_path / "new")
    assert digests(run) == digests(tmp_path / "new")
    # The recipe is that of what is there now; nothing more is to be done.
    ragtune.run(recipe, *change.split(), run_dir=run, redo=True)
    assert not (run / "old-2").exists()
    merge = [
        json.loads((r / "run.json").read_text("utf-8"))["merge"] for r in (run, tmp_path / "new")
    ]
    assert merge[0] == merge[1]


def test_another_metric_only_scores_again(
    finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, run = finished(tmp_path)
    before = (run / "after" / "predictions.jsonl").stat().st_ino
    changes = ("evaluate.metric=contains", "evaluate.answers=first")
    comparison = ragtune.compare(recipe, *changes, run_dir=run)
    assert (run / "after" / "predictions.jsonl").stat().st_ino == before
    ragtune.run(recipe, *changes, run_dir=run)
    ragtune.run(recipe, *changes, run_dir=tmp_path / "new")
    assert digests(run) == digests(tmp_path / "new")
    assert comparison["metric"] == "contains"


def test_damaged_answers_are_not_compared(finished: Any, tmp_path: Path) -> None:
    recipe, run = finished(tmp_path)
    flip(run / "after" / "predictions.jsonl")
    with pytest.raises(UsageError, match="no answers before and after tuning"):
        ragtune.compare(recipe, run_dir=run)
    assert not (run / "comparison.json").exists()  # it was of answers that are not there any more


def test_another_metric_and_damaged_data_end_in_what_to_do(finished: Any, tmp_path: Path) -> None:
    recipe, run = finished(tmp_path)
    flip(run / "data" / "eval.jsonl")
    for _ in range(2):  # it is not stuck, and says the same again
        with pytest.raises(UsageError, match="without it no answer can be scored") as error:
            ragtune.run(recipe, "evaluate.metric=contains", run_dir=run)
        assert "without changing evaluate.metric" in error.value.advice
    ragtune.prepare(recipe, run_dir=run)
    assert ragtune.run(recipe, "evaluate.metric=contains", run_dir=run)["metric"] == "contains"


def test_a_damaged_adapter_does_not_make_evaluate_answer_without_it(
    finished: Any, tmp_path: Path
) -> None:
    recipe, run = finished(tmp_path)
    flip(run / "adapter" / "adapter_model.safetensors")
    after = json.loads((run / "after" / "metrics.json").read_text("utf-8"))
    assert ragtune.evaluate(recipe, run_dir=run) == after
    assert (run / "damaged-adapter").is_dir()


def test_what_was_set_aside_is_no_stage(finished: Any, tmp_path: Path) -> None:
    recipe, run = finished(tmp_path)
    ragtune.controls(recipe, run_dir=run)
    flip(run / "controls" / "after" / "predictions.jsonl")
    flip(run / "controls" / "before" / "predictions.jsonl")
    (run / "controls" / "damaged-after").write_text("of another kind", "utf-8")
    ragtune.report(recipe, run_dir=run)
    assert {p.name for p in (run / "controls").iterdir()} == {"damaged-after", "damaged-before"}
    assert not any(p.is_file() for p in (run / "controls").iterdir())
    assert not [p for p in there(run, "controls") if p.is_dir()]
    times = json.loads((run / "run.json").read_text("utf-8"))["times"]
    assert not [name for name in times if name.startswith("controls")]


def test_unfinished_training_is_not_mixed_either(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"

    def cut(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ragtune.training.train.save_adapter", cut)
    with pytest.raises(KeyboardInterrupt):
        ragtune.train(tiny_recipe, run_dir=run)
    monkeypatch.undo()
    with pytest.raises(
        UsageError, match=r"lora.alpha: 8.0 there, 9.0 now: no longer valid: adapter"
    ):
        ragtune.train(tiny_recipe, "lora.alpha=9", run_dir=run)
    ragtune.train(tiny_recipe, "lora.alpha=9", run_dir=run, redo=True)
    assert (run / "old-1" / "work" / "checkpoints").is_dir()
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
    changed = tmp_path / "train.jsonl"
    changed.write_text(
        Path(recipe["data"]["train"]).read_text("utf-8").replace("colour", "color"), "utf-8"
    )
    state = json.loads((run / "run.json").read_text("utf-8"))
    del state["inputs"]  # as an older version left it
    (run / "run.json").write_text(json.dumps(state), "utf-8")
    old = Path(recipe["data"]["train"]).read_bytes()
    shutil.rmtree(run / "data")
    try:
        Path(recipe["data"]["train"]).write_bytes(changed.read_bytes())
        ragtune.prepare(recipe, run_dir=run)
    finally:
        Path(recipe["data"]["train"]).write_bytes(old)
    assert (run / "old-1" / "adapter").is_dir()
    assert not (run / "adapter").exists()


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
