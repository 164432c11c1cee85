"""What is logged is the same if it is read one step later, as on a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ragtune.base.errors import RagtuneError
from ragtune.stages.context import Context
from ragtune.stages.road import make, working
from ragtune.training import trainer as trainer_module
from ragtune.training.late import LateLog


@pytest.fixture
def behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "LateLog", lambda trainer, **_: LateLog(trainer, behind=1))


def trained(recipe: dict[str, Any], folder: Path) -> str:
    one = Context(recipe, ["train.eval_every=3", "train.save_every=2", "train.steps=5"], folder)
    with working(one):
        make(one, "adapter")
    return (one.folder.adapter / "train_log.jsonl").read_text("utf-8")


def test_a_log_that_is_read_late_is_the_same(
    tiny_recipe: dict[str, Any], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    at_once = trained(tiny_recipe, tmp_path / "at-once")
    request.getfixturevalue("behind")
    assert trained(tiny_recipe, tmp_path / "late") == at_once
    assert at_once.count('"loss"') == 5


@pytest.mark.usefixtures("behind")
def test_a_step_that_is_read_late_stops_the_training_by_its_own_name(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = trainer_module.PackedTrainer.compute_loss
    qids: list[list[str]] = []

    def poisoned(self: Any, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
        loss = original(self, model, inputs, *rest, **named)
        qids.append([s.qid for s in self.rows[inputs["row"]]])
        return loss * float("nan") if len(qids) == 2 else loss

    monkeypatch.setattr(trainer_module.PackedTrainer, "compute_loss", poisoned)
    with pytest.raises(RagtuneError, match="stopped at step 1: the loss is not finite") as caught:
        trained({**tiny_recipe, "train": {**tiny_recipe["train"], "samples_per_row": 2}}, tmp_path)
    assert caught.value.message.endswith(f"Questions of the row: {', '.join(qids[1])}.")
    assert len(qids) == 4  # the second step was on its way
