"""`ragtune sweep`: real trainings of a tiny model."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import ragtune
from ragtune.base.errors import UsageError
from ragtune.base.files import read_json
from ragtune.base.lock import locked
from ragtune.base.text import size_of
from ragtune.recipe.load import load_recipe
from ragtune.scoring.sweep import Results
from ragtune.stages.sweep import sweep as sweeping
from ragtune.stages.sweep import worker
from ragtune.stages.sweep.figures import Figures
from ragtune.stages.sweep.folder import SweepFolder
from ragtune.stages.sweep.grid import points_of
from ragtune.stages.sweep.jobs import Task
from ragtune.stages.sweep.shown import show
from ragtune.store.proof import read_proof
from tests.conftest import make_records, write_records
from tests.ready import Ready

GRID = ("train.learning_rate=0.02,1e-9,0.01", "train.steps=8", "train.save_every=100")


@pytest.fixture
def recipe(tiny_recipe: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """With as many articles as questions, so that some can be held apart."""
    write_records(tmp_path / "train.jsonl", make_records(48))
    return tiny_recipe


def answered(folder: Path) -> dict[str, float]:
    """When each run's answers were written."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime
        for path in folder.glob("runs/*/eval/**/predictions.jsonl")
    }


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs go on in this process: each would load torch first."""

    def run_all(
        tasks: Sequence[Task],
        at_a_time: Callable[[], int],
        done: Callable[[Task, str], None],
        gpus: Sequence[int],
    ) -> None:
        assert at_a_time() == 2  # as --jobs says, on however many GPUs
        assert len(set(gpus)) == len(gpus)
        for task in tasks:
            assert task.words[0] == worker.__name__
            assert worker.do(list(task.words[1:])) == 0
            done(task, "")

    monkeypatch.setattr(sweeping, "run_all", run_all)


@pytest.mark.usefixtures("here")
def test_a_grid_is_trained_halved_compared_and_looked_at_once(
    recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    folder = tmp_path / "sweep"
    # A first stage, which leaves the evaluation set alone.
    unseen = ragtune.sweep(recipe, *GRID, seeds=2, jobs=2, look=False, folder=folder)
    said = capsys.readouterr().out
    assert unseen["looks"] == []
    show(unseen, folder)
    assert "Evaluation set: not looked at\n" in capsys.readouterr().out
    assert read_json(folder / "results.json")["looks"] == []
    assert [*folder.glob("runs/*/eval/dev*")] == []
    times = answered(folder)
    found = ragtune.sweep(recipe, *GRID, seeds=2, jobs=2, folder=folder)
    assert found == {**unseen, "looks": found["looks"]}
    assert {path: at for path, at in answered(folder).items() if "dev" not in path} == times
    assert found["seeds"] == [7, 8]
    # One of three stops at a quarter; two are not halved any more.
    assert sorted(row["share"] for row in found["points"]) == [0.25, 1, 1]
    assert "At 25% of the steps the lower half stops" in said
    assert found["data"] == {"train": 28, "held": 20, "left_out": 0}
    assert found["by"] == "squad_em"
    for row in found["points"]:
        assert row["problems"] == []
        assert row["spread"] is not None
        assert row["spread"]["n"] == 20
        assert set(row["spread"]["seeds"]) == {"7", "8"}
    # What a training that waits was planned to take is known, for how many fit on a GPU.
    stopped = next(row["name"] for row in found["points"] if row["share"] < 1)
    assert "memory" in read_json(folder / "runs" / f"{stopped}_seed-7" / "run.json")["plan"]
    # The evaluation set: with the best point's runs alone.
    (look,) = found["looks"]
    assert look["point"] == found["best"]
    assert look["after"] is not None
    assert look["after"]["n"] == 10
    asked = {path.parents[2].name for path in folder.glob("runs/*/eval/dev-*/after")}
    assert asked == {f"{found['best']}_seed-{seed}" for seed in (7, 8)}
    best = load_recipe(folder / "best.yaml")
    assert best.data.train == recipe["data"]["train"]
    assert best.name == "tiny"
    page = (folder / "report.html").read_text("utf-8")
    assert "train.learning_rate=0.02" in page
    assert read_json(folder / "results.json")["best"] == found["best"]
    # Prepared once a seed.
    proofs = [read_proof(path) for path in folder.glob("runs/*/data")]
    assert len(proofs) == 6
    assert sum("taken_from" in proof.facts for proof in proofs if proof) == 4
    # The wait changed nothing that is trained, bit for bit.
    run = f"{found['best']}_seed-7"
    ragtune.train(folder / "recipes" / f"{run}.yaml", run_dir=tmp_path / "whole")
    one, other = (
        load_file(path / "adapter" / "adapter_model.safetensors")
        for path in (folder / "runs" / run, tmp_path / "whole")
    )
    assert all(one[name].equal(tensor) for name, tensor in other.items())
    # The same command repeats nothing.
    times = answered(folder)
    again = ragtune.sweep(recipe, *GRID, seeds=2, jobs=2, folder=folder)
    assert answered(folder) == times
    assert again == found
    # Another evaluation set is asked; nothing is trained, or asked of the held questions, again.
    write_records(Path(recipe["data"]["eval"]), make_records(6, "other"))
    other = ragtune.sweep(recipe, *GRID, seeds=2, jobs=2, folder=folder)
    more = {name for name in answered(folder) if name not in times}
    assert all("/eval/dev-" in Path(name).as_posix() for name in more)
    assert len(more) == 4
    assert answered(folder).items() >= times.items()
    assert other["points"] == found["points"]
    (look,) = other["looks"]
    assert look["after"] is not None
    assert look["after"]["n"] == 6
    with pytest.raises(UsageError, match="is of other training data, or of another seed"):
        ragtune.sweep(recipe, *GRID, "seed=1", folder=folder)
    # What stopped early goes on, also where its checkpoints were deleted.
    monkeypatch.setattr("ragtune.stages.sweep.machine._MUCH", 1)
    (gone, kept) = (folder / "runs" / f"{stopped}_seed-{seed}" for seed in (7, 8))
    shutil.rmtree(gone / "work")
    capsys.readouterr()
    ragtune.sweep(recipe, *GRID, seeds=2, jobs=2, folder=folder)
    size = size_of(sum(file.stat().st_size for file in kept.glob("work/**/*") if file.is_file()))
    assert f"stopped early take {size}" in capsys.readouterr().out
    whole = ragtune.sweep(recipe, *GRID, seeds=2, jobs=2, whole=True, folder=folder)
    assert [row["share"] for row in whole["points"]] == [1, 1, 1]
    assert [row["problems"] for row in whole["points"]] == [[], [], []]
    assert "stopped early" not in capsys.readouterr().out


def test_a_run_that_fails_is_said_and_the_others_go_on(
    recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = ragtune.sweep(
        recipe, "lora.target_modules=[q_proj],[nothing_like_it]", "train.steps=2",
        seeds=1, jobs=2, folder=tmp_path / "sweep",
    )  # fmt: skip
    failed = next(row for row in found["points"] if row["spread"] is None)
    assert failed["changes"] == ["lora.target_modules=[nothing_like_it]"]
    assert "the others go on" in capsys.readouterr().out
    assert found["winner"] is None
    assert found["best"] is not None
    assert "alone was trained to the end" in found["verdict"]


def test_the_best_has_all_seeds_and_figures_are_of_the_same_questions(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that lost a seed, or was asked what is easy, is not the best for that."""

    def each(value: float) -> dict[str, float]:
        return {f"a{i}": value for i in range(400)}

    points = points_of(load_recipe(tiny_recipe), ["data.max_passages=1,2,3"])
    easy, whole, survivor = points
    answers = {
        easy.name: {seed: each(0.5) for seed in (7, 8)},
        whole.name: {seed: {**each(0.6), "hard": 0.0} for seed in (7, 8)},
        survivor.name: {7: {**each(1.0), "hard": 1.0}},
    }
    monkeypatch.setattr(Figures, "scores", lambda _, point, *__: answers[point.name])
    where = SweepFolder(tmp_path)

    def results() -> Results:
        return Figures(where, points, (7, 8), "dev").results(lambda _: [])

    found = results()
    assert [row["name"] for row in found["points"]] == [whole.name, easy.name, survivor.name]
    assert [row["missing"] for row in found["points"]] == [[], [], [8]]
    assert found["best"] == whole.name
    assert found["questions"] == 400
    assert "so ranked last: data.max_passages=3" in found["verdict"]
    # A winner is the best one that is better than the runner-up; one that lost a seed is none.
    assert found["winner"] == whole.name
    # Up to 1 - 0.025^(1/400) = 0.9 % of such questions may be otherwise, by -1.1 or +0.9.
    words = "data.max_passages=2 is better than the runner-up by +10.0 points (+9.0 … +10.8)"
    assert f"{words}, over 400 questions and 2 seeds." in found["verdict"]
    for apart, values in ((True, {7: 0.601, 8: 0.599}), (False, {7: 0.9, 8: 0.3})):
        answers[whole.name] = {seed: each(value) for seed, value in values.items()}
        found = results()
        assert found["best"] == whole.name
        assert found["winner"] == (whole.name if apart else None)
        assert ("is better than the runner-up" in found["verdict"]) == apart
        assert ("not told apart from it: data.max_passages=1" in found["verdict"]) != apart
    answers[easy.name] = {seed: {"other": 0.5} for seed in (7, 8)}
    assert results()["best"] is None
    options = sweeping._Options(seeds=2, jobs=1, whole=True)
    one = sweeping._Sweep(where, points, options, Path("dev"))
    assert "No held question was asked by every point" in one.nothing().message


@pytest.mark.parametrize("whole", [False, True])
def test_a_point_that_ended_gets_the_seeds_that_it_lacks(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    """More seeds are wanted than the last time, or a break came between two of them."""
    points = points_of(load_recipe(tiny_recipe), ["train.steps=2,3"])
    where, seeds = SweepFolder(tmp_path), {points[0].name: (7, 8), points[1].name: (7,)}
    for run in (point.run(seed) for point in points for seed in seeds[point.name]):
        (where.runs / run / "eval").mkdir(parents=True)
        write_records(where.runs / run / "eval" / "predictions.jsonl", [])
        where.reached(run, "1").parent.mkdir(exist_ok=True)
        where.reached(run, "1").write_text('{"answers": "eval", "questions": "eval"}', "utf-8")
    monkeypatch.setattr(
        Figures, "scores",
        lambda _, point, share: {s: {"a": 1.0} for s in seeds[point.name] if share == 1},
    )  # fmt: skip
    ran = list[str]()
    monkeypatch.setattr(
        sweeping, "run_all", lambda tasks, *_: ran.extend(task.name for task in tasks)
    )
    options = sweeping._Options(seeds=3, jobs=1, whole=whole)
    sweeping._Sweep(where, points, options, Path("dev")).climb()
    assert ran == [points[0].run(9), points[1].run(8), points[1].run(9)]


def test_an_evaluation_set_that_is_not_there_is_told_before_anything_is_trained(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "sweep"
    with pytest.raises(UsageError, match=r"nowhere\.jsonl"):
        ragtune.sweep(recipe, *GRID, f"data.eval={tmp_path / 'nowhere.jsonl'}", folder=folder)
    assert not (folder / "runs").exists()


def test_two_sweeps_in_one_folder(recipe: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    folder.mkdir()
    code = "import sys,time\nfrom pathlib import Path\nfrom ragtune.base.lock import locked\n"
    code += "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(UsageError, match="at work"):
            ragtune.sweep(recipe, *GRID, folder=folder)
    with locked(folder):
        pass


def test_runs_stop_with_the_sweep_and_the_same_command_goes_on(
    recipe: dict[str, Any], tmp_path: Path, ready: Ready
) -> None:
    """By a signal, which is passed on; and killed, which the runs notice by themselves."""
    path, folder = tmp_path / "recipe.yaml", tmp_path / "sweep"
    path.write_text(json.dumps(recipe), "utf-8")
    words = ("sweep", str(path), "train.learning_rate=0.02", "train.steps=2000", "--seeds", "1",
             "--folder", str(folder))  # fmt: skip

    def said_by_the_run() -> str:
        return "".join(log.read_text("utf-8") for log in folder.glob("logs/*_seed-7.log"))

    def wait_for(words: str, count: int) -> None:
        deadline = time.monotonic() + 200
        while said_by_the_run().count(words) < count:
            assert time.monotonic() < deadline, said_by_the_run()
            time.sleep(0.1)

    for number, signal_ in enumerate((signal.SIGTERM, signal.SIGKILL), 1):
        one = ready.start([*words])
        wait_for("learning rate", number)  # the head of the table: it trains
        one.send_signal(signal_)
        code = one.wait(100)
        wait_for("Training stopped after step", number)
        if signal_ == signal.SIGTERM:
            assert code == 128 + signal_, one.communicate()
            assert "The same command goes on: ragtune sweep" in "".join(one.communicate())
    assert said_by_the_run().count("Going on from step") == 1
    assert list(folder.glob("runs/*/adapter")) == []


def test_one_of_each_is_no_plural() -> None:
    assert sweeping._held_apart({"train": 1, "held": 1, "left_out": 1}) == (
        "1 example is trained, 1 of other articles is held apart to choose by, 1 that shares an article "
        "with those is left out"
    )
