"""What holds and what is made, over stages that only write a file: no model, so many cases are quick."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.stages import push, road, summary
from ragtune.stages.context import Context
from ragtune.stages.order import Stage, stage_named, stages_there, work_of
from ragtune.stages.ranks import Ranks
from ragtune.store.proof import Facts

FILES = {
    "data": ("train.jsonl",),
    "questions": ("eval.jsonl",),
    "adapter": ("adapter_model.safetensors", "adapter_config.json"),
    "merged": ("model.safetensors", "config.json"),
}
RUN = ("data", "questions", "before", "adapter", "after")


class World:
    """What stages write, and what they are made from."""

    content: dict[str, str]
    commit: str | None = None

    def __init__(self, folder: Path) -> None:
        self.folder, self.content, self.made = folder, {}, []
        for name in ("train", "one", "two"):
            (folder / f"{name}.jsonl").write_text(name, "utf-8")
        self.recipe = {
            "name": "x",
            "model": {"id": "owner/model"},
            "data": {"train": str(folder / "train.jsonl"), "eval": str(folder / "one.jsonl")},
            "prompt": {"preset": "english"},
            "train": {"steps": 5},
        }

    def context(self, *overrides: str, redo: bool = False) -> Context:
        return Context(self.recipe, overrides, self.folder / "run", redo=redo)

    def go(self, *names: str, changes: tuple[str, ...] = (), redo: bool = False) -> list[str]:
        """Make these stages as one command does; gives what was made."""
        self.made.clear()
        context = self.context(*changes, redo=redo)
        with road.working(context):
            for name in names:
                word, _, step = name.partition(" at ")
                road.make(context, stage_named(word, int(step) if step else None))
        return list(self.made)

    def two(self) -> tuple[str]:
        return (f"data.eval={self.folder / 'two.jsonl'}",)

    def function(self, stage: Stage) -> Callable[..., Facts]:
        def fill(context: Context, out: Path, *_: int) -> Facts:
            self.made.append(stage.name)
            for name in FILES.get(stage.name, ("predictions.jsonl",)):
                place = context.folder.evaluation.name if "eval/" in stage.place else ""
                text = f"{stage.name} {place} {self.content.get(stage.name, '')}"
                (out / name).write_text(text, "utf-8")
            facts: Facts = {}
            if stage.name in FILES:
                facts["prompts"] = {"room": 1000, "longest": 10, "whole": True}
            if stage.name == "adapter":
                facts |= {"plan": {}, "train": {}, "chosen_by": context.folder.evaluation.name}
            return facts

        return fill


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path)
    monkeypatch.setattr(road, "_function", world.function)
    monkeypatch.setattr(Context, "load", lambda *_, **__: None)
    monkeypatch.setattr(Context, "pin", lambda _: world.commit)
    monkeypatch.setattr(summary, "reasked_of", lambda *_: None)
    return world


def test_a_run_is_made_once(world: World) -> None:
    assert world.go(*RUN) == list(RUN)
    assert world.go(*RUN) == []


def test_other_ranks_begin_before_what_a_model_is_loaded_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ranks, "start", lambda _: world.made.append("ranks"))
    assert world.go("data") == ["data"]
    assert world.go("before") == ["ranks", "questions", "before"]
    assert world.go("adapter") == ["ranks", "adapter"]
    assert world.go("adapter", "merged") == ["merged"]  # on this rank alone


@pytest.mark.parametrize("keep", [(), ("train.keep=best", "train.eval_every=1")])
def test_other_questions_touch_no_adapter(world: World, keep: tuple[str, ...]) -> None:
    world.go(*RUN, changes=keep)
    assert world.go(*RUN, changes=(*keep, *world.two())) == ["questions", "before", "after"]
    assert world.go(*RUN, changes=keep) == []


def test_another_model_gets_no_commit_of_the_first(world: World) -> None:
    world.commit = "a" * 40
    world.go(*RUN)
    world.go(*RUN, changes=world.two())
    assert world.context().source.revision == "a" * 40
    other = world.context("model.id=owner/other", *world.two(), redo=True)
    with road.working(other):
        assert other.source.revision is None
    (world.folder / "run/eval/one/before/predictions.jsonl").write_text("damaged", "utf-8")
    world.go(*RUN)
    shutil.rmtree(world.folder / "run" / "data", ignore_errors=True)
    assert world.context("model.revision=main").source.revision == "main"


def test_what_was_made_from_a_remade_stage_is_set_aside_without_asking(world: World) -> None:
    everything = (*RUN, "merged", "controls after", "checkpoint at 50")
    world.go(*everything)
    shutil.rmtree(world.folder / "run" / "adapter")
    assert world.go(*everything) == ["adapter"]  # it came out as it was
    shutil.rmtree(world.folder / "run" / "adapter")
    world.content["adapter"] = "otherwise, as on a GPU"
    assert world.go("adapter") == ["adapter"]
    assert world.go(*everything) == ["after", "merged", "controls after"]
    assert (world.folder / "run/old-1/merged").is_dir()
    assert world.go(*everything) == []


def test_a_checkpoints_answers_go_with_the_data(world: World) -> None:
    world.go(*RUN, "checkpoint at 50")
    shutil.rmtree(world.folder / "run" / "data")
    (world.folder / "train.jsonl").write_text("other", "utf-8")
    world.content["data"] = "other"
    again = world.go(*RUN, "checkpoint at 50")
    assert again == ["data", "questions", "before", "adapter", "after", "checkpoint 50"]


def test_figures_need_no_adapter(world: World) -> None:
    world.go(*RUN)
    shutil.rmtree(world.folder / "run" / "adapter")
    assert world.go("after") == []


def test_another_day_is_another_prompt(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.go("data", "questions")
    first = work_of(world.context().folder, stage_named("adapter"), world.context().recipe)
    shutil.rmtree(world.folder / "run")
    monkeypatch.setattr("ragtune.stages.context.today", lambda: date(2031, 1, 1))
    world.go("data", "questions")
    assert work_of(world.context().folder, stage_named("adapter"), world.context().recipe) != first


def test_room_for_answers_that_changes_no_prompt_keeps_what_was_begun(world: World) -> None:
    world.go("data", "questions")
    folder, adapter = world.context().folder, stage_named("adapter")
    found = {
        work_of(folder, adapter, world.context(f"evaluate.max_new_tokens={count}").recipe)
        for count in (32, 64)
    }
    assert len(found) == 1
    with pytest.raises(UsageError, match="no longer valid: data, questions"):
        world.go(changes=("evaluate.max_new_tokens=2000",))


def test_a_mistyped_file_does_not_become_what_the_run_stands_for(world: World) -> None:
    world.go(*RUN)
    before = (world.folder / "run" / "recipe.yaml").read_bytes()
    with pytest.raises(KeyError):
        world.go("no stage", changes=world.two())
    assert (world.folder / "run" / "recipe.yaml").read_bytes() == before


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 1}'])
@pytest.mark.parametrize("name", ["work/plan.json", "published.json", "run.json"])
def test_what_can_be_done_without_stops_nothing(world: World, name: str, content: str) -> None:
    world.go(*RUN)
    path = world.folder / "run" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content, "utf-8")
    assert world.go(*RUN) == []
    path.unlink()
    assert world.go(*RUN) == []


@pytest.mark.parametrize("sign", ["data/eval.jsonl", "before/metrics.json", "comparison.json"])
def test_an_older_run_is_left_alone(world: World, sign: str) -> None:
    path = world.folder / "run" / sign
    path.parent.mkdir(parents=True)
    path.write_text("{}", "utf-8")
    (world.folder / "run" / "run.json").write_text("{}", "utf-8")
    with pytest.raises(UsageError, match="made by an older ragtune"):
        world.go(*RUN, redo=True)
    with pytest.raises(UsageError, match="made by an older ragtune"):
        push.preview(world.context("publish.repo=alice/model"))
    assert path.exists()


def test_a_proof_of_a_newer_version_is_no_damage(world: World) -> None:
    world.go(*RUN)
    path = world.folder / "run" / "adapter" / "stage.json"
    values = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**values, "format": 2, "new": 1}), "utf-8")
    with pytest.raises(UsageError, match="made by a newer ragtune"):
        world.go(*RUN)
    assert path.exists()


def test_a_touched_input_is_read_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.go(*RUN)
    (world.folder / "train.jsonl").touch()
    world.go(*RUN)
    read: list[Any] = []
    monkeypatch.setattr("ragtune.store.seal.SMALL", 0)
    monkeypatch.setattr("ragtune.store.seal.sha256", lambda path: read.append(path) or "")
    world.go(*RUN)
    assert not read


def test_a_push_makes_nothing_from_changed_files(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "may_publish", lambda _: "may")
    change = ("publish.repo=alice/model", "publish.format=adapter")
    world.go(*RUN)
    shutil.rmtree(world.folder / "run" / "adapter")
    (world.folder / "train.jsonl").write_text("changed", "utf-8")
    with pytest.raises(UsageError, match=r"train\.jsonl has changed"):
        push.push_alone(world.context(*change))


def test_a_large_file_that_is_found_damaged_at_a_push_is_set_aside(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "may_publish", lambda _: "may")
    monkeypatch.setattr("ragtune.store.seal.SMALL", 0)
    world.go(*RUN)
    file = world.folder / "run" / "adapter" / "adapter_model.safetensors"
    stat = file.stat()
    file.write_bytes(file.read_bytes()[::-1])
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    context = world.context("publish.repo=alice/model", "publish.format=adapter")
    with pytest.raises(RagtuneError, match="adapter is damaged") as error:
        push.push_alone(context)
    assert "it is made again" in error.value.advice
    assert "adapter" not in [stage.name for stage in stages_there(context.folder)]


def test_what_a_judge_said_goes_with_the_answers(world: World) -> None:
    world.go(*RUN)
    place = world.folder / "run/eval/one"
    kept = [place / "judge" / name for name in ("before.json", "after.json", "replies.jsonl")]
    kept[0].parent.mkdir()
    for path in kept:
        path.write_text("{}", "utf-8")
    world.go(*RUN, changes=("train.steps=6",), redo=True)
    assert [path.exists() for path in kept] == [True, False, True]
    (place / "before" / "predictions.jsonl").write_text("damaged", "utf-8")
    world.go(*RUN, changes=("train.steps=6",))
    assert [path.exists() for path in kept] == [False, False, True]
