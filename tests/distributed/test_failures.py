"""What happens to one rank reaches all of them: in seconds, with its reason, and nothing is lost."""

from __future__ import annotations

import re
import signal
import socket
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from ragtune.store.seal import is_whole
from tests.conftest import tiny_recipe, write_records
from tests.distributed.runs import WEIGHTS, logged
from tests.ready import Ready

Fault = tuple[Any, ...]
HOST = socket.gethostname()


def write_recipe(content: dict[str, Any], folder: Path) -> Path:
    content["lora"]["dropout"] = 0.0
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content), "utf-8")
    return path


@pytest.fixture
def recipe(tmp_path: Path, tiny_folder: Path) -> Path:
    content = tiny_recipe.__wrapped__(tmp_path, tiny_folder)  # type: ignore[attr-defined]
    return write_recipe(content, tmp_path)


def train(
    ready: Ready, recipe: Path, *overrides: str, ranks: int = 2, **faults: Fault
) -> tuple[int, str]:
    """Train on several ranks, with faults (rank0, rank1 …); the exit code and all that was said."""
    done = ready.run(
        [
            "train",
            str(recipe),
            *overrides,
            f"devices={ranks}",
            "--run-dir",
            str(recipe.parent / "run"),
        ],
        recipe.parent,
        faults={int(name[4:]): fault for name, fault in faults.items()},
    )
    said = done.stdout + done.stderr
    assert not re.search(
        r"Traceback|\[[WE]\d|\[rank", said
    )  # nothing of torch's own, in C++ neither
    return done.returncode, said


def steps_of(recipe: Path) -> list[int]:
    """The steps that have a checkpoint."""
    found = (recipe.parent / "run").glob("work/adapter-*/checkpoint-*")
    return sorted(int(one.name.rpartition("-")[2]) for one in found)


def test_a_rank_that_is_killed_ends_all_and_the_same_command_goes_on(
    ready: Ready, recipe: Path
) -> None:
    """Rank 1, while it answers: below; rank 0, too."""
    code, said = train(ready, recipe, ranks=3, rank2=("signal_at_step", 5, signal.SIGKILL))
    assert code == 1, said
    assert f"Lost rank 2 on {HOST}: it was killed by SIGKILL." in said
    assert "the same command goes on" in said
    assert steps_of(recipe) == [2, 4]
    code, said = train(ready, recipe, ranks=3)
    assert code == 0, said
    assert "Going on from step 4" in said
    assert logged(recipe.parent / "run", "step") == list(range(1, 9))


def test_a_checkpoint_that_is_being_written_is_finished_when_a_rank_is_killed(
    ready: Ready, recipe: Path
) -> None:
    killed = ("signal_at_step", 4, signal.SIGKILL)
    code, said = train(ready, recipe, rank0=("stuck_on_a_slow_disk",), rank1=killed)
    assert code == 1, said
    assert f"Lost rank 1 on {HOST}: it was killed by SIGKILL." in said
    (whole,) = (recipe.parent / "run").glob("work/adapter-*/checkpoint-2")
    assert is_whole(whole)


def test_what_was_trained_is_written_also_when_a_rank_is_killed_by_then(
    ready: Ready, recipe: Path
) -> None:
    """The checkpoints are of earlier steps."""
    every = "train.save_every=100"
    code, said = train(ready, recipe, every, rank0=("slow_disk",), rank1=("killed_when_trained",))
    assert code == 0, said
    assert (recipe.parent / "run" / WEIGHTS).is_file()


@pytest.mark.parametrize(
    ("fault", "how"),
    [
        ("killed_in_import", "it was killed by SIGKILL."),
        ("broken_import", "it ended with exit code 99: .*ImportError: libtorch.so: not to be opened."),
    ],
)  # fmt: skip
def test_a_rank_that_ends_while_it_imports_is_not_found_only_when_the_data_are_prepared(
    ready: Ready, recipe: Path, fault: str, how: str
) -> None:
    begun = str(recipe.parent / "begun")
    code, said = train(ready, recipe, rank0=("read_when_one_is_gone", begun), rank1=(fault, begun))
    assert code == 1, said
    assert re.search(f"Lost rank 1: {how}", said), said
    assert not (recipe.parent / "run" / "data").exists()


def test_rank_0_is_killed_and_nobody_is_left(ready: Ready, recipe: Path) -> None:
    code, said = train(ready, recipe, ranks=3, rank0=("signal_at_step", 5, signal.SIGKILL))
    assert code == -signal.SIGKILL, said
    gone, left = psutil.wait_procs(followers_of(recipe), timeout=90)  # docs/gpus.md
    assert not left, gone
    assert train(ready, recipe)[0] == 0


def test_rank_0_is_killed_before_it_meets_the_others_and_nobody_is_left(
    ready: Ready, recipe: Path
) -> None:
    code, said = train(ready, recipe, rank0=("killed_before_they_meet",))
    assert code == -signal.SIGKILL, said
    gone, left = psutil.wait_procs(followers_of(recipe), timeout=90)  # docs/gpus.md
    assert not left, gone


def followers_of(recipe: Path) -> list[psutil.Process]:
    """The processes of a run: they work where its recipe lies. (Of a fork the environment can't be read.)"""
    every = psutil.process_iter(["cwd"])
    return [one for one in every if one.info["cwd"] == str(recipe.parent.resolve())]


@pytest.mark.parametrize(("forked", "ranks"), [(True, 3), (False, 2)])
def test_a_check_that_fails_ends_the_ranks_that_had_begun(
    ready: Ready, recipe: Path, forked: bool, ranks: int
) -> None:
    """Also those that are still importing."""
    started = ready.start(
        ["run", str(recipe), "data.train=missing.jsonl", f"devices={ranks}", "--run-dir", "run"],
        recipe.parent,
        faults={} if forked else None,
    )
    out, errors = started.communicate()
    assert started.wait() == 2, out + errors
    assert f"{ranks} ranks share the work." in out
    assert "missing.jsonl" in errors
    assert not re.search("Lost rank|Traceback", out + errors)
    assert not followers_of(recipe)


@pytest.mark.parametrize(("how", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_during_the_check_ends_the_ranks_that_had_begun(
    ready: Ready, recipe: Path, how: int, code: int
) -> None:
    done = ready.run(
        ["run", str(recipe), "devices=3", "--run-dir", "run"],
        recipe.parent,
        faults={0: ("signal_in_check", how)},
    )
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert said.count("Stopped by") == 1
    assert not re.search("Lost rank|Traceback", said)
    assert not followers_of(recipe)


def test_a_signal_to_rank_0_leaves_a_checkpoint_and_one_message(ready: Ready, recipe: Path) -> None:
    """SIGTERM, too: test_ranks.py goes on from what it leaves."""
    found, said = train(ready, recipe, ranks=3, rank0=("signal_at_step", 3, signal.SIGINT))
    assert found == 130, said
    assert not followers_of(recipe)
    assert said.count("Stopped by") == 1
    assert (
        said.count("Ctrl-C was heard: this step is finished first, and a checkpoint written.") == 1
    )
    assert "Stopped by Ctrl-C. Training stopped after step 3 of 8: its checkpoint is kept." in said
    assert steps_of(recipe) == [2, 3]


def test_a_signal_to_another_rank_stops_all_of_them(ready: Ready, recipe: Path) -> None:
    """Slurm and torchrun tell every process; one may hear it a step before the others."""
    code, said = train(ready, recipe, rank1=("signal_at_step", 3, signal.SIGTERM))
    assert code == 143, said
    assert "Training stopped after step 3 of 8: its checkpoint is kept." in said
    assert steps_of(recipe) == [2, 3]


@pytest.fixture
def preference(tmp_path: Path) -> str:
    """The key that trains on pairs: every answer was wrong."""
    rows = [{"qid": f"q{i}", "prediction": "pink"} for i in range(24)]
    return f"train.preference={write_records(tmp_path / 'answers.jsonl', rows)}"


def test_a_signal_to_another_rank_stops_the_reading_of_pairs(
    ready: Ready, recipe: Path, preference: str
) -> None:
    code, said = train(ready, recipe, preference, rank1=("signal_at_pairs", signal.SIGTERM))
    assert code == 143, said
    assert "Stopped by SIGTERM. The pairs were being read, which begins again; no step" in said
    assert steps_of(recipe) == []


ROWS_OF_TWO = ("train.samples_per_row=2", "train.batch_size=6")


def test_memory_that_runs_out_on_one_rank_halves_the_rows_of_all(
    ready: Ready, recipe: Path, tmp_path: Path
) -> None:
    code, said = train(ready, recipe, *ROWS_OF_TWO, rank1=("memory_at_step", 3, 1))
    assert code == 0, said
    assert said.count("Step 3: out of memory, 1 sample a row; the step begins again.") == 1
    halved = logged(tmp_path / "run", "loss")
    (tmp_path / "run").rename(tmp_path / "halved")
    code, said = train(ready, recipe, *ROWS_OF_TWO)
    assert code == 0, said
    assert halved == pytest.approx(logged(tmp_path / "run", "loss"), abs=1e-5)


def test_memory_that_does_not_do_at_all_ends_in_a_message(ready: Ready, recipe: Path) -> None:
    code, said = train(ready, recipe, rank1=("memory_at_step", 3, 0))
    assert code == 1, said
    assert "Step 3: there is too little memory for a single sample" in said


def test_a_fault_on_another_rank_is_told_with_its_words(ready: Ready, recipe: Path) -> None:
    code, said = train(ready, recipe, rank1=("fault_at_step", 3))
    assert code == 1, said
    assert f"Rank 1 on {HOST}: KeyError: 'what nobody thought of'" in said


def test_a_loss_that_is_not_finite_names_the_questions_of_the_rank_that_had_it(
    ready: Ready, recipe: Path
) -> None:
    code, said = train(ready, recipe, rank1=("nan_at_step", 3))
    assert code == 1, said
    (named,) = re.findall(
        r"stopped at step 3: the loss is not finite\. Questions of the row: (.*)\.\n", said
    )
    assert len(named.split(", ")) == 2  # of the step's four those of rank 1


def test_a_full_disk_on_rank_0_ends_all(ready: Ready, recipe: Path) -> None:
    code, said = train(ready, recipe, rank0=("full_disk_at_checkpoint",))
    assert code == 1, said
    assert "No space left" in said or "is full" in said
    assert steps_of(recipe) == []
    code, said = train(ready, recipe)
    assert code == 0, said


def test_a_rank_that_stands_still_is_found(ready: Ready, recipe: Path) -> None:
    code, said = train(
        ready, recipe, rank0=("soon_silent",), rank1=("signal_at_step", 3, signal.SIGSTOP)
    )
    assert code == 1, said
    assert f"Lost rank 1 on {HOST}: it gave no sign of life for" in said


def test_a_rank_that_dies_while_it_answers_ends_all(ready: Ready, recipe: Path) -> None:
    options = ["devices=2", "evaluate.batch_size=1", "--run-dir", str(recipe.parent / "run")]
    done = ready.run(
        ["evaluate", str(recipe), *options], faults={0: ("slow_answering",), 1: ("die_answering",)}
    )
    assert done.returncode == 1
    assert f"Lost rank 1 on {HOST}: it was killed by SIGKILL." in done.stderr


@pytest.mark.parametrize("others", ["other_data", "other_rejected", "other_steps"])
def test_other_data_are_named(ready: Ready, recipe: Path, preference: str, others: str) -> None:
    code, said = train(ready, recipe, preference, rank1=(others,))
    assert code == 1, said
    assert f"The training samples on rank 1 on {HOST}: not what rank 0 has." in said


@pytest.mark.parametrize(("step", "kept"), [(4, [2]), (8, [4, 6])], ids=["checkpoint", "end"])
def test_an_adapter_that_drifts_is_found(
    ready: Ready, recipe: Path, step: int, kept: list[int]
) -> None:
    code, said = train(ready, recipe, rank1=("drift_at_step", step))
    assert code == 1, said
    assert f"The adapter on rank 1 on {HOST}: not what rank 0 has." in said
    assert steps_of(recipe) == kept


def test_what_a_library_says_before_it_ends_a_rank_is_told(ready: Ready, recipe: Path) -> None:
    words = "[Rank 1] Watchdog caught collective operation timeout: NCCL\n"
    code, said = train(ready, recipe, rank1=("abort_at_step", 3, words))
    assert code == 1, said
    assert f"Lost rank 1 on {HOST}: it was killed by SIGABRT: {words.strip()}" in said


def test_another_version_is_named(ready: Ready, recipe: Path) -> None:
    code, said = train(ready, recipe, rank1=("other_version",))
    assert code == 1, said
    assert f"The versions on rank 1 on {HOST}: not what rank 0 has." in said


def test_singular_values_of_unlike_devices_are_refused_by_their_reason(
    ready: Ready, recipe: Path
) -> None:
    code, said = train(ready, recipe, "lora.init=pissa", rank1=("other_device",))
    assert code == 2, said
    assert "lora.init: pissa, and the ranks compute on devices that differ" in said
    assert train(ready, recipe, rank1=("other_device",))[0] == 0  # without, they may


def test_other_weights_are_found_before_anything_is_answered_with_them(
    ready: Ready, recipe: Path
) -> None:
    options = ["devices=2", "--run-dir", str(recipe.parent / "run")]
    slow = {0: ("slow_answering",), 1: ("other_weights",)}
    done = ready.run(["evaluate", str(recipe), "evaluate.batch_size=1", *options], faults=slow)
    assert done.returncode == 1
    assert f"Rank 1 on {HOST}: The weights of " in done.stderr
    assert "are not those that rank 0 has" in done.stderr
