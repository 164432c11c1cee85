"""A tuned adapter is asked other questions: evaluation sets beside each other, on a read-only disk as well."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

import ragtune
from ragtune.base import lock
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.cli import main
from ragtune.recipe.load import load_recipe
from ragtune.store.sets import find_set, own_set, sets_there
from tests.conftest import make_records, write_records
from tests.stages.test_road import RUN, World, world
from tests.store.test_folder import finished

__all__ = ["finished", "world"]


def leave(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return stop.value.code


def test_two_files_of_one_name_lie_beside_each_other(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.go(*RUN)
    other = world.folder / "other" / "one.jsonl"
    other.parent.mkdir()
    other.write_text("other", "utf-8")
    change = (f"data.eval={other}",)
    run = world.folder / "run"
    assert world.go("questions", "after", changes=change) == ["questions", "after"]
    assert world.go("questions", "after", changes=change) == []
    assert world.go(*RUN) == []
    another = find_set(run, load_recipe(world.recipe, list(change)))
    assert another.startswith("one-")
    assert sets_there(run) == {"one": str(world.folder / "one.jsonl"), another: str(other)}
    assert own_set(run) == "one"


def test_datasets_of_one_name_lie_beside_each_other(world: World) -> None:
    world.go(*RUN, changes=("data.eval=a/squad:dev",))
    run = world.folder / "run"
    first, second, third = (
        find_set(run, load_recipe(world.recipe, [f"data.eval={name}"]))
        for name in ("a/squad:dev", "b/squad:dev", "a/squad:test")
    )
    assert (first, third) == ("squad-dev", "squad-test")
    assert second.startswith("squad-dev-")


def test_recipe_and_summary_stay_those_that_trained(world: World) -> None:
    world.go(*RUN)
    run = world.folder / "run"
    recipe = (run / "recipe.yaml").read_bytes()
    summary = json.loads((run / "run.json").read_text("utf-8"))
    world.go("questions", "after", changes=world.two())
    assert (run / "recipe.yaml").read_bytes() == recipe
    assert summary.pop("sets") == {"one": str(world.folder / "one.jsonl")}
    now = json.loads((run / "run.json").read_text("utf-8"))
    assert now.pop("sets") == {n: str(world.folder / f"{n}.jsonl") for n in ("one", "two")}
    assert now == summary
    world.go(*RUN)  # with the recipe that trained
    assert (run / "recipe.yaml").read_bytes() == recipe


def test_new_questions_end_to_end(
    finished: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, run = finished(tmp_path)
    adapter = (run / "adapter" / "stage.json").read_bytes()
    new = f"data.eval={write_records(tmp_path / 'new.jsonl', make_records(6, 'n'))}"
    with pytest.raises(UsageError, match="no answers before and after") as error:
        ragtune.compare(run, new)
    assert error.value.advice.count(new) == 2
    assert error.value.advice.endswith(f"ragtune evaluate {run} {new}")
    assert ragtune.evaluate(run, new)["n"] == 6
    with pytest.raises(UsageError) as error:
        ragtune.compare(run, new)
    assert error.value.advice == f"Ask them: ragtune evaluate {run} {new} --base"
    ragtune.evaluate(run, new, base=True)
    assert ragtune.compare(run, new)["n"] == 6
    assert ragtune.compare(run)["n"] == 10
    # What was asked for once does not become what the run stands for.
    ragtune.evaluate(run, "evaluate.metric=contains")
    stands = yaml.safe_load((run / "recipe.yaml").read_text("utf-8"))
    assert stands["evaluate"]["metric"] == "squad_em"
    assert stands["data"]["eval"].endswith("/eval.jsonl")
    page, other = (run / p / "report.html" for p in ("", "eval/new"))
    assert '<a href="eval/new/report.html">new</a>' in page.read_text("utf-8")
    assert '<a href="../../report.html">eval</a>' in other.read_text("utf-8")
    capsys.readouterr()
    assert leave("evaluate", str(run), new, "--json", "--at-least", "squad_em=1") == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["n"] == 6
    assert "Not reached over 6 questions: squad_em is" in said.err
    assert leave("evaluate", str(run), "--controls", "--at-least", "squad_em=1") == 2
    assert (run / "adapter" / "stage.json").read_bytes() == adapter
    assert not list(run.glob("old-*"))


def test_figures_of_an_adapter_that_is_no_more_are_not_shown(finished: Any, tmp_path: Path) -> None:
    _, run = finished(tmp_path)
    new = f"data.eval={write_records(tmp_path / 'new.jsonl', make_records(6, 'n'))}"
    ragtune.evaluate(run, new)
    ragtune.report(run)
    again = f"asked of what is there no more; again: ragtune evaluate {run} {new}"
    assert again not in (run / "report.html").read_text("utf-8")
    ragtune.train(run, "train.steps=2", redo=True)
    ragtune.report(run, "train.steps=2")
    assert again in (run / "report.html").read_text("utf-8")
    assert (run / "eval" / "new" / "after").is_dir()  # which is set aside when it is asked again


def test_runs_are_compared_over_a_set_of_both(finished: Any, tmp_path: Path) -> None:
    recipe, run = finished(tmp_path)
    other = tmp_path / "other"
    ragtune.train({**recipe, "name": "other"}, "train.learning_rate=0.02", run_dir=other)
    new = tmp_path / "new.jsonl"
    write_records(new, make_records(6, "n"))
    ragtune.evaluate(run, f"data.eval={new}")
    with pytest.raises(
        UsageError, match=f"{other} holds no answers after tuning to {new}"
    ) as error:
        ragtune.compare_runs(run, other, data_eval=str(new))
    assert error.value.advice == f"Ask it: ragtune evaluate {other} data.eval={new}"
    ragtune.evaluate(other, f"data.eval={new}")
    # The copy in the directory counts for nothing that was made.
    copy = run / "recipe.yaml"
    copy.write_text(copy.read_text("utf-8").replace("rank: 4", "rank: 8"), "utf-8")
    found = ragtune.compare_runs(run, other, data_eval=str(new))
    assert found["n"] == 6
    assert found["differs"] == {"train.learning_rate": [0.01, 0.02]}


def test_a_finished_run_can_be_read_where_nothing_can_be_written(
    finished: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, run = finished(tmp_path)
    for file in run.rglob("*.json*"):
        os.utime(file, (1, 1))  # a copy's times are new: what knows them is not renewed here

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(run / "run.lock"))

    access = os.access
    monkeypatch.setattr(lock.SoftFileLease, "acquire", refuse)
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.R_OK and access(path, mode))
    there = {p: (p.stat().st_mtime_ns, p.is_file() and p.read_bytes()) for p in run.rglob("*")}
    assert ragtune.evaluate(run)["n"] == 10
    assert "can't be written: what is finished there is read" in capsys.readouterr().out
    assert ragtune.evaluate(run, base=True)["n"] == 10
    assert ragtune.compare(run)["n"] == 10
    assert ragtune.summary(run).startswith("## tiny")
    assert ragtune.compare_runs(run, run / "eval/eval/before")["n"] == 10
    assert ragtune.push(run, "publish.repo=a/b", dry_run=True) == "a/b"
    assert ragtune.run(run) is not None
    levels = {one["name"]: one["level"] for one in ragtune.check(run)}
    assert "fail" not in levels.values()
    assert levels["run directory"] == "warning"
    with pytest.raises(RagtuneError, match=r"report\.html is not written\. Not allowed to write"):
        ragtune.report(run)
    other = write_records(tmp_path / "new.jsonl", make_records(6, "n"))
    for command, missing in (
        (lambda: ragtune.evaluate(run, f"data.eval={other}"), "eval/new/questions"),
        (lambda: ragtune.controls(run), "eval/eval/controls-before"),
    ):
        with pytest.raises(RagtuneError, match=f"{missing} is not finished, and can't be made"):
            command()
    with pytest.raises(RagtuneError, match="Not allowed to write"):
        ragtune.prepare(run, "name=another")
    now = {p: (p.stat().st_mtime_ns, p.is_file() and p.read_bytes()) for p in run.rglob("*")}
    assert now == there


def test_an_adapter_that_is_set_aside_makes_another_set_no_runs_own(
    finished: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, run = finished(tmp_path)
    new = f"data.eval={write_records(tmp_path / 'new.jsonl', make_records(6, 'n'))}"
    ragtune.evaluate(run, new)
    ragtune.report(run)
    ragtune.report(run, new)
    kept = {p: (run / p).read_bytes() for p in ("recipe.yaml", "report.html", "work/plan.json")}
    other = (str(run), new, "train.steps=2", "--redo")
    capsys.readouterr()
    assert leave("evaluate", *other, "--at-least", "squad_em=0") == 2
    assert "has no adapter whose figures could be judged" in capsys.readouterr().err
    assert (run / "old-1/adapter").is_dir()
    assert not (run / "eval/new/report.html").exists()
    assert leave("evaluate", *other) == 0  # nor does the next command
    assert "has no adapter: the base model is asked" in capsys.readouterr().out
    assert leave("evaluate", *other, "--base", "--at-least", "squad_em=0") == 0
    assert {p: (run / p).read_bytes() for p in kept} == kept
    # What trains takes the run over.
    ragtune.train(run, new, "train.steps=2")
    stands = yaml.safe_load((run / "recipe.yaml").read_text("utf-8"))
    assert (stands["data"]["eval"], stands["train"]["steps"]) == (new.partition("=")[2], 2)


def test_a_file_is_one_set_however_it_is_spelt_and_wherever_it_lies(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.go(*RUN)
    for place in ("x", "y"):
        (world.folder / place).mkdir()
        (world.folder / place / "n.jsonl").write_text(place, "utf-8")
    asked = ("questions", "after")

    def go(place: str, named: str) -> list[str]:
        monkeypatch.chdir(world.folder / place)
        return world.go(*asked, changes=(f"data.eval={named}",))

    assert go("x", "n.jsonl") == [*asked]
    assert go("y", "n.jsonl") == [*asked]  # another file
    for place, named in (
        ("x", "n.jsonl"), ("y", "n.jsonl"), ("x", "./n.jsonl"), ("x", "../y/n.jsonl"), ("y", "../x/n.jsonl"),
        ("y", str(world.folder / "x/n.jsonl")), ("x", "../one.jsonl"), (".", "one.jsonl"),
    ):  # fmt: skip
        assert go(place, named) == [], (place, named)
    assert len(sets_there(world.folder / "run")) == 3
    (world.folder / "x/n.jsonl").write_text("changed", "utf-8")
    for place, named in (("x", "n.jsonl"), ("y", "../x/n.jsonl")):
        with pytest.raises(UsageError, match=r"n\.jsonl has changed"):
            go(place, named)


def test_a_recipes_own_path_means_the_same_from_everywhere(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.recipe["data"] = {"train": str(world.folder / "train.jsonl"), "eval": "one.jsonl"}
    monkeypatch.chdir(world.folder)
    world.go(*RUN)
    other = world.folder / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    assert world.go(*RUN) == []
    (other / "one.jsonl").write_text("other", "utf-8")
    with pytest.raises(UsageError, match=r"one\.jsonl has changed"):
        world.go(*RUN)
    assert world.go("questions", changes=("data.eval=one.jsonl",)) == ["questions"]
    assert own_set(world.folder / "run") == "one"
    # Moved to where the first file is not: the same path is the same set.
    moved = world.folder / "moved"
    moved.mkdir()
    for name in ("run", "one.jsonl"):
        (world.folder / name).rename(moved / name)
    world.folder = moved
    monkeypatch.chdir(moved)
    assert world.go(*RUN, changes=("data.eval=one.jsonl",)) == []
    assert world.go(*RUN, changes=("data.eval=./one.jsonl",)) == []
