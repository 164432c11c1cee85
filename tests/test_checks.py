from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import ragtune
from ragtune.errors import UsageError
from ragtune.stages import Run


def test_check_sees_layers_that_the_model_lacks(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    tiny_recipe["lora"]["target_modules"] = ["q_proj", "query_key_value"]
    with pytest.raises(UsageError, match="has no query_key_value"):
        Run(tiny_recipe, run_dir=tmp_path / "run").check()


def test_a_check_decides_nothing(tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    one = Run(tiny_recipe, run_dir=tmp_path / "run")
    one.prepare()
    one.check()
    assert "plan" not in one.dir.read_state()
    one.evaluate("before")
    assert "plan" in one.dir.read_state()


def test_check_refuses_data_of_which_nothing_would_be_selected(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    path = Path(tiny_recipe["data"]["eval"])
    rows = [json.loads(line) | {"answers": []} for line in path.read_text("utf-8").splitlines()]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")
    with pytest.raises(UsageError, match="would be selected"):
        ragtune.check(tiny_recipe, run_dir=tmp_path / "run")
