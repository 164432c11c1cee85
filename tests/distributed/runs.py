"""What two runs are compared by: one rank's and several ranks'."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

WEIGHTS = "adapter/adapter_model.safetensors"
ASKED = ("before", "after", "merged")


def log_of(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "adapter" / "train_log.jsonl").open()]


def logged(run: Path, what: str) -> list[float]:
    return [line[what] for line in log_of(run) if what in line]


def require_equal(several: Path, one: Path) -> None:
    """Two runs have the same losses and the same adapter, but for the order of sums."""
    for what in ("loss", "eval_loss"):
        assert logged(several, what) == pytest.approx(logged(one, what), abs=1e-5)
    expected, found = load_file(one / WEIGHTS), load_file(several / WEIGHTS)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-5, rtol=0)


def answers_of(run: Path, which: str) -> dict[str, str]:
    """The answers by qid."""
    lines = (run / "eval" / "eval" / which / "predictions.jsonl").open()
    return {one["qid"]: one["prediction"] for one in map(json.loads, lines)}


def changed(several: Path, one: Path, which: str) -> int:
    """Answers that are others."""
    expected, found = answers_of(one, which), answers_of(several, which)
    assert expected.keys() == found.keys()
    return sum(found[qid] != text for qid, text in expected.items())


def require_same_answers(several: Path, one: Path) -> None:
    for which in ASKED:
        assert changed(several, one, which) == 0


def files_of(run: Path) -> set[str]:
    """What lies in a run directory, but for what names a process or a moment."""
    return {str(one.relative_to(run)) for one in run.rglob("*")}
