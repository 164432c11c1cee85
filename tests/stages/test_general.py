"""General tasks before and after tuning: made once, paired document by document, and shown."""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path
from typing import Any

import pytest

import ragtune
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.files import read_jsonl
from ragtune.cli import main
from ragtune.recipe.load import load_recipe
from ragtune.scoring.paired import paired
from ragtune.stages.logs import compare_logs
from tests.conftest import make_records, write_records
from tests.general_tasks import write_task

SET = "eval/eval"


def general(recipe: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The recipe, with a task that stands alone and a group of two."""
    for name in ("flags", "birds", "boats"):
        write_task(folder, name)
    (folder / "all.yaml").write_text('{"group": "both", "task": ["birds", "boats"]}', "utf-8")
    settings = {"general": ["flags", "both"], "general_folder": str(folder), "general_limit": 10}
    recipe = copy.deepcopy(recipe)
    recipe["evaluate"] |= settings
    return recipe


@functools.cache
def _finished(folder: Path, tiny_folder: Path) -> tuple[Path, Path]:
    """A run with general tasks, and the same without."""
    folder.mkdir()
    data = {
        split: str(write_records(folder / f"{split}.jsonl", make_records(count, prefix)))
        for split, count, prefix in (("train", 24, "t"), ("eval", 6, "e"))
    }
    recipe = {
        "name": "tiny",
        "model": {"id": str(tiny_folder)},
        "data": {**data, "max_passages": 2},
        "prompt": {"preset": "english"},
        "lora": {"rank": 4, "alpha": 8, "dropout": 0.1},
        "train": {"steps": 6, "batch_size": 4, "learning_rate": 0.02},
        "evaluate": {"max_new_tokens": 3},
        "publish": {"format": "adapter"},
    }
    ragtune.run(general(recipe, folder / "tasks"), run_dir=folder / "with")
    ragtune.run(recipe, run_dir=folder / "without")
    return folder / "with", folder / "without"


@pytest.fixture
def runs(
    tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Path]:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: make general")
    base = tmp_path_factory.getbasetemp()
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", base / "datasets")
    return _finished(base / "general", tiny_folder)


def test_what_was_forgotten_is_paired_and_shown(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = runs
    found = json.loads((run / SET / "general.json").read_text("utf-8"))
    assert [(one["task"], one["parts"]) for one in found["tasks"]] == [("flags", 1), ("both", 2)]
    assert [m["n"] for one in found["tasks"] for m in one["metrics"]] == [10, 10, 20, 20]
    assert [m["metric"] for m in found["tasks"][0]["metrics"]] == ["acc", "acc_norm"]
    values = []
    for which in ("before", "after"):
        place = run / SET / f"general-{which}"
        (log,) = place.glob("samples_flags_*.jsonl")
        rows = [*read_jsonl(log)]
        values.append({"acc": {str(row["doc_id"]): float(row["acc"]) for row in rows}})
    assert values[0] != values[1]  # tuning changed something
    assert paired(*values) == found["tasks"][0]["metrics"][:1]
    # The logs are lm-evaluation-harness' own kind: `compare` reads them.
    sides = [run / SET / f"general-{which}" for which in ("before", "after")]
    tasks = {one["task"]: one for one in compare_logs(sides)["comparisons"][0]["tasks"]}
    acc = tasks["flags"]["metrics"][0]
    assert (acc["higher"], acc["lower"]) == tuple(
        found["tasks"][0]["metrics"][0][k] for k in ("higher", "lower")
    )
    page = (run / "report.html").read_text("utf-8")
    assert "What was forgotten" in page
    assert "both<small>acc, 2 tasks pooled</small>" in page
    for words in (["report", str(run), "--format", "md"], ["report", str(run)]):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert not end.value.code
    out = capsys.readouterr().out
    assert "| flags, acc | 10 |" in out
    assert "General tasks, in %" in out


def test_training_and_answers_are_the_same_without(runs: tuple[Path, Path]) -> None:
    run, without = runs
    for name in (
        "adapter/adapter_model.safetensors",
        f"{SET}/before/predictions.jsonl",
        f"{SET}/after/predictions.jsonl",
    ):
        assert (run / name).read_bytes() == (without / name).read_bytes()
    assert "What was forgotten" not in (without / "report.html").read_text("utf-8")


def test_a_finished_run_is_asked_later_and_nothing_else_is_made(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run, without = runs
    made = {p: p.stat().st_mtime_ns for p in (without / "adapter").iterdir()}
    recipe = load_recipe(run / "recipe.yaml")
    ragtune.run(recipe, run_dir=without)
    assert {p: p.stat().st_mtime_ns for p in (without / "adapter").iterdir()} == made
    one, other = (json.loads((r / SET / "general.json").read_text("utf-8")) for r in (run, without))
    assert one == other
    # A recipe that asks none leaves what was asked, and shows it.
    values = recipe.model_dump(mode="json")
    values["evaluate"] |= {"general": [], "general_folder": None, "general_limit": 200}
    ragtune.run(values, run_dir=without)
    assert "What was forgotten" in (without / "report.html").read_text("utf-8")
    assert not list(without.glob("old-*"))
    values["train"]["steps"] = 5  # but not what was asked of another adapter
    with pytest.raises(UsageError, match=r"no longer valid: adapter, after, general after"):
        ragtune.run(values, run_dir=without)
    capsys.readouterr()
    ragtune.run(recipe, run_dir=run)
    assert "no stage is repeated" in capsys.readouterr().out
    # Other documents under the same name are no longer what was asked.
    data = run.parent / "tasks" / "flags.jsonl"
    text = data.read_text("utf-8")
    data.write_text(text.replace("What colour", "Which colour"), "utf-8")
    try:
        with pytest.raises(UsageError, match=r"evaluate.general_folder: .*flags.jsonl has changed"):
            ragtune.run(recipe, run_dir=run)
        assert "no longer valid: general before, general after" in _refusal(recipe, run)
    finally:
        data.write_text(text, "utf-8")


def _refusal(recipe: Any, run: Path) -> str:
    with pytest.raises(UsageError) as error:
        ragtune.run(recipe, run_dir=run)
    return error.value.message


def test_a_task_whose_data_are_out_of_reach_fails_before_anything_is_made(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: make general")
    recipe = general(tiny_recipe, tmp_path / "tasks")
    write_task(tmp_path / "tasks", "flags", dataset_path="nobody/nothing", dataset_kwargs={})
    with pytest.raises(RagtuneError, match="the data of flags can't be had") as error:
        ragtune.run(recipe, run_dir=tmp_path / "run")
    assert "Load them once where that can be reached" in error.value.advice
    assert not (tmp_path / "run" / "data").exists()


def test_without_the_package_a_run_says_so_before_anything_is_made(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ragtune.answering.harness.is_installed", lambda: False)
    recipe = general(tiny_recipe, tmp_path / "tasks")
    with pytest.raises(UsageError, match=r"evaluate\.general needs lm-eval"):
        ragtune.run(recipe, run_dir=tmp_path / "run")
    assert not (tmp_path / "run" / "data").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"general": ["a", "a"]}, "general names a task twice"),
        ({"general": [""]}, "general"),
        ({"general": ["a"], "engine": "openai", "endpoint": "http://localhost/v1"}, "general needs engine: local"),
        ({"general": ["a"], "general_limit": 0}, "general_limit"),
    ],
)  # fmt: skip
def test_what_a_recipe_can_not_say(
    tiny_recipe: dict[str, Any], settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        load_recipe({**tiny_recipe, "evaluate": settings})
