from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ragtune.base.errors import UsageError
from ragtune.recipe.load import load_recipe
from ragtune.stages.sweep.grid import points_of


def changes(recipe: dict[str, Any], *overrides: str) -> list[tuple[str, ...]]:
    return [point.changes for point in points_of(load_recipe(recipe), overrides)]


def test_every_combination_in_order(tiny_recipe: dict[str, Any]) -> None:
    grid = ("train.learning_rate=1e-4,2e-4", "train.steps=5", "lora.rank=8,16")
    found = points_of(load_recipe(tiny_recipe), grid)
    assert [point.changes for point in found] == [
        (f"train.learning_rate={rate}", f"lora.rank={rank}")
        for rate in ("1e-4", "2e-4")
        for rank in ("8", "16")
    ]
    assert [point.name[:-7] for point in found] == [
        "learning_rate-1e-4_rank-8", "learning_rate-1e-4_rank-16",
        "learning_rate-2e-4_rank-8", "learning_rate-2e-4_rank-16",
    ]  # fmt: skip
    assert {point.recipe.train.steps for point in found} == {5}
    assert found[3].recipe.lora.rank == 16


def test_paths_are_whole(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written down is read from wherever it is run."""
    monkeypatch.chdir(tmp_path)
    tiny_recipe["data"] |= {"train": "train.jsonl", "eval": "ev*.jsonl"}
    (point,) = points_of(load_recipe(tiny_recipe), [])
    assert point.recipe.data.train == str(tmp_path / "train.jsonl")
    assert point.recipe.data.eval == str(tmp_path / "ev*.jsonl")
    (point,) = points_of(load_recipe(tiny_recipe), ["model.id=owner/name", "data.eval=sample:x"])
    assert point.recipe.model.id == "owner/name"
    assert point.recipe.data.eval == "sample:x"


def test_commas_within_brackets_are_no_borders(tiny_recipe: dict[str, Any]) -> None:
    grid = "lora.target_modules=[q_proj,v_proj],[all-linear]"
    assert changes(tiny_recipe, grid) == [
        ("lora.target_modules=[q_proj,v_proj]",),
        ("lora.target_modules=[all-linear]",),
    ]


def test_a_run_of_another_recipe_has_another_name(tiny_recipe: dict[str, Any]) -> None:
    """Also where what is tried is the same; not where nothing is made otherwise."""

    def names(*more: str) -> list[str]:
        grid = ["lora.rank=8,16", *more]
        return [point.name for point in points_of(load_recipe(tiny_recipe), grid)]

    assert names("train.batch_size=3") != names()
    assert names("evaluate.metric=strict_em", "name=other", "seed=9") == names()
    assert names("lora.alpha=8,9")[0] != names()[0]


def test_names_are_files_and_differ(tiny_recipe: dict[str, Any]) -> None:
    found = points_of(
        load_recipe(tiny_recipe),
        ["prompt.system='a/../b','a/…/b'", f"data.refusal={'x' * 90},{'x' * 91}"],
    )
    names = [point.name for point in found]
    assert len(set(names)) == 4
    for name in names:
        assert len(name) < 80
        assert "/" not in name
        assert load_recipe(tiny_recipe, [f"name={name}_seed-42"])


def test_steps_against_epochs(tiny_recipe: dict[str, Any]) -> None:
    assert changes(tiny_recipe, "train.epochs=1,2") == [("train.epochs=1",), ("train.epochs=2",)]


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        (("seed=1,2",), "does not try several values of seed"),
        (("evaluate.metric=strict_em,squad_em",), "evaluate.metric: it changes no model"),
        (("evaluate.answers=first,all",), "evaluate.answers: it changes no model"),
        (("evaluate.general=[a],[b]",), "evaluate.general: it changes no model"),
        (("devices=1,2",), "devices: it changes no model"),
        (("train.keep_checkpoints=1,2",), "train.keep_checkpoints: it changes no model"),
        (("publish.format=adapter,gguf",), "publish.format: it changes no model"),
        (("evaluate.limit=10,20",), "evaluate.limit: figures of other questions"),
        (("evaluate.questions=selected,all",), "evaluate.questions: figures of other questions"),
        (("data.train=a.jsonl,b.jsonl",), "does not try several values of data.train"),
        (("lora.rank=8,8.0",), "lora.rank = 8.0"),
        (("lora.alpha=8,8.0",), "are the same"),
        (("train.learning_rate",), "is no override"),
        (("lora.rank=" + ",".join(map(str, range(1, 202))),), "makes 201 points"),
        (("lora.rank=0,1",), "lora.rank = 0"),
    ],
)
def test_what_is_no_grid_is_refused(
    tiny_recipe: dict[str, Any], grid: tuple[str, ...], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        points_of(load_recipe(tiny_recipe), grid)
