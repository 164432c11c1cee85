"""bench/sharded.py at a small size: what it says of a training, and of one that was told to end."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.ready import Ready
from tests.test_scaling import given

__all__ = ["given"]

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
import sharded


def measure(given: Path, folder: Path, *parts: str, model: str = "model") -> dict[str, Any]:
    out, work = folder / "out.json", folder / "work"
    sharded.main([
        "--model", str(given / model), "--data", str(given), "--out", str(out), "--work", str(work), "--tiny",
        "--gpus", "2", "--parts", *parts,
    ])  # fmt: skip
    found: dict[str, Any] = json.loads(out.read_text("utf-8"))
    return found


def test_a_training_is_measured_and_one_that_was_told_to_end_goes_on(
    given: Path, ready: Ready, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    def start(command: list[str], log: Path, environment: Mapping[str, str]) -> Any:
        assert command[1:3] == ["-m", "ragtune"]
        begun.append(log.stem)
        slow = ("slow_steps", 0.3) if log.stem == "resume" else ()
        outputs = log, log.with_suffix(".errors")
        faults = {0: ("spread_base",), 1: slow}
        return ready.start(command[3:], outputs=outputs, faults=faults, **environment)

    monkeypatch.setattr(sharded, "start", start)
    assert measure(given, tmp_path, "model", "resume")["notes"] == [
        "resume: `train` was not measured in this --work"
    ]
    found = measure(given, tmp_path, "train", "resume")
    assert begun == ["train", "resume", "resume-again"]
    assert len(found["notes"]) == 1
    train, resume = found["rows"]
    assert train["spread"]
    assert train["seconds"] > 0
    assert train["load_seconds"] > 0
    assert train["private_gib"] > 0
    assert len(train["losses"]) == sharded.STEPS
    assert sharded.STOP <= resume["stopped_at"] < sharded.STEPS
    assert resume["steps"] == sharded.STEPS
    assert resume["equal"]


@pytest.mark.heavy
def test_a_model_is_made_and_nf4_is_tried(given: Path, tmp_path: Path) -> None:
    found = measure(given, tmp_path, "model", "probe", model="another")
    assert found["notes"] == []
    assert found["model"]["layers"] == 2
    assert found["rows"][0]["otherwise"] == ""
