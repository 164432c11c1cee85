"""The side-by-side benchmark at a small size: it runs, and its systems train the same thing."""

from __future__ import annotations

import gzip
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "src" / "ragtune" / "data" / "samples"
WORKS = {
    "run",
    "train_step",
    "train_step_dropout0",
    "train_step_12gib",
    "evaluate_before",
    "evaluate_after",
}
TRL = importlib.util.find_spec("trl") is not None
MISSING = importlib.util.find_spec("unsloth") is None


def call(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The JSON and the screen of a small run; a system that is not installed must not stop it."""
    folder = tmp_path_factory.mktemp("bench")
    for split, count in (("train", 60), ("dev", 30)):
        with gzip.open(SAMPLES / f"jaquad.{split}.jsonl.gz", "rt", encoding="utf-8") as file:
            lines = sorted(file, key=len)[:count]
        with gzip.open(folder / f"jaquad_rag.{split}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(lines)
    data, model, out = str(folder), str(folder / "model"), folder / "out.json"
    call("bench/build_model.py", "--data", data, "--out", model, "--tiny", "--device", "cpu")
    systems = ["ragtune", *(["trl"] if TRL else []), *(["unsloth"] if MISSING else []), "notebook"]
    screen = call(
        "bench/side_by_side.py", "--model", model, "--data", data, "--out", str(out), "--tiny",
        "--systems", ",".join(systems), "--work", str(folder / "work"), "--budget", "1500",
    )  # fmt: skip
    built = json.loads((Path(model) / "build.json").read_text("utf-8"))
    assert built["entries"] == built["shape"]["vocab_size"]
    assert not (folder / "work").exists()
    return json.loads(out.read_text("utf-8")), screen


def test_the_file_says_all_that_a_table_needs(measured: tuple[dict[str, Any], str]) -> None:
    result, screen = measured
    assert result["format"] == 1
    assert result["device"].startswith("CPU")
    assert result["versions"]["ragtune"]
    assert result["command"].startswith("python bench/side_by_side.py --model ")
    assert result["commit"]
    assert result["tokens_per_sample"] > 100
    rows = {(r["system"], r["work"]): r for r in result["rows"]}
    assert len(rows) == len(result["rows"])
    assert {w for s, w in rows if s == "ragtune"} == WORKS
    assert {w for s, w in rows if s == "notebook"} == WORKS - {
        "train_step_12gib"
    }  # no GPU, no peak
    for row in result["rows"]:
        assert row["seconds"] > 0
        assert row["peak_gib"] is None
        assert f"{row['seconds']:,}" in screen
    projected = {w for (s, w), r in rows.items() if r.get("projected")}
    assert projected == {"run", "evaluate_before", "evaluate_after"}
    one = rows["notebook", "evaluate_before"]
    assert one["measured"] == 2
    assert one["seconds"] == pytest.approx(6 * one["each"], rel=0.01)
    ratio = rows["notebook", "train_step"]["seconds"] / rows["ragtune", "train_step"]["seconds"]
    assert result["ratios"]["train_step"]["notebook"] == pytest.approx(ratio, abs=0.01)


def test_a_system_that_fails_is_noted(measured: tuple[dict[str, Any], str]) -> None:
    if not MISSING:
        pytest.skip("unsloth is installed: its absence is the failure that is looked at")
    notes = [n["text"] for n in measured[0]["notes"] if n["system"] == "unsloth"]
    assert len(notes) == 1
    assert "No module named 'unsloth'" in notes[0]


def test_every_answer_is_as_long_as_the_others(measured: tuple[dict[str, Any], str]) -> None:
    notes = [n["text"] for n in measured[0]["notes"] if n["system"] == "ragtune"]
    assert notes == [f"6 answers {w} tuning, 4.0 tokens on average" for w in ("before", "after")]


def test_padded_and_packed_batches_train_alike(measured: tuple[dict[str, Any], str]) -> None:
    losses = measured[0]["losses"]
    ours = losses["ragtune, train_step_dropout0"]
    assert len(ours) == 5
    assert max(ours) - min(ours) > 0.1  # else agreeing would mean little
    assert losses["notebook, train_step_dropout0"] == pytest.approx(ours, rel=1e-5)


@pytest.mark.skipif(not TRL, reason="trl is not installed")
def test_all_ways_of_trl_train_alike(measured: tuple[dict[str, Any], str]) -> None:
    result = measured[0]
    assert {r["work"] for r in result["rows"] if r["system"] == "trl"} == {
        w for w in WORKS if w.startswith("train")
    }
    ours = result["losses"]["ragtune, train_step_dropout0"]
    assert result["equal_memory"]["trl"]["ratio"] > 0
    ways = [v for k, v in result["losses"].items() if k.startswith("trl, train_step_dropout0")]
    assert len(ways) == 2  # padding-free on ragtune's attention, and padded
    for losses in ways:
        assert losses == pytest.approx(ours, rel=1e-5)
