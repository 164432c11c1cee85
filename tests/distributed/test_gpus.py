"""A run on several GPUs is the run on one, as it is with processes on a CPU: `pytest -m gpu tests/distributed`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import ragtune
from tests.conftest import tiny_recipe
from tests.distributed.runs import (
    ASKED,
    answers_of,
    changed,
    logged,
    require_equal,
    require_same_answers,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gpus")


def run(folder: Path, tiny_folder: Path, dtype: str, devices: object, steps: int = 8) -> Path:
    """A whole run in a dtype on these devices, made once; its directory."""
    run_dir = folder / f"{dtype}-{devices}-{steps}"
    if not run_dir.exists():
        content: dict[str, Any] = tiny_recipe.__wrapped__(folder, tiny_folder)  # type: ignore[attr-defined]
        content["model"]["dtype"], content["devices"] = dtype, devices
        content["train"]["steps"] = steps
        path = folder / f"{run_dir.name}.yaml"
        path.write_text(yaml.safe_dump(content), "utf-8")
        ragtune.run(path, run_dir=run_dir)
    return run_dir


@pytest.mark.parametrize("devices", ["all", 2, [1, 0]], ids=str)
def test_a_run_in_float32_is_that_of_one(folder: Path, tiny_folder: Path, devices: object) -> None:
    one, several = (run(folder, tiny_folder, "float32", of) for of in (1, devices))
    require_equal(several, one)
    require_same_answers(several, one)


def test_a_run_again_is_the_same_bit_for_bit(folder: Path, tiny_folder: Path) -> None:
    one, again = (run(folder, tiny_folder, "float32", of) for of in (2, [0, 1]))
    weights = "adapter/adapter_model.safetensors"
    assert (one / weights).read_bytes() == (again / weights).read_bytes()


def test_ranks_run_their_rows_as_graphs(folder: Path, tiny_folder: Path) -> None:
    one, several = (run(folder, tiny_folder, "bfloat16", of, steps=30) for of in (1, 2))
    for made in (one, several):
        plan = json.loads((made / "run.json").read_text("utf-8"))["plan"]
        assert plan["graphs"].startswith("rows as CUDA graphs, of ")
    assert logged(several, "loss") == pytest.approx(logged(one, "loss"), rel=0.05)


def test_answers_that_change_in_bfloat16_are_counted(
    folder: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """There an answer depends on its batch, also on one GPU: how many changed is told, not judged."""
    one, several = (run(folder, tiny_folder, "bfloat16", of) for of in (1, 2))
    for which in ASKED:
        found, asked = changed(several, one, which), len(answers_of(one, which))
        with capsys.disabled():
            sys.stdout.write(f"\n{which}: {found} of {asked} answers changed")
