"""The dtype of a CPU: measured once, said, and kept for the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import ragtune
from ragtune.model import cpu_dtype
from ragtune.model.cpu_dtype import CLEARLY, Speeds, settle
from ragtune.model.hardware import Hardware
from ragtune.recipe.schema import Recipe
from ragtune.stages.context import Context
from ragtune.stages.planning import begun_as
from tests.conftest import tiny_model

CPU = Hardware(torch.device("cpu"), torch.float32, "no GPU", "CPU, 2 threads")
GPU = Hardware(torch.device("cuda", 0), torch.float16, "compute capability 7.5", "T4")
MEASURED = cpu_dtype.measure


def measuring(monkeypatch: pytest.MonkeyPatch, float32: float, bfloat16: float) -> list[int]:
    """Let a measurement find these speeds; returns the widths that are measured."""
    widths: list[int] = []

    def measure(width: int) -> Speeds:
        widths.append(width)
        return Speeds(float32, bfloat16)

    monkeypatch.setattr(cpu_dtype, "measure", measure)
    return widths


def a_recipe(**model: str) -> Recipe:
    return Recipe.model_validate({
        "name": "a", "model": model, "data": {"train": "t.jsonl", "eval": "e.jsonl"},
        "prompt": {"preset": "english"}, "train": {"steps": 1},
    })  # fmt: skip


def test_bfloat16_must_be_clearly_faster() -> None:
    assert Speeds(100, 100 * CLEARLY).chosen == torch.bfloat16
    assert Speeds(100, 100 * CLEARLY - 1).chosen == torch.float32


def test_a_measurement_ends_soon_and_leaves_the_threads() -> None:
    threads = torch.get_num_threads()
    found = MEASURED(32)
    assert found.float32 > 0
    assert found.bfloat16 > 0
    assert torch.get_num_threads() == threads
    assert MEASURED(32) is found  # a process measures once


def test_only_auto_on_a_cpu_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    widths = measuring(monkeypatch, 80, 200)
    config = tiny_model("llama").config
    auto = a_recipe(id="x")
    assert settle(GPU, auto, lambda: config, None) is GPU
    assert settle(CPU, a_recipe(id="x", dtype="float32"), lambda: config, None) is CPU
    full = auto.model_copy(
        update={"tuning": "full"}
    )  # all of its weights are float32 while they learn
    assert settle(CPU, full, lambda: config, None) is CPU
    assert widths == []
    chosen = settle(CPU, auto, lambda: config, None)
    assert chosen.dtype_name == "bfloat16"
    assert chosen.reason == "measured: a thread computes 80 GFLOP/s in float32, 200 in bfloat16"
    assert widths == [32]
    assert settle(CPU, auto, lambda: config, "float32").dtype_name == "float32"
    assert widths == [32]
    del config.hidden_size  # a model with code of its own may call it otherwise
    assert settle(CPU, auto, lambda: config, None).dtype_name == "bfloat16"
    assert widths == [32, 1024]


@pytest.mark.parametrize("begun", ["bfloat16", "float32"])
def test_a_run_keeps_the_dtype_that_it_began_with(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], begun: str,
) -> None:  # fmt: skip
    """Each command is a process of its own, and on the way the measurement changes its mind."""
    del tiny_recipe["model"]["dtype"]
    tiny_recipe["publish"] = {"format": "merged"}
    run, fast = tmp_path / "run", (100, 300)
    measuring(monkeypatch, *fast if begun == "bfloat16" else fast[::-1])
    (dtype,) = [one for one in ragtune.check(tiny_recipe, run_dir=run) if one["name"] == "dtype"]
    assert dtype["message"].startswith(f"{begun} (measured: a thread computes ")
    ragtune.prepare(tiny_recipe, run_dir=run)
    ragtune.train(tiny_recipe, run_dir=run)
    plan = json.loads((run / "run.json").read_text("utf-8"))["plan"]
    assert plan["dtype"] == begun
    assert plan["dtype_reason"] in dtype["message"]

    widths = measuring(monkeypatch, *fast if begun == "float32" else fast[::-1])
    capsys.readouterr()
    ragtune.run(tiny_recipe, run_dir=run)
    said = capsys.readouterr().out
    assert f" as {begun} (as the run was begun)" in said
    assert "continued on" not in said
    assert widths == []
    answered = [p for p in run.glob("eval/*/*/stage.json") if p.parent.name in ("before", "after")]
    for proof in answered:
        facts = json.loads(proof.read_text("utf-8"))["facts"]
        assert facts["answered_on"]["dtype"] == begun
    assert len(answered) == 2
    for plan_file in run.glob("work/plan.json"):  # the proofs know, too
        plan_file.unlink()
    assert Context(run).hardware.dtype_name == begun
    other = Context(tiny_recipe, ["model.id=other/model"], run)
    assert begun_as(other.folder, other.recipe) is None
