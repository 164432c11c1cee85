from __future__ import annotations

from pathlib import Path

import pytest

from ragtune.store.seal import MANIFEST, is_whole, seal
from ragtune.training.checkpoint import checkpoints, keep_newest, newest_whole


def make(folder: Path, step: int) -> Path:
    path = folder / f"checkpoint-{step}"
    (path / "inner").mkdir(parents=True)
    (path / "weights").write_bytes(bytes([step]) * 100)
    (path / "inner" / "state").write_text("x", "utf-8")
    seal(path)
    return path


def test_a_sealed_checkpoint_is_whole(tmp_path: Path) -> None:
    assert is_whole(make(tmp_path, 1))


@pytest.mark.parametrize(
    "damage", ["change", "shorten", "remove", "no manifest", "bad manifest", "empty manifest"]
)
def test_damage_is_noticed_and_the_newest_whole_one_used(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = make(tmp_path, 9), make(tmp_path, 10)
    if damage == "change":
        (new / "weights").write_bytes(b"\0" * 100)
    elif damage == "shorten":
        (new / "weights").write_bytes(b"\0" * 99)
    elif damage == "remove":
        (new / "inner" / "state").unlink()
    elif damage == "no manifest":
        (new / MANIFEST).unlink()
    else:
        (new / MANIFEST).write_text("{" if damage == "bad manifest" else '{"files": {}}', "utf-8")
    assert newest_whole(tmp_path) == old
    assert (tmp_path / "damaged-checkpoint-10").is_dir()
    assert "checkpoint-10 is damaged (not whole" in capsys.readouterr().out.replace("\n", " ")


def test_there_may_be_none(tmp_path: Path) -> None:
    assert newest_whole(tmp_path) is None


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    for step in (100, 20, 3):
        make(tmp_path, step)
    assert [s for s, _ in checkpoints(tmp_path)] == [3, 20, 100]


def test_old_ones_go_but_not_the_best(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        make(tmp_path, step)
    keep_newest(tmp_path, 2, best=1)
    assert [s for s, _ in checkpoints(tmp_path)] == [1, 3, 4]
