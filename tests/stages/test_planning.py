from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ragtune.stages import planning
from ragtune.stages.context import Context
from ragtune.stages.road import make, working
from ragtune.store.proof import NAME


def test_a_plan_reads_no_file_of_which_a_proof_says_what_it_holds(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Context(tiny_recipe, [], tmp_path / "run")
    with working(one):
        make(one, "data")
        make(one, "questions")
    of = planning._plan_of(one.folder, one.recipe)
    assert {"train.jsonl", "eval.jsonl"} <= of.keys()
    read: list[Path] = []
    monkeypatch.setattr(planning, "sha256", lambda path: read.append(path) or "")
    assert planning._plan_of(one.folder, one.recipe) == of
    assert read == []
    (one.folder.data / NAME).unlink()
    planning._plan_of(one.folder, one.recipe)
    assert [path.name for path in read] == ["train.jsonl"]
    eval_file = one.folder.questions / "eval.jsonl"
    os.utime(eval_file, ns=(0, 0))  # another time than the proof's
    planning._plan_of(one.folder, one.recipe)
    assert [path.name for path in read[1:]] == ["train.jsonl", "eval.jsonl"]


def test_a_plan_is_written_anew_when_it_is_another(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    one = Context(tiny_recipe, [], tmp_path / "run")
    with working(one):
        make(one, "data")
        make(one, "questions")
        first = one.plan
        one.keep_plan(first)
        one.folder.plan.unlink()
        one.keep_plan(first)
        assert not one.folder.plan.exists()
        one.keep_plan(replace(first, samples_per_row=7))
        one.forget_data()
        assert one.plan.samples_per_row == 7
        one.keep_plan(first)  # one that was kept before
        one.forget_data()
        assert one.plan == first
