"""bench/scaling.py at a small size: it measures one rank and two, and keeps what is known."""

from __future__ import annotations

import gzip
import importlib.util
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port
from tests.ready import Ready

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "bench"))
import build_model  # noqa: E402 - a script
import scaling  # noqa: E402 - a script

SAMPLES = ROOT / "src" / "ragtune" / "data" / "samples"


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a little of JaQuAD, and a tiny model."""
    folder = tmp_path_factory.mktemp("scaling")
    for split, count in (("train", 60), ("dev", 30)):
        with gzip.open(SAMPLES / f"jaquad.{split}.jsonl.gz", "rt", encoding="utf-8") as file:
            lines = sorted(file, key=len)[:count]
        with gzip.open(folder / f"jaquad_rag.{split}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(lines)
    build_model.build(folder, folder / "model", tiny=True, device="cpu")
    return folder


def measure(given: Path, out: Path, *options: str) -> dict[str, Any]:
    arguments = ["--model", str(given / "model"), "--data", str(given), "--out", str(out), "--tiny"]
    scaling.main([*arguments, "--budget", "800", *options])
    found: dict[str, Any] = json.loads(out.read_text("utf-8"))
    return found


def quickly(ready: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ragtune's processes be forks, and all of its ranks."""

    def execute(command: list[str], log: Path, _: float, environment: Mapping[str, str]) -> int:
        assert command[1:3] == ["-m", "ragtune"]
        done = ready.run(command[3:], faults={}, **environment)
        log.write_text(done.stdout + done.stderr, "utf-8")
        return done.returncode

    monkeypatch.setattr(scaling, "execute", execute)


def test_every_part_is_measured_and_one_call_adds_to_the_other(
    given: Path, ready: Ready, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    quickly(ready, monkeypatch)
    out = tmp_path / "out.json"
    first = measure(given, out, "--parts", "step", "answers", "--gpus", "2")
    assert not first["notes"]
    assert not first["scaling"]
    both = measure(given, out, "--parts", "run")
    rows = {(r["work"], r["gpus"], r["part"]): r for r in both["rows"]}
    assert {key: r["call"] for key, r in rows.items()} == {
        ("train_step", 2, "step"): 1, ("evaluate_before", 2, "answers"): 1, ("evaluate", 2, "answers"): 1,
        **{(work, gpus, "run"): 2 for work in scaling.WORKS for gpus in (1, 2)},
    }  # fmt: skip
    for work in scaling.WORKS:
        ratio = rows[work, 1, "run"]["seconds"] / rows[work, 2, "run"]["seconds"]
        assert both["scaling"][f"{work}_2"] == pytest.approx(ratio, abs=0.006)
        assert both["efficiency"][f"{work}_2"] == pytest.approx(ratio / 2, abs=0.006)
    assert [rows["evaluate_before", gpus, "run"]["changed"] for gpus in (1, 2)] == [0, 0]
    losses = [rows["train_step", gpus, "run"]["final_loss"] for gpus in (1, 2)]
    assert losses[0] == pytest.approx(losses[1], abs=2e-4)
    assert both["predicted"][scaling.NVLINK]["train_step_2"] == 1.93
    assert len(both["calls"]) == 2
    assert "\n".join(scaling.table(both)) in capsys.readouterr().out


def test_the_recipe_can_be_changed(given: Path, tmp_path: Path) -> None:
    wanted = ["--model", str(given / "model"), "--data", str(given), "--out", str(tmp_path / "out")]
    options = scaling.read_options([*wanted, "--tiny", "--changes", "train.products=fp8"])
    written = scaling.Scaling(options, tmp_path).recipe("run", "train.steps=3")
    recipe = scaling.load_recipe(written)
    assert (recipe.train.products, recipe.train.steps) == ("fp8", 3)


def test_a_file_of_another_device_is_not_added_to(given: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    out.write_text(json.dumps({"device": "2 × another", "commit": ""}), "utf-8")
    with pytest.raises(SystemExit, match="measured with device 2 × another"):
        measure(given, out)


def test_what_fails_is_noted_and_the_rest_is_measured(
    given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def execute(_: list[str], log: Path, *__: object) -> int:
        log.write_text("one\n\nit broke\n", "utf-8")
        return 3

    monkeypatch.setattr(scaling, "execute", execute)
    found = measure(given, tmp_path / "out.json", "--parts", "step")
    assert found["notes"] == [f"step-{n} failed (3): one | it broke" for n in (1, 2)]
    assert found["scaling"] == {}


def test_a_command_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = scaling.execute([sys.executable, "-c", "import time; time.sleep(600)"], log, 0, {})
    assert code < 0
    assert "out of time" in log.read_text("utf-8")


def test_gpus_are_those_that_a_process_sees_by_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for nvidia-smi."""
    script = tmp_path / "nvidia-smi"
    script.write_text(
        "#!/bin/sh\ncase $* in\n"
        "topo*) printf '\\tGPU0\\tGPU1\\tNIC0\\nGPU0\\t X \\tNV18\\tPIX\\nGPU1\\tNV18\\t X \\tSYS\\n';;\n"
        "*memory.used*) printf '0, GPU-a, 1024\\n1, GPU-b, 2048\\n';;\n"
        "*) printf '0, GPU-a, One\\n1, GPU-b, Other\\n';;\nesac\n",
        "utf-8",
    )
    script.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert scaling.links() == ["NV18"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert scaling.smi("name") == [["GPU-a", "One"], ["GPU-b", "Other"]]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,GPU-a")
    assert scaling.smi("name") == [["GPU-b", "Other"], ["GPU-a", "One"]]
    with scaling.used(2) as most:
        until = time.monotonic() + 60
        while not most and time.monotonic() < until:
            time.sleep(0.05)
    assert most == [2.0, 1.0]


def test_the_table_sets_what_was_predicted_beside_what_was_measured() -> None:
    def one(system: str, work: str, gpus: int, seconds: float) -> dict[str, Any]:
        part = "trl" if system == "trl" else "run"
        return {"system": system, "work": work, "gpus": gpus, "part": part, "seconds": seconds}

    rows = [
        one("ragtune", "train_step", 1, 0.7), one("ragtune", "train_step", 2, 0.35),
        one("ragtune", "run", 1, 160.0), one("trl", "train_step", 2, 0.7),
    ]  # fmt: skip
    found = scaling.ratios(rows)
    assert found["scaling"] == {"train_step_2": 2.0}
    assert found["efficiency"] == {"train_step_2": 1.0}
    assert found["against_trl"] == {"train_step_2": 2.0}
    assert scaling.table({"rows": rows, "links": ["NV18"], **found}) == [
        "| | 1 GPU | 2 GPUs |",
        "|---|---|---|",
        "| a step | 0.70 s | 0.35 s, 2.00 × (predicted: 1.93) |",
        "| the whole run | 160.0 s | – |",
        "| TRL, a step | – | 0.70 s |",
    ]


def test_the_links_are_measured_by_what_is_sent(ready: Ready, tmp_path: Path) -> None:
    """In two ranks, as torchrun begins them."""
    out = tmp_path / "summing.json"
    begun = "import runpy, sys; sys.path.insert(0, 'bench'); sys.argv = ['bench/summing.py', *sys.argv[1:]]; "
    begun += "runpy.run_path('bench/summing.py', run_name='__main__')"
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    where |= {"GLOO_SOCKET_IFNAME": "lo"}
    ranks = [
        ready.start(
            ["-c", begun, "--out", str(out), "--tiny"], ROOT, program="python",
            RANK=str(rank), LOCAL_RANK=str(rank), **where,
        )
        for rank in range(2)
    ]  # fmt: skip
    assert [rank.wait() for rank in ranks] == [0, 0], ranks[0].communicate()[1]
    rows = json.loads(out.read_text("utf-8"))["rows"]
    assert [(one["gpus"], one["bytes"]) for one in rows.values()] == [(2, 256), (2, 256)]
    assert all(0 < one["seconds"] <= one["longest"] for one in rows.values())


@pytest.mark.heavy
@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="trl is not installed")
def test_trl_trains_the_same_on_two_ranks(
    given: Path, ready: Ready, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without dropout, which every system draws in its own way."""
    real = scaling.execute
    quickly(ready, monkeypatch)
    quick = scaling.execute
    monkeypatch.setattr(
        scaling,
        "execute",
        lambda command, *more: (quick if "ragtune" in command else real)(command, *more),
    )
    monkeypatch.setattr(scaling, "TINY", [*scaling.TINY, "lora.dropout=0"])
    work = tmp_path / "work"
    found = measure(given, tmp_path / "out.json", "--parts", "run", "trl", "--work", str(work), "--keep")  # fmt: skip
    assert found["against_trl"]["train_step_2"] > 0
    assert len([x for x in found["notes"] if x.startswith("trl on 2, DDP, ")]) == scaling.VARIANTS
    log = (work / "run-2" / "run" / "adapter" / "train_log.jsonl").read_text("utf-8").splitlines()
    ours = [json.loads(line)["loss"] for line in log]
    for path in work.glob("trl-2-*.log"):
        told = next(x for x in path.read_text("utf-8").splitlines() if x.startswith(scaling.MARK))
        theirs = json.loads(told.removeprefix(scaling.MARK))["values"]
        assert theirs == pytest.approx(ours[: len(theirs)], rel=1e-5)
