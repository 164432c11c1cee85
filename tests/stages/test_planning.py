from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ragtune.stages import planning
from ragtune.stages.context import Context
from ragtune.stages.road import make, working
from ragtune.store import seal
from ragtune.store.proof import NAME


def test_a_plan_reads_no_large_file_of_which_a_proof_says_what_it_holds(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Context(tiny_recipe, [], tmp_path / "run")
    with working(one):
        make(one, "data")
        make(one, "questions")
    of = planning._plan_of(one.folder, one.recipe)
    assert {"train.jsonl", "eval.jsonl"} <= of.keys()
    read: list[Path] = []
    monkeypatch.setattr(seal, "SMALL", 0)
    monkeypatch.setattr(seal, "sha256", lambda path: read.append(path) or "")
    assert planning._plan_of(one.folder, one.recipe) == of
    assert read == []
    (one.folder.data / NAME).unlink()
    planning._plan_of(one.folder, one.recipe)
    assert [path.name for path in read] == ["train.jsonl"]
