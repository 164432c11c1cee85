"""What is left over in the environment neither hangs a run nor changes it unseen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ragtune
from ragtune.base.errors import UsageError
from ragtune.base.processes import require_own_settings

REFUSED = [
    ("ACCELERATE_MIXED_PRECISION", "bf16"),
    ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR"),
    ("ACCELERATE_USE_CPU", "true"),
    ("ACCELERATE_USE_FSDP", "1"),
    ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4"),
    ("ACCELERATE_TORCH_DEVICE", "cuda:1"),
]
HARMLESS = {
    "WORLD_SIZE": "1",
    "RANK": "0",
    "LOCAL_RANK": "-1",
    "MASTER_ADDR": "localhost",
    "ACCELERATE_MIXED_PRECISION": "no",
    "ACCELERATE_DYNAMO_BACKEND": "NO",
    "ACCELERATE_USE_CPU": "False",
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1",
}


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_it_is_refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError) as raised:
        require_own_settings()
    assert raised.value.message == f"The environment variable {name} is set: {name}={value}."
    assert f"unset {name}" in raised.value.advice


@pytest.mark.parametrize("command", ["prepare", "train", "evaluate", "merge", "run", "controls"])
def test_every_command_that_makes_something_refuses(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    with pytest.raises(UsageError, match="ACCELERATE_USE_CPU=1"):
        getattr(ragtune, command)(tiny_recipe, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_check_says_it(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    first, *others = ragtune.check(tiny_recipe, run_dir=tmp_path / "run")
    assert (first["name"], first["level"]) == ("environment", "fail")
    assert "unset ACCELERATE_USE_CPU" in first["advice"]
    assert others[0]["level"] == "ok"


def test_what_launchers_leave_of_one_process_changes_nothing() -> None:
    """In a process of its own: Accelerate keeps what it read first."""
    code = (
        "import torch, transformers, ragtune.base.processes as s, ragtune.distributed.place as p;"
        "s.require_own_settings(); assert p.take_place() is None;"
        "a = transformers.TrainingArguments(output_dir='x', use_cpu=True, report_to='none');"
        "print(a.device, a.world_size, a.mixed_precision, a.parallel_mode.name,"
        " torch.distributed.is_initialized())"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True,
        env=os.environ | HARMLESS,
    )  # fmt: skip
    assert found.stdout.split() == ["cpu", "1", "no", "NOT_PARALLEL", "False"]
