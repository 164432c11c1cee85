"""A run on several ranks is the run on one: losses, adapter, answers."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

import ragtune
from tests.conftest import make_records, tiny_recipe, write_records
from tests.distributed.runs import (
    WEIGHTS,
    answers_of,
    changed,
    files_of,
    logged,
    require_equal,
    require_same_answers,
)
from tests.ready import Ready


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """With all that is drawn: dropout, and noise on the embeddings."""
    folder = tmp_path_factory.mktemp("ranks")
    content = tiny_recipe.__wrapped__(folder, tiny_folder)  # type: ignore[attr-defined]
    content["lora"]["dropout"] = 0.05
    content["train"]["arguments"] = {"neftune_noise_alpha": 5}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content), "utf-8")
    return path


@pytest.fixture(scope="module")
def whole(ready: Ready, recipe: Path) -> Callable[[int], Path]:
    """A whole run on so many ranks; it is made once. Beside none whose answers it could take."""

    def run(ranks: int) -> Path:
        folder = recipe.parent / str(ranks) / "run"
        if not folder.exists():
            said = do(ready, "run", recipe, folder, ranks)
            assert said.count(f"{ranks} ranks share the work.") == (ranks > 1)
        return folder

    return run


def do(
    ready: Ready, command: str, recipe: Path, run: Path, ranks: int, *fault: Any, code: int = 0
) -> str:
    """A command on several ranks, with something that happens to rank 0; what it said."""
    done = ready.run(
        [command, str(recipe), f"devices={ranks}", "--run-dir", str(run)], faults={0: fault}
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert not done.stderr or code
    return done.stdout


def test_a_run_is_that_of_one(whole: Callable[[int], Path]) -> None:
    one = whole(1)
    for ranks in (2, 3):
        several = whole(ranks)
        require_equal(several, one)
        require_same_answers(several, one)
        assert files_of(several) == files_of(one)


def test_the_same_run_again_is_the_same_bit_for_bit(
    ready: Ready, recipe: Path, tmp_path: Path, whole: Callable[[int], Path]
) -> None:
    """Also if nothing was answered before it was trained."""
    do(ready, "train", recipe, tmp_path / "again", 3)
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (whole(3) / WEIGHTS).read_bytes()


@pytest.mark.parametrize(("begun", "further"), [(1, (2,)), (2, (1, 3))])
def test_a_run_goes_on_with_another_number_of_ranks(
    ready: Ready,
    recipe: Path,
    tmp_path: Path,
    whole: Callable[[int], Path],
    begun: int,
    further: tuple[int, ...],
) -> None:
    run = tmp_path / "run"
    do(ready, "train", recipe, run, begun, "signal_at_step", 3, signal.SIGTERM, code=143)
    for ranks in further:
        copy = tmp_path / str(ranks)
        shutil.copytree(run, copy)
        said = " ".join(do(ready, "train", recipe, copy, ranks).split())
        assert "Going on from step 3." in said
        assert "the result will not be that of an uninterrupted run, bit for bit" in said
        require_equal(copy, whole(1))


def test_a_checkpoint_is_asked_on_several_ranks_as_on_one(
    ready: Ready, recipe: Path, tmp_path: Path, whole: Callable[[int], Path]
) -> None:
    for ranks in (1, 2):
        run = tmp_path / str(ranks)
        shutil.copytree(whole(1), run)
        asked = ["evaluate", str(recipe), f"devices={ranks}", "--run-dir", str(run)]
        done = ready.run([*asked, "--checkpoint", "4"], faults={})
        assert done.returncode == 0, done.stdout + done.stderr
        assert ("2 ranks share the work." in done.stdout) == (ranks == 2)
    assert changed(tmp_path / "2", tmp_path / "1", "checkpoints/4") == 0


def test_controls_are_those_of_one(
    ready: Ready, recipe: Path, tmp_path: Path, whole: Callable[[int], Path]
) -> None:
    for ranks in (1, 2):
        run = tmp_path / str(ranks) / "run"  # beside none whose answers it could take
        shutil.copytree(whole(1), run)
        asked = ["evaluate", str(recipe), f"devices={ranks}", "--run-dir", str(run), "--controls"]
        done = ready.run(asked, faults={0: ("others_answer_first",)})
        assert done.returncode == 0, done.stdout + done.stderr
        assert ("2 ranks share the work." in done.stdout) == (ranks == 2)
    one, two = (tmp_path / n / "run" for n in "12")
    for which in ("controls-before", "controls-after"):
        assert changed(two, one, which) == 0
        assert len(answers_of(two, which)) > 50
    found, expected = (
        json.loads((of / "eval/eval/controls.json").read_text("utf-8")) for of in (two, one)
    )
    assert found == expected


def test_looks_at_the_evaluation_set_are_those_of_one_also_with_fewer_rows_than_ranks(
    ready: Ready, recipe: Path, tmp_path: Path
) -> None:
    changed = yaml.safe_load(recipe.read_text("utf-8"))
    changed["train"] |= {"eval_every": 2, "eval_answers": 2, "keep": "best"}
    changed["train"] |= {"batch_size": 24, "samples_per_row": 8}
    other = tmp_path / "recipe.yaml"
    other.write_text(yaml.safe_dump(changed), "utf-8")
    for ranks in (1, 3):
        do(ready, "train", other, tmp_path / str(ranks), ranks)
    require_equal(tmp_path / "3", tmp_path / "1")
    assert len(logged(tmp_path / "1", "eval_loss")) == 4


def test_pairs_redrawn_negatives_and_pissa_are_those_of_one(
    ready: Ready, recipe: Path, tmp_path: Path
) -> None:
    changed = yaml.safe_load(recipe.read_text("utf-8"))
    rows = [{"qid": r["qid"], "prediction": f"pink {i}"} for i, r in enumerate(make_records(22))]
    changed["data"]["redraw_negatives"] = 3
    changed["lora"]["init"] = "pissa"
    # The last of its steps has fewer pairs than there are ranks.
    changed["train"] |= {"preference": str(write_records(tmp_path / "given.jsonl", rows))}
    changed["train"] |= {"steps": None, "epochs": 2, "batch_size": 6, "learning_rate": 0.001}
    other = tmp_path / "recipe.yaml"
    other.write_text(yaml.safe_dump(changed), "utf-8")
    for ranks in (1, 3):
        do(ready, "train", other, tmp_path / str(ranks), ranks)
    require_equal(tmp_path / "3", tmp_path / "1")
    assert logged(tmp_path / "1", "loss")[-1] < 0.65


def test_ranks_that_python_starts_do_the_same(
    recipe: Path,
    tmp_path: Path,
    whole: Callable[[int], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other tests fork them, and this process, as a notebook's would, is rank 0; here in a job of Slurm."""
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    ragtune.train(recipe, "devices=2", run_dir=tmp_path / "two")
    require_equal(tmp_path / "two", whole(1))


ASKING = """
import io, sys
from ragtune.asking import session
from ragtune.cli import main
session._AT_ONCE = 3
sys.stdin = io.StringIO("".join(f"What colour is house {n}?\\n" for n in range(14)))
main(["ask", *sys.argv[1:]])
"""


def ask(ready: Ready, run: Path, devices: int, **faults: Sequence[Any]) -> Any:
    """Ask lines of standard input, of which few are many."""
    passages = run.parent / "passages.txt"
    passages.write_text("House 2 is blue. House 3 is red.", "utf-8")
    given = [str(run), f"devices={devices}", "--passages", str(passages), "--json"]
    happens = {int(name[4:]): one for name, one in faults.items()}
    return ready.run(["-c", ASKING, *given], program="python", faults=happens)


def test_many_questions_are_asked_of_all_ranks(
    ready: Ready, whole: Callable[[int], Path], tmp_path: Path
) -> None:
    run = whole(1)
    one, two = (ask(ready, run, devices) for devices in (1, 2))
    assert two.stderr.count("2 ranks share the work.") == 1
    assert "ranks" not in one.stderr
    expected, found = ([json.loads(x) for x in done.stdout.splitlines()] for done in (one, two))
    assert len(found) == 14
    for answer in (*expected, *found):
        answer.pop("seconds")
    assert found == expected
    lost = ask(ready, run, 2, rank0=("slow_answering",), rank1=("die_answering",))
    assert lost.returncode == 1
    assert "Lost rank 1" in lost.stderr
    assert "Then ask again." in lost.stderr
