"""A run on several ranks is the run on one: losses, adapter, answers."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import ragtune
from tests.conftest import tiny_recipe
from tests.ready import Ready

WEIGHTS = "adapter/adapter_model.safetensors"


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
    """A whole run on so many ranks; it is made once."""

    def run(ranks: int) -> Path:
        folder = recipe.parent / str(ranks)
        if not folder.exists():
            said = do(ready, "run", recipe, folder, ranks)
            assert said.count(f"{ranks} ranks share the work.") == (ranks > 1)
        return folder

    return run


def logged(run: Path, what: str) -> list[float]:
    lines = map(json.loads, (run / "adapter" / "train_log.jsonl").open())
    return [line[what] for line in lines if what in line]


def answers_of(run: Path, which: str) -> bytes:
    return (run / "eval" / "eval" / which / "predictions.jsonl").read_bytes()


def require_equal(several: Path, one: Path) -> None:
    """Two runs have the same losses and the same adapter, but for the order of sums."""
    assert logged(several, "loss") == pytest.approx(logged(one, "loss"), abs=1e-5)
    expected, found = load_file(one / WEIGHTS), load_file(several / WEIGHTS)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-5, rtol=0)


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
        for which in ("before", "after", "merged"):
            assert answers_of(several, which) == answers_of(one, which)


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
    one, three = (logged(tmp_path / name, "eval_loss") for name in "13")
    assert len(one) == 4
    assert three == pytest.approx(one, abs=1e-5)


def test_ranks_that_python_starts_do_the_same(
    recipe: Path, tmp_path: Path, whole: Callable[[int], Path]
) -> None:
    """The other tests fork them, and this process, as a notebook's would, is rank 0."""
    ragtune.train(recipe, "devices=2", run_dir=tmp_path / "two")
    require_equal(tmp_path / "two", whole(1))
