from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from ragtune.base.errors import UsageError
from ragtune.recipe.load import load_recipe
from ragtune.stages.sweep.folder import SweepFolder
from ragtune.stages.sweep.grid import points_of
from tests.conftest import write_records


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
    assert [point.name[:-11] for point in found] == [
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
    (tmp_path / "p.jsonl").touch()
    tiny_recipe["data"] |= {"train": "train.jsonl", "eval": "ev*.jsonl"}
    (point,) = points_of(load_recipe(tiny_recipe), ["train.preference=p.jsonl"])
    assert point.recipe.train.preference == str(tmp_path / "p.jsonl")
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
    # What the evaluation set is, the held questions are not asked by.
    assert names("data.eval=sample:squad2.dev") == names()


def test_a_run_of_other_files_has_another_name(tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    """The weights of a local model, and the answers that are rejected: under the same path, too."""
    model = shutil.copytree(tiny_recipe["model"]["id"], tmp_path / "model")
    rejected = write_records(tmp_path / "p.jsonl", [{"qid": "q0", "prediction": "purple"}])
    tiny_recipe["model"]["id"] = str(model)

    def names() -> list[str]:
        grid = [f"train.preference=null,{rejected}"]
        return [point.name for point in points_of(load_recipe(tiny_recipe), grid)]

    plain, preferring = names()
    assert names() == [plain, preferring]
    write_records(rejected, [{"qid": "q0", "prediction": "mauve"}])
    assert names()[0] == plain
    assert names()[1] != preferring
    weights = model / "model.safetensors"
    save_file({k: v * 0.5 for k, v in load_file(weights).items()}, weights, {"format": "pt"})
    assert names()[0] != plain


def test_runs_are_taken_over_by_whatever_keys_they_were_tried(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    where, recipe = SweepFolder(tmp_path / "sweep"), load_recipe(tiny_recipe)
    before = points_of(recipe, ["train.learning_rate=1e-4,2e-4"])
    for point in before:
        (where.runs / point.run(7)).mkdir(parents=True)
    grid = ["train.learning_rate=0.0002,3e-4", "lora.rank=4,16"]
    after = where.taken_over(points_of(recipe, grid))
    assert [point.name == before[1].name for point in after] == [True, False, False, False]
    assert after[0].run(8) == f"{before[1].name}_seed-8"
    assert after[0].label == "train.learning_rate=0.0002, lora.rank=4"
    assert len({point.name for point in after}) == 4


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


def test_a_grid_may_hold_what_refuses_and_what_does_not_if_all_are_asked_the_same(
    tiny_recipe: dict[str, Any],
) -> None:
    grid = ("data.refusal=null,No answer", "evaluate.questions=all")
    assert len(changes(tiny_recipe, *grid)) == 2


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
        (
            ("tuning=full", "publish.format=merged", "lora.rank=8,16"),
            "several values of lora.rank: all",
        ),
        (("tuning=lora,full", "lora.alpha=8,16"), "several values of lora.alpha: all weights"),
        (("data.refusal=null,No answer",), "data.refusal is null for some points"),
        (("lora.rank=8,16", "lora.rank=32"), "lora.rank is given 2 times"),
    ],
)
def test_what_is_no_grid_is_refused(
    tiny_recipe: dict[str, Any], grid: tuple[str, ...], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        points_of(load_recipe(tiny_recipe), grid)
