from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import ragtune
from ragtune.base import lock
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.lock import Lock, locked

HOLD = """
import sys, time
from pathlib import Path
from ragtune.base.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


def foreign(folder: Path, age: float, **changes: Any) -> dict[str, Any]:
    """The lock of another machine whose last sign of life is `age` seconds old."""
    folder.mkdir(exist_ok=True)
    beat = round(time.time() - age)
    other = {
        "token": "theirs",
        "since": beat,
        "host": "elsewhere",
        "place": "x",
        "pid": 1,
        "started": "1",
        "beat": beat,
        **changes,
    }
    path = folder / "lock.json"
    path.write_text(json.dumps(other), "utf-8")
    os.utime(path, (beat, beat))
    return other


def test_the_second_run_is_refused_with_host_and_pid_and_a_dead_one_is_taken_over(
    tiny_recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    process = holder(run)
    try:
        host = json.loads((run / "lock.json").read_text("utf-8"))["host"]
        named = rf"at work in .*run: process {process.pid} on {re.escape(host)}"
        with pytest.raises(UsageError, match=named) as refused:
            ragtune.prepare(tiny_recipe, run_dir=run)
        assert refused.value.exit_code == 2
        assert not (run / "data").exists()
    finally:
        process.kill()
        process.wait()
    ragtune.prepare(tiny_recipe, run_dir=run)
    said = capsys.readouterr().out.replace("\n", " ")
    assert f"Took over the lock of process {process.pid} on {host}: its process is gone" in said
    assert not (run / "lock.json").exists()
    assert not list(run.glob(".lock*"))


def test_who_only_reads_needs_no_lock(tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    ragtune.run(tiny_recipe, run_dir=run)
    predictions = run / "after" / "predictions.jsonl"
    process = holder(run)
    try:
        ragtune.compare_runs(run, run)
        ragtune.check(run)
        assert ragtune.evaluate(run, predictions=predictions)["n"] == 10
        from ragtune.stages.run import Run

        assert "|" in Run(run).summary()
        with pytest.raises(UsageError, match="Another run"):
            ragtune.report(run)
    finally:
        process.kill()
        process.wait()


def test_a_pid_that_is_used_again_is_another_process(tmp_path: Path) -> None:
    mine = Lock(tmp_path).owner
    foreign(tmp_path, 0, place=mine["place"], pid=os.getpid(), started="1")
    with locked(tmp_path):
        pass


def test_the_lock_counts_for_its_own_process_and_goes_on_errors(tmp_path: Path) -> None:
    def fail() -> None:
        with locked(tmp_path / "run"), locked(tmp_path / "run"):
            assert (tmp_path / "run" / "lock.json").exists()
            raise RagtuneError("no")

    with pytest.raises(RagtuneError, match="no"):
        fail()
    assert not (tmp_path / "run").exists(), "nothing was made in it"


def test_another_machines_lock_counts_while_it_gives_signs_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "WATCH", 0.01)
    foreign(tmp_path, lock.SILENT - 30)
    with pytest.raises(UsageError, match="process 1 on elsewhere"), locked(tmp_path):
        pass


def test_another_machines_silent_lock_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lock, "WATCH", 0.01)
    foreign(tmp_path, lock.SILENT + 30)
    with locked(tmp_path):
        pass
    assert "on elsewhere: it gave no sign of life for 15" in capsys.readouterr().out


def test_a_clock_that_is_behind_does_not_make_a_living_lock_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = foreign(tmp_path, lock.SILENT + 60)

    def beats(_: float) -> None:
        (tmp_path / "lock.json").write_text(json.dumps({**other, "beat": other["beat"] + 15}))

    monkeypatch.setattr(lock.time, "sleep", beats)
    with pytest.raises(UsageError, match="elsewhere"), locked(tmp_path):
        pass


def test_a_silent_lock_whose_clock_is_ahead_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lock, "WATCH", 0.01)
    foreign(tmp_path, -7200)
    with locked(tmp_path):
        pass
    said = " ".join(capsys.readouterr().out.split())
    assert "Took over the lock of process 1 on elsewhere: its last sign of life is dated 7" in said


def test_a_living_lock_whose_clock_is_ahead_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = foreign(tmp_path, -7200)

    def beats(_: float) -> None:
        (tmp_path / "lock.json").write_text(json.dumps({**other, "beat": other["beat"] + 15}))

    monkeypatch.setattr(lock.time, "sleep", beats)
    with pytest.raises(UsageError, match="elsewhere"), locked(tmp_path):
        pass
    monkeypatch.undo()
    foreign(tmp_path, -lock.BEAT)  # not worth watching
    with pytest.raises(UsageError, match="elsewhere"), locked(tmp_path):
        pass


def test_of_two_that_take_over_one_wins(tmp_path: Path) -> None:
    """The second renames the first's new lock, sees that it is not the stale one, and puts it back."""
    stale = foreign(tmp_path, lock.SILENT + 60)
    fresh = {**stale, "token": "quicker"}
    (tmp_path / "lock.json").write_text(json.dumps(fresh), "utf-8")
    with pytest.raises(UsageError, match="Another run"):
        Lock(tmp_path)._take_over(stale, "it is silent")
    assert json.loads((tmp_path / "lock.json").read_text("utf-8")) == fresh


def test_the_heartbeat_beats_and_notices_that_the_lock_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.01)
    with locked(tmp_path) as held:
        path = tmp_path / "lock.json"
        aged = {**json.loads(path.read_text("utf-8")), "beat": 1_000_000_000}
        path.write_text(json.dumps(aged) + "\n", "utf-8")
        _until(lambda: json.loads(path.read_text("utf-8") or "{}").get("beat", 0) > 1_600_000_000)
        foreign(tmp_path, 0)
        _until(lambda: held.lost is not None)
        with pytest.raises(RagtuneError, match="taken over by process 1 on elsewhere"):
            lock.see_held()
    assert json.loads((tmp_path / "lock.json").read_text("utf-8"))["token"] == "theirs"


def test_without_links_the_file_is_made_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(lock.os, "link", no_links)
    with locked(tmp_path):
        assert json.loads((tmp_path / "lock.json").read_text("utf-8"))["pid"] == os.getpid()
        with pytest.raises(UsageError, match="Another run"):
            Lock(tmp_path).acquire()


def _until(ready: Any) -> None:
    deadline = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_after_a_sleep_the_lock_is_looked_at_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "BEAT", 1000.0)  # the heart does not beat while a machine sleeps
    with locked(tmp_path) as held:
        foreign(tmp_path, 0)
        lock.see_held()  # nothing says so yet
        held.beat -= 4000
        with pytest.raises(RagtuneError, match="taken over by process 1 on elsewhere"):
            lock.see_held()


def test_a_training_whose_lock_is_lost_writes_no_more(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    from ragtune.training.trainer import PackedTrainer

    save = PackedTrainer._save_checkpoint

    def save_and_lose(self: Any, *args: Any) -> None:
        save(self, *args)
        for held in Lock._held.values():
            held.lost = "process 1 on elsewhere"

    monkeypatch.setattr(PackedTrainer, "_save_checkpoint", save_and_lose)
    with pytest.raises(RagtuneError, match="taken over"):
        ragtune.train(tiny_recipe, run_dir=run)
    assert [p.name for p in (run / "work" / "checkpoints").iterdir()] == ["checkpoint-2"]
    assert not (run / "adapter").exists()


MAKE = """
import sys, time
from pathlib import Path
from ragtune.store.seal import cached, seal, unchanged
from ragtune.base.files import making_folder
from ragtune.base.lock import making

path = Path(sys.argv[1])
for _ in range(20):
    if not unchanged(path):
        with making(path):
            if not cached(path):
                with making_folder(path) as partial:
                    (partial / "weights").write_bytes(b"x" * 1000)
                    time.sleep(0.01)
                    seal(partial)
                print("made")
    assert (path / "weights").stat().st_size == 1000
"""


def test_of_several_processes_one_makes_what_is_cached_and_the_others_use_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "cache" / "model"
    (tmp_path / "cache" / ".model.partial").mkdir(parents=True)  # of one that was killed
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MAKE, str(path)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for _ in range(4)
    ]  # fmt: skip
    said = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, said
    assert sum(words.splitlines().count("made") for words in said) == 1
    assert [p.name for p in path.parent.iterdir()] == ["model"]
