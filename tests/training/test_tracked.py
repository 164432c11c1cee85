"""What trackers of train.report_to write: read back from TensorBoard's and Trackio's files, without a network."""

from __future__ import annotations

import json
import socket
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.training.test_train import log, train

LOOKS = ("train.eval_every=4", "train.eval_answers=5")
SEEN = (
    "eval/exact_match",
    "eval/exact_match_high",
    "eval/exact_match_low",
    "eval/loss",
    "train/loss",
)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(*arguments: object) -> None:
        raise AssertionError(f"a connection was tried: {arguments}")

    for owner, name in (
        (socket.socket, "connect"),
        (socket.socket, "connect_ex"),
        (socket, "getaddrinfo"),
    ):
        monkeypatch.setattr(owner, name, cut)


def expected(one: Any) -> dict[str, list[tuple[int, float]]]:
    """What train_log.jsonl holds, under the names that transformers gives trackers."""
    found: dict[str, list[tuple[int, float]]] = {key: [] for key in SEEN}
    for row in log(one):
        for key, value in row.items():
            name = f"eval/{key[5:]}" if key.startswith("eval_") else f"train/{key}"
            if name in found:
                found[name].append((int(row["step"]), value))
    assert [step for step, _ in found["eval/exact_match"]] == [4, 8]
    assert len(found["train/loss"]) == 8
    return found


def test_tensorboard_has_loss_and_answers(tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="no TensorBoard here")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    one = train(tiny_recipe, tmp_path / "run", *LOOKS, "train.report_to=[tensorboard]")
    (folder,) = one.folder.logs.iterdir()
    events = EventAccumulator(str(folder))
    events.Reload()
    for name, values in expected(one).items():
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert found == [(step, pytest.approx(value, rel=1e-6)) for step, value in values], name


def test_trackio_has_loss_and_answers(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio", reason="no Trackio here")
    project = ("train.report_to=[trackio]", "train.arguments.project=houses")
    one = train(tiny_recipe, tmp_path / "run", *LOOKS, *project)
    with sqlite3.connect(tmp_path / "trackio" / "houses.db") as database:
        rows = database.execute("select run_name, metrics from metrics order by id").fetchall()
    assert {name for name, _ in rows} == {"tiny"}
    logged = [json.loads(metrics) for _, metrics in rows]
    for name, values in expected(one).items():
        found = [(row["train/global_step"], row[name]) for row in logged if name in row]
        assert found == values, name
