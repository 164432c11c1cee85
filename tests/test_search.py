"""bench/search.py: what it tries are keys and values that recipes take."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

from ragtune.recipe.load import load_recipe
from ragtune.stages.sweep.grid import points_of

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "bench"))
import search  # noqa: E402 - a script


@pytest.mark.parametrize(
    ("name", "stage"),
    [(name, stage) for name, stages in search.SEARCHES.items() for stage in stages],
)
def test_every_grid_makes_points(
    name: str, stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    options = argparse.Namespace(model="m", data=tmp_path, work=tmp_path, out=tmp_path, tiny=False)
    own = search.Search(name, options).own
    recipe = load_recipe(ROOT / "recipes" / search.BEGIN[name][0])
    for grid in search.SEARCHES[name][stage]:
        points = points_of(recipe, [*own, *grid.split()])
        assert len(points) >= 1 + ("," in grid)
        assert len({point.name for point in points}) == len(points)


def test_a_stage_goes_on_from_the_best_of_the_one_before(tmp_path: Path) -> None:
    options = argparse.Namespace(model="m", data=tmp_path, work=tmp_path, out=tmp_path, tiny=False)
    one = search.Search("reader", options)
    first, *others = one.stages
    assert one.before(first)[0].name == "quickstart-ja.yaml"
    for before, stage in zip(one.stages, [*others, "dev"], strict=True):
        assert one.before(stage)[0] == tmp_path / "reader" / before / "best.yaml"
