"""Ways to make a step, on several ranks: as on one. (A base that is spread: test_sharded.py.)"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from tests.distributed.runs import WEIGHTS, logged, require_equal
from tests.ready import Ready


def train(
    ready: Ready, recipe: dict[str, Any], run: Path, ranks: int, *faults: tuple[Any, ...]
) -> str:
    """Train on so many ranks, with what is put into each; what was said."""
    path = run.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(recipe), "utf-8")
    done = ready.run(
        ["train", str(path), f"devices={ranks}", "--run-dir", str(run)],
        faults=dict(enumerate(faults)),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_products_in_8_bits(ready: Ready, tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    """A sum in another order may round a number the other way: so they are near, and not to 1e-5."""
    tiny_recipe["lora"]["dropout"] = 0.05
    tiny_recipe["train"] |= {"products": "fp8", "steps": 3}
    for ranks in (1, 2):
        said = train(ready, tiny_recipe, tmp_path / str(ranks), ranks, ("fp8_on_cpu",))
        assert said.count("Products of 14 of 14 linear layers are in 8 bits.") == 1
    one, two = (tmp_path / n for n in "12")
    assert logged(two, "loss") == pytest.approx(logged(one, "loss"), abs=0.02)
    expected, found = (load_file(run / WEIGHTS) for run in (one, two))
    away = sum(float((found[name] - weight).square().sum()) for name, weight in expected.items())
    assert away < 0.05**2 * sum(float(weight.square().sum()) for weight in expected.values())


def test_rows_as_graphs(ready: Ready, tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    """On all ranks, and on one alone: each finds for itself whether they are worth it."""
    tiny_recipe["train"] |= {"samples_per_row": 1}
    train(ready, tiny_recipe, tmp_path / "one", 1)
    graphs = ("graphs_on_cpu", str(tmp_path / "replayed"))
    for name, faults in {"both": (graphs, graphs), "rank 1": ((), graphs)}.items():
        said = train(ready, tiny_recipe, tmp_path / name, 2, *faults)
        assert ("rows as CUDA graphs, of " in " ".join(said.split())) == (name == "both")
        require_equal(tmp_path / name, tmp_path / "one")
    replayed = Counter((tmp_path / "replayed").read_text("utf-8").split())
    assert len(replayed) == 3
    assert min(replayed.values()) > 8
