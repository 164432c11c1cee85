"""Answers before tuning are taken from a run beside this one, and only where nothing differs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import ragtune
from ragtune.stages import order, road, twins
from ragtune.stages.context import Context
from ragtune.stages.order import Stage
from ragtune.store.proof import Facts
from tests.stages.test_road import World, world

__all__ = ["world"]

ON: dict[str, Any] = {"device": "CPU", "dtype": "float32", "at_a_time": 25}
ASKED = ("data", "questions", "before")


class Sweep:
    """Runs beside each other, and what each made itself."""

    def __init__(self, world: World) -> None:
        self.world = world

    def go(self, name: str, *changes: str, stages: tuple[str, ...] = ASKED) -> list[str]:
        self.world.made.clear()
        context = Context(self.world.recipe, changes, self.world.folder / "runs" / name)
        with road.working(context):
            for stage in stages:
                road.make(context, stage)
        return list(self.world.made)

    def place(self, name: str, stage: str = "before") -> Path:
        return self.world.folder / "runs" / name / "eval" / "one" / stage


@pytest.fixture
def sweep(world: World, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    plain = world.function

    def function(stage: Stage) -> Callable[..., Facts]:
        def fill(context: Context, out: Path, *rest: int) -> Facts:
            return {**plain(stage)(context, out, *rest), "answered_on": twins.answered_on(context)}

        return fill

    monkeypatch.setattr(road, "_function", function)
    monkeypatch.setattr(twins, "answered_on", lambda _: dict(ON))
    monkeypatch.setattr(twins, "versions", lambda: {"torch": "1"})
    monkeypatch.setattr(road, "versions", lambda: {"torch": "1"})
    return Sweep(world)


def test_a_sweep_asks_the_base_once(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    controls = (*ASKED, "controls before")
    assert sweep.go("a", stages=controls) == list(controls)
    assert sweep.go("b", "train.learning_rate=0.5", "lora.rank=4", stages=controls) == [
        "data",
        "questions",
    ]
    assert "Not asked again: a has these answers" in capsys.readouterr().out
    for stage in ("before", "controls-before"):
        answers, proof = (
            sweep.place("b", stage) / name for name in ("predictions.jsonl", "stage.json")
        )
        assert answers.read_bytes() == (sweep.place("a", stage) / answers.name).read_bytes()
        assert answers.stat().st_ino != (sweep.place("a", stage) / answers.name).stat().st_ino
        assert json.loads(proof.read_text("utf-8"))["facts"]["taken_from"] == "a"
    assert sweep.go("b", "train.learning_rate=0.5", "lora.rank=4", stages=controls) == []


@pytest.mark.parametrize(
    "change",
    ["seed=1", "data.max_passages=1", "prompt.preset=aio", "evaluate.limit=1", "evaluate.questions=all",
     "evaluate.batch_size=3", "model.dtype=float32", "evaluate.max_new_tokens=9", "model.id=owner/other"],
)  # fmt: skip
def test_another_recipe_asks_itself(sweep: Sweep, change: str) -> None:
    sweep.go("a")
    assert sweep.go("b", change) == list(ASKED)


def other_commit(sweep: Sweep, _: pytest.MonkeyPatch) -> None:
    sweep.world.commit = "b" * 40


def other_questions(sweep: Sweep, _: pytest.MonkeyPatch) -> None:
    sweep.world.content["questions"] = "otherwise"


def other_prompts(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragtune.stages.context.today", lambda: date(2001, 1, 1))


def other_device(_: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twins, "answered_on", lambda _: {**ON, "device": "GPU"})


def other_versions(_: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twins, "versions", lambda: {"torch": "2"})


def damaged(sweep: Sweep, _: pytest.MonkeyPatch) -> None:
    path = sweep.place("a") / "predictions.jsonl"
    path.write_bytes(path.read_bytes()[::-1])


def no_proof(sweep: Sweep, _: pytest.MonkeyPatch) -> None:
    (sweep.place("a") / "stage.json").write_text("{", "utf-8")


def elsewhere(sweep: Sweep, _: pytest.MonkeyPatch) -> None:
    proof = sweep.place("a") / "stage.json"
    values = json.loads(proof.read_text("utf-8"))
    values["files"]["../before/predictions.jsonl"] = values["files"].pop("predictions.jsonl")
    proof.write_text(json.dumps(values), "utf-8")


def other_owner(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    run, stat = sweep.place("a").parents[2], Path.stat

    def owned(path: Path, **how: bool) -> os.stat_result:
        found = stat(path, **how)
        return os.stat_result((*found[:4], found.st_uid + 1, *found[5:])) if path == run else found

    monkeypatch.setattr(Path, "stat", owned)


@pytest.mark.parametrize(
    "change",
    [other_commit, other_questions, other_prompts, other_device, other_versions, damaged, no_proof, elsewhere,
     other_owner],
)  # fmt: skip
def test_nothing_is_taken_where_anything_differs(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, change: Callable[..., None]
) -> None:
    sweep.world.commit = "a" * 40
    sweep.go("a")
    change(sweep, monkeypatch)
    assert sweep.go("b", "train.steps=9") == list(ASKED)


def test_a_servers_answers_are_its_own(sweep: Sweep) -> None:
    server = ("evaluate.engine=openai", "evaluate.endpoint=http://localhost:1/v1")
    sweep.go("a", *server)
    assert sweep.go("b", *server, "train.steps=9") == list(ASKED)


def test_a_changed_model_folder_asks_itself(tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    """With real models: their files are in the digest of the questions."""
    for name, change in (("a", []), ("b", ["train.learning_rate=0.5"])):
        ragtune.evaluate({**tiny_recipe, "name": name}, *change, run_dir=tmp_path / "runs" / name)
    taken = [
        json.loads((tmp_path / "runs" / n / "eval/eval/before/stage.json").read_text("utf-8"))[
            "facts"
        ]
        for n in ("a", "b")
    ]
    assert taken[1].pop("taken_from") == "a"
    assert taken[0] == taken[1]
    assert taken[0]["answered_on"]["dtype"] == "float32"
    before = order.stage_named("before")
    model = Path(tiny_recipe["model"]["id"])
    other = tmp_path / "model"
    other.mkdir()
    for file in model.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    settings = other / "generation_config.json"
    settings.write_text(settings.read_text("utf-8").rstrip() + "\n\n", "utf-8")
    recipe = {**tiny_recipe, "name": "c", "model": {"id": str(other), "dtype": "float32"}}
    context = Context(recipe, (), tmp_path / "runs" / "c")
    with road.working(context):
        road.make(context, "questions")
        digests = order.digests_of(context.folder, before, context.recipe)
        assert twins.find_twin(context, before, digests) is None
