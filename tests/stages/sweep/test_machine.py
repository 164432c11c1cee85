"""What a sweep's runs get of the machine, and what is settled once for all of them."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.files import write_json
from ragtune.base.lock import locked
from ragtune.cli import main
from ragtune.distributed.place import VISIBLE
from ragtune.model import cpu_dtype
from ragtune.model.plan import estimate_of
from ragtune.recipe.load import load_recipe, save
from ragtune.stages.context import Context
from ragtune.stages.sweep import machine
from ragtune.stages.sweep import sweep as sweeping
from ragtune.stages.sweep.folder import SweepFolder
from ragtune.stages.sweep.grid import points_of
from ragtune.stages.sweep.jobs import Task, freest, run_all
from ragtune.stages.sweep.machine import (
    environment,
    fitting,
    gpus_of,
    say_disk,
    say_left,
    settle_dtypes,
)


def test_how_many_fit_is_said_by_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def summary(available: float, device: str = "H200", planned: float = 50, **peaks: float) -> Any:
        memory = {"available": available, "training": planned}
        return {"plan": {"memory": memory, "device": device}, "peak_gib": peaks}

    monkeypatch.setattr("ragtune.stages.sweep.machine.cores", lambda: 8)
    assert fitting([]) == 1
    assert fitting([{"plan": {"memory": {}}, "peak_gib": {}}]) == 1
    assert fitting([summary(100, train=29)]) == 3
    assert fitting([summary(100, train=29), summary(100, train=44)]) == 2
    assert fitting([summary(16, train=15.5)]) == 1
    # Of nine that were planned beside each other each found what the others had left.
    assert fitting([summary(139, train=11), *[summary(31, train=9)] * 9]) == 8
    # The smaller of two GPUs, on which as many go.
    assert fitting([summary(139, train=11), summary(80, "H100", train=11)]) == 6
    # Where trainings wait for others nothing is measured but the answers.
    assert fitting([summary(100, planned=29, checkpoint_2=5)]) == 3
    assert fitting([summary(100, planned=29, checkpoint_2=44)]) == 2
    assert fitting([summary(100, planned=99, train=29)]) == 3
    monkeypatch.setattr("ragtune.stages.sweep.machine.cores", lambda: 2)
    assert fitting([summary(100, train=9)]) == 2


def test_each_run_sees_one_gpu_of_the_recipe(
    tiny_recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of those that this process sees, by their numbers there; on a CPU nothing is hidden or shown."""
    recipe = load_recipe({**tiny_recipe, "devices": [1, 3]})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert gpus_of(recipe) == [1, 3]
    assert gpus_of(load_recipe(tiny_recipe)) == [0, 1, 2, 3]
    with pytest.raises(UsageError, match="this machine has 4 GPUs"):
        gpus_of(load_recipe({**tiny_recipe, "devices": [4]}))
    monkeypatch.delenv(VISIBLE, raising=False)
    assert environment(3, 1)[VISIBLE] == "3"
    assert VISIBLE not in environment(None, 1)
    monkeypatch.setenv(VISIBLE, "4,5,6,GPU-7")
    assert environment(3, 1)[VISIBLE] == "GPU-7"
    assert environment(None, 1)[VISIBLE] == "4,5,6,GPU-7"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpus_of(recipe) == []


def test_runs_go_where_the_fewest_are() -> None:
    assert freest([1, 3], []) == 1
    assert freest([1, 3], [1]) == 3
    assert freest([1, 3], [1, 3, 1]) == 3
    assert freest([], [None]) is None


def test_cores_are_shared_unless_the_user_said_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("ragtune.stages.sweep.machine.cores", lambda: 8)
    assert "OMP_NUM_THREADS" not in environment(None, 1)
    assert environment(None, 3)["OMP_NUM_THREADS"] == "2"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert environment(None, 3)["OMP_NUM_THREADS"] == "5"


@pytest.fixture
def where(tmp_path: Path) -> SweepFolder:
    found = SweepFolder(tmp_path / "sweep")
    found.path.mkdir()
    write_json(found.about, {"of": "x", "train": 1})
    return found


def test_the_dtype_is_measured_once_and_stays(
    tiny_recipe: dict[str, Any], where: SweepFolder, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    auto = {**tiny_recipe, "model": {"id": tiny_recipe["model"]["id"]}}
    point, plain = points_of(load_recipe(auto), ["model.dtype=auto,float32"])
    for fast in (300, 1):
        monkeypatch.setattr(cpu_dtype, "measure", lambda _, fast=fast: cpu_dtype.Speeds(100, fast))
        settle_dtypes(where, [point.recipe, plain.recipe])
        assert where.recipe_of("run", point, 7).model.dtype == "bfloat16"
        assert where.recipe_of("run", plain, 7).model.dtype == "float32"
        # best.yaml, too: else the best would be trained as no run of the sweep was.
        assert where.settled(point.recipe).model.dtype == "bfloat16"
    assert capsys.readouterr().out.count("bfloat16 (measured") == 1


def test_what_all_runs_take_is_said_if_it_does_not_fit(
    tiny_recipe: dict[str, Any], where: SweepFolder, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    recipe = load_recipe(tiny_recipe)
    run = Context(recipe, (), where.runs / "run-0")
    # Two checkpoints are kept, and one more is written before an older one goes; moments are twice as large.
    one_run = int((3 * 3 + 1) * estimate_of(recipe, run.hardware, run.config).adapter)
    for free, runs, said in ((one_run, 1, False), (one_run, 2, True), (1, 0, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        say_disk(where, [(recipe, [f"run-{i}" for i in range(runs)])])
        assert ("of disk" in "".join(capsys.readouterr())) == said, runs


def test_what_stopped_runs_left_is_said_if_it_is_much(
    where: SweepFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_MUCH", 2048)
    checkpoint = where.runs / "run-0" / "work" / "adapter-1" / "checkpoint-2"
    checkpoint.mkdir(parents=True)
    for size, said in ((2047, False), (3072, True)):
        (checkpoint / "model.safetensors").write_bytes(bytes(size))
        say_left(where, ["run-0", "run-1"])
        assert ("take 3 KiB (work/ in" in capsys.readouterr().out) == said


@pytest.mark.parametrize("seeds", [0, -1, 101])
def test_as_many_seeds_as_nobody_means_are_refused(
    tiny_recipe: dict[str, Any], tmp_path: Path, seeds: int
) -> None:
    with pytest.raises(UsageError, match="A sweep has 1 to 100 seeds"):
        sweeping.sweep(tiny_recipe, seeds=seeds, folder=tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


def test_a_folder_that_leads_elsewhere_or_whose_record_is_damaged(
    tiny_recipe: dict[str, Any], where: SweepFolder, tmp_path: Path
) -> None:
    where.about.write_text("{", "utf-8")  # of which data the runs are is not known any more
    with pytest.raises(RagtuneError, match=r"sweep.json can't be read"):
        sweeping.sweep(tiny_recipe, folder=where.path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("data", "runs", "best.yaml"):
        link = where.path / name
        link.symlink_to(elsewhere)
        with pytest.raises(
            UsageError, match=r"is a link to .*: in a sweep directory none is followed"
        ):
            sweeping.sweep(tiny_recipe, folder=where.path)
        link.unlink()
    assert list(elsewhere.iterdir()) == []


def test_runs_of_several_gpus_each_see_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In processes: two at a time, each with the GPU on which the fewest run; one that fails is told."""
    monkeypatch.setenv(VISIBLE, "4,GPU-7")
    (tmp_path / "told.py").write_text(
        "import os, sys, time\nprint(os.environ['CUDA_VISIBLE_DEVICES'], flush=True)\n"
        "from pathlib import Path\nhere = Path(sys.argv[1])\nhere.touch()\n"
        "while len(list(here.parent.glob('begun-*'))) < 2: time.sleep(0.01)\n"
        "sys.exit(sys.argv[1].endswith('2'))\n",
        "utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    tasks = [
        Task(f"run-{n}", ("told", str(tmp_path / f"begun-{n}")), tmp_path / f"{n}.log")
        for n in range(4)
    ]
    ended: dict[str, str] = {}
    with locked(tmp_path / "lock"):
        run_all(tasks, lambda: 2, lambda task, problem: ended.update({task.name: problem}), [0, 1])
    seen = [(tmp_path / f"{n}.log").read_text("utf-8").strip() for n in range(4)]
    assert seen[:2] == ["4", "GPU-7"]
    assert {*seen} == {"4", "GPU-7"}
    assert {name for name, problem in ended.items() if problem} == {"run-2"}
    assert len(ended) == 4


def test_why_a_run_failed_is_the_error_of_this_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `show_error` writes it: not the advice behind it, and not what an attempt before met."""
    (tmp_path / "failing.py").write_text(
        "import os, sys\nfrom ragtune.base.screen.console import show_error\n"
        "if sys.argv[1] == 'told': show_error('No passage was left. ' + 'Of many words. ' * 9, 'Do so.\\nOr so.')\n"
        "elif sys.argv[1] == 'killed': print('at step 7', flush=True); os.kill(os.getpid(), 9)\n"
        "sys.exit(3)\n",
        "utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    monkeypatch.setenv("FORCE_COLOR", "1")  # for the sweep's terminal, not for the run's log
    told = list[str]()
    with locked(tmp_path / "lock"):
        for how in ("told", "killed", "silent"):
            task = Task("run", ("failing", how), tmp_path / "run.log")  # one log for all attempts
            run_all([task], lambda: 1, lambda _, problem: told.append(problem))
    assert told == [
        "No passage was left. " + " ".join(["Of many words."] * 9), "at step 7", "exit code 3",
    ]  # fmt: skip


def test_the_command_looks_unless_it_is_told_not_to(
    tiny_recipe: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = tmp_path / "recipe.yaml"
    save(load_recipe(tiny_recipe), recipe)

    def sweep(*_: str, look: bool, **__: Any) -> dict[str, bool]:
        return {"looked": look}

    monkeypatch.setattr(sweeping, "sweep", sweep)
    for words, looked in (([], "true"), (["--no-look"], "false")):
        with pytest.raises(SystemExit) as end:
            main(["sweep", str(recipe), "--json", *words])
        assert not end.value.code
        assert f'"looked": {looked}' in capsys.readouterr().out


def test_seeds_beyond_the_last_are_refused(tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe = {**tiny_recipe, "seed": 2**32 - 2}
    with pytest.raises(UsageError, match="go beyond the last") as error:
        sweeping.sweep(recipe, seeds=3, folder=tmp_path / "sweep")
    assert error.value.advice == f"Set seed to {2**32 - 3} at most."
    assert not (tmp_path / "sweep").exists()
