"""A run on several GPUs is the run on one, as it is with processes on a CPU: `pytest -m gpu tests/distributed`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import ragtune
from ragtune.distributed import followers
from ragtune.distributed.followers import Followers
from ragtune.recipe.load import load_recipe
from ragtune.stages.early import followers_for
from ragtune.stages.ranks import devices_of
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

AGAIN: Any = "all" if torch.cuda.device_count() == 2 else [0, 1]
"""The first two GPUs, named otherwise than by 2."""
RUNS: tuple[tuple[str, int, list[Any]], ...] = (
    ("float32", 8, [1, 2, "all", [1, 0], AGAIN]),
    ("bfloat16", 30, [1, 2]),  # so long that rows become CUDA graphs
)
"""Of each dtype how many steps, and on which devices."""
Make = Callable[[str, object], Path]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Iterator[Make]:
    """Makes a whole run in a dtype on some devices, once; returns its directory.

    The processes beside rank 0 begin with the first, for all of them: to import takes each longer than its run.
    """
    recipes: dict[str, Path] = {}
    others: dict[str, Followers] = {}
    for dtype, steps, devices in RUNS:
        for of in devices:
            # Beside none whose answers it could take.
            folder = tmp_path_factory.mktemp(f"{dtype}-{of}")
            content: dict[str, Any] = tiny_recipe.__wrapped__(folder, tiny_folder)  # type: ignore[attr-defined]
            content["model"]["dtype"], content["devices"] = dtype, of
            content["train"]["steps"] = steps
            recipes[f"{dtype} {of}"] = folder / "recipe.yaml"
            recipes[f"{dtype} {of}"].write_text(yaml.safe_dump(content), "utf-8")

    def begin() -> None:
        for name, path in recipes.items():
            recipe = load_recipe(path)
            others[name] = followers_for(recipe, devices_of(recipe))
        for one in others.values():
            one.begin()

    def make(dtype: str, of: object) -> Path:
        if not others:
            begin()  # in a test, where the cache is none of the user's
        path = recipes[f"{dtype} {of}"]
        made = path.with_name("run")
        if not made.exists():
            followers._early.append(others[f"{dtype} {of}"])
            ragtune.run(path, run_dir=made)
        return made

    yield make
    for one in others.values():
        with one:
            pass


@pytest.mark.parametrize("devices", ["all", 2, [1, 0]], ids=str)
def test_a_run_in_float32_is_that_of_one(run: Make, devices: object) -> None:
    one, several = (run("float32", of) for of in (1, devices))
    require_equal(several, one)
    require_same_answers(several, one)


def test_a_run_again_is_the_same_bit_for_bit(run: Make) -> None:
    one, again = (run("float32", of) for of in (2, AGAIN))
    weights = "adapter/adapter_model.safetensors"
    assert (one / weights).read_bytes() == (again / weights).read_bytes()


def test_ranks_run_their_rows_as_graphs(run: Make) -> None:
    one, several = (run("bfloat16", of) for of in (1, 2))
    for made in (one, several):
        plan = json.loads((made / "run.json").read_text("utf-8"))["plan"]
        assert plan["graphs"].startswith("rows as CUDA graphs, of ")
    assert logged(several, "loss") == pytest.approx(logged(one, "loss"), rel=0.05)


def test_answers_that_change_in_bfloat16_are_counted(
    run: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    """There an answer depends on its batch, also on one GPU: how many changed is told, not judged."""
    one, several = (run("bfloat16", of) for of in (1, 2))
    for which in ASKED:
        found, asked = changed(several, one, which), len(answers_of(one, which))
        with capsys.disabled():
            sys.stdout.write(f"\n{which}: {found} of {asked} answers changed")
