from __future__ import annotations

import errno
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import ragtune
from ragtune.base import lock
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.lock import Holder, Lock, locked
from ragtune.stages.context import Context
from ragtune.stages.order import checkpoints_of
from tests.store.test_folder import finished

__all__ = ["finished"]

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


def foreign(folder: Path, age: float = 0, **changes: Any) -> Path:
    """The lock of another machine whose last sign of life is `age` seconds old."""
    fields = {
        "pid": 1,
        "host": "elsewhere",
        "mode": "lease",
        "token": "theirs",
        "duration": lock.LEASE,
        "place": "x",
        "since": 1_700_000_000,
    }
    lines = "".join(f"{key}={value}\n" for key, value in {**fields, **changes}.items())
    return put(folder / "run.lock", f"filelock/2\n{lines}", age)


def put(path: Path, text: str, age: float = 0) -> Path:
    """A file that takes the place of another, as another run's would."""
    path.parent.mkdir(exist_ok=True)
    new = path.with_name("new")
    new.write_text(text, "utf-8")
    os.utime(new, (time.time() - age,) * 2)
    return new.replace(path)


def fields(run: Path) -> dict[str, str]:
    lines = (run / "run.lock").read_text("utf-8").splitlines()
    return dict(line.partition("=")[::2] for line in lines)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LEASE", 0.3)
    monkeypatch.setattr(lock, "BEAT", 0.02)
    monkeypatch.setattr(lock, "_PAUSE", 0.02)


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on when it is looked at: a machine that stands still between two looks misses none."""
    looks = itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: 0.05 * next(looks))


def test_the_second_run_is_refused_with_host_and_pid_and_a_dead_one_is_taken_over(
    tiny_recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    process = holder(run)
    try:
        host = socket.gethostname()
        since = r", since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\."
        named = rf"at work in .*run: process {process.pid} on {re.escape(host)}{since}"
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
    assert not [path.name for path in run.iterdir() if "lock" in path.name]


def test_who_only_reads_needs_no_lock(finished: Any, tmp_path: Path) -> None:
    _, run = finished(tmp_path)
    predictions = run / "eval" / "eval" / "after" / "predictions.jsonl"
    process = holder(run)
    try:
        ragtune.compare_runs(run, run)
        ragtune.check(run)
        assert ragtune.evaluate(run, predictions=predictions)["n"] == 10
        assert "|" in ragtune.summary(run)
        with pytest.raises(UsageError, match="Another run"):
            ragtune.report(run)
    finally:
        process.kill()
        process.wait()


def test_a_pid_that_is_used_again_is_another_process(tmp_path: Path) -> None:
    process = holder(tmp_path)
    process.kill()
    process.wait()
    theirs = {**fields(tmp_path), "pid": os.getpid()}
    del theirs["filelock/2"]
    foreign(tmp_path, **theirs)
    with locked(tmp_path):
        pass


def test_a_process_that_only_waits_to_be_collected_is_gone(tmp_path: Path, quick: None) -> None:
    process = subprocess.Popen([sys.executable, "-c", "print()"], stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.read()
    _until(lambda: not Holder(pid=process.pid).running)
    foreign(tmp_path, host=socket.gethostname(), place=lock._place(), pid=process.pid)
    with locked(tmp_path):
        pass
    process.wait()


def test_the_lock_counts_for_its_own_process_and_goes_on_errors(tmp_path: Path) -> None:
    def fail() -> None:
        with locked(tmp_path / "run"), locked(tmp_path / "run"):
            assert (tmp_path / "run" / "run.lock").exists()
            raise RagtuneError("no")

    with pytest.raises(RagtuneError, match="no"):
        fail()
    assert not (tmp_path / "run").exists(), "nothing was made in it"


@pytest.mark.parametrize("age", [0, 3600, -7200])  # clocks differ
@pytest.mark.parametrize("host", ["elsewhere", socket.gethostname()])
def test_another_machines_lock_counts_while_it_gives_signs_of_life(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch, age: int, host: str
) -> None:
    monkeypatch.setattr(lock, "LEASE", 60.0)
    path = foreign(tmp_path, age, host=host, start=1)
    before = path.read_text("utf-8")

    def beat(words: str) -> None:
        assert "watching it" in words
        os.utime(path, (time.time() - age + 15,) * 2)

    monkeypatch.setattr(lock, "note", beat)  # it was looked at by then
    refused = f"process 1 on {host}, since 2023"
    with pytest.raises(UsageError, match=refused), locked(tmp_path):
        pass
    assert path.read_text("utf-8") == before


@pytest.mark.usefixtures("quick", "ticking")
@pytest.mark.parametrize("age", [0, 3600, -7200])
@pytest.mark.parametrize("host", ["elsewhere", socket.gethostname()])
def test_another_machines_silent_lock_is_taken_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], age: int, host: str
) -> None:
    foreign(tmp_path, age, host=host, start=1)
    start = time.monotonic()
    with locked(tmp_path):
        assert time.monotonic() - start >= lock.LEASE
        assert fields(tmp_path)["pid"] == str(os.getpid())
    said = " ".join(capsys.readouterr().out.split())
    assert f"locked by process 1 on {host}; watching it" in said
    assert f"lock of process 1 on {host}: it gave no sign of life" in said


def test_a_whole_lock_of_another_machine_is_said_at_the_first_look(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = lock._read(foreign(tmp_path))
    assert other is not None
    assert not Lock(tmp_path)._at_work(other)
    assert "locked by process 1 on elsewhere; watching it" in " ".join(
        capsys.readouterr().out.split()
    )


@pytest.mark.parametrize("unread", [Holder(), None])
def test_a_lock_that_is_being_written_is_no_other_machines(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    unread: Holder | None,
) -> None:
    process = holder(tmp_path)
    whole, looks = lock._read(tmp_path / "run.lock"), []

    def read(path: Path, *_: int) -> Holder | None:
        looks.append(path)
        first = sum(p.name == "run.lock" for p in looks) <= 2
        if path.name != "run.lock":
            return None
        return (unread or replace(whole, place="", since=0.0)) if first and whole else whole

    monkeypatch.setattr(lock, "_read", read)
    monkeypatch.setattr(lock, "_PAUSE", 0.02)
    try:
        with pytest.raises(UsageError, match=f"process {process.pid} on"), locked(tmp_path):
            pass
    finally:
        process.kill()
        process.communicate()
    assert "watching it" not in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "filelock/2\npid=1", "pid=x\n"])
def test_a_damaged_lock_is_taken_over(tmp_path: Path, quick: None, text: str) -> None:
    put(tmp_path / "run.lock", text)
    with locked(tmp_path):
        assert fields(tmp_path)["pid"] == str(os.getpid())


def test_a_lock_with_another_lease_is_honoured(tmp_path: Path) -> None:
    foreign(tmp_path, duration=lock.LEASE + 1)
    with pytest.raises(UsageError, match="process 1 on elsewhere"), locked(tmp_path):
        pass


def test_of_several_that_take_over_one_wins(tmp_path: Path) -> None:
    foreign(tmp_path, host=socket.gethostname(), place=lock._place(), pid=2**22 + 1)
    processes = [
        subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]  # fmt: skip
    try:
        _until(lambda: sum(process.poll() is not None for process in processes) == 3)
        (winner,) = (process for process in processes if process.poll() is None)
        assert winner.stdout
        assert "its process is gone" in winner.stdout.readline()
        assert fields(tmp_path)["pid"] == str(winner.pid)
        others = [process for process in processes if process is not winner]
        assert all("Another run is at work" in process.communicate()[1] for process in others)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_the_heartbeat_beats_and_notices_that_the_lock_is_lost(tmp_path: Path, quick: None) -> None:
    with locked(tmp_path) as held:
        path = tmp_path / "run.lock"
        os.utime(path, (1_000_000_000, 1_000_000_000))
        _until(lambda: path.stat().st_mtime > 1_600_000_000)
        assert not held.lost
        foreign(tmp_path)
        _until(lambda: held.lost)
        with pytest.raises(RagtuneError, match="taken over by process 1 on elsewhere while"):
            lock.require_held()
    assert fields(tmp_path)["token"] == "theirs"


def test_a_lock_that_can_not_be_renewed_does_not_count(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with locked(tmp_path) as held:
        monkeypatch.setattr("filelock._lease.touch", away)
        _until(lambda: held.lost)
        with pytest.raises(
            RagtuneError, match=r"could not be reached .* another run may be at work"
        ):
            lock.require_held()


def test_it_takes_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: Any, **__: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(os, "symlink", no_links)
    with locked(tmp_path):
        assert fields(tmp_path)["pid"] == str(os.getpid())
        with pytest.raises(UsageError, match="Another run"):
            Lock(tmp_path).acquire()
        assert fields(tmp_path)["pid"] == str(os.getpid())


def older(folder: Path, age: float, **changes: Any) -> Path:
    """The lock of an older ragtune."""
    other = {
        "token": "theirs",
        "since": 1_700_000_000,
        "host": "elsewhere",
        "place": "x",
        "pid": 1,
        "started": "1",
        "beat": round(time.time() - age),
        **changes,
    }
    return put(folder / "lock.json", json.dumps(other) + "\n", age)


@pytest.mark.parametrize(
    ("age", "changes"), [(90, {}), (-90, {}), (3600, {"place": lock._place(), "pid": os.getpid()})]
)
def test_the_lock_of_an_older_ragtune_that_is_alive_is_honoured(
    tmp_path: Path, age: int, changes: dict[str, Any]
) -> None:
    older(tmp_path, age, **changes)
    pid = changes.get("pid", 1)
    assert f"process {pid} on elsewhere, since 2023" in str(lock.refusal(tmp_path))
    with pytest.raises(UsageError, match=f"process {pid} on elsewhere"), locked(tmp_path):
        pass
    assert (tmp_path / "lock.json").exists()


@pytest.mark.parametrize(
    ("age", "changes"), [(150, {}), (0, {"place": lock._place(), "pid": 2**22 + 1})]
)
def test_the_lock_of_an_older_ragtune_that_is_gone_is_not(
    tmp_path: Path, age: int, changes: dict[str, Any]
) -> None:
    older(tmp_path, age, **changes)
    assert lock.refusal(tmp_path) is None
    with locked(tmp_path):
        assert not (tmp_path / "lock.json").exists()


def test_what_an_older_ragtune_makes_in_the_cache_is_waited_for(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = older(tmp_path / ".model.lock", 0)
    said: list[str] = []

    def done(words: str) -> None:
        said.append(words)
        threading.Timer(0.1, there.unlink).start()

    monkeypatch.setattr(lock, "note", done)
    with lock.making(tmp_path / "model"):
        assert not there.exists()
    (words,) = said
    assert words.startswith("Another run is making")


def _until(ready: Any) -> None:
    deadline = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_after_a_sleep_the_lock_is_looked_at_before_anything_is_written(tmp_path: Path) -> None:
    with locked(tmp_path) as held:  # the heart does not beat while a machine sleeps
        foreign(tmp_path)
        lock.require_held()  # nothing says so yet
        held.looked -= 4000
        with pytest.raises(RagtuneError, match="taken over by process 1 on elsewhere"):
            lock.require_held()


def test_a_training_whose_lock_is_lost_writes_no_more(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    from ragtune.training.trainer import PackedTrainer

    save = PackedTrainer._save_checkpoint

    def save_and_lose(self: Any, *args: Any) -> None:
        save(self, *args)
        self.writer.wait()
        for held in Lock._held.values():
            held.lost = True

    monkeypatch.setattr(PackedTrainer, "_save_checkpoint", save_and_lose)
    with pytest.raises(RagtuneError, match="another run may be at work"):
        ragtune.train(tiny_recipe, run_dir=run)
    one = Context(tiny_recipe, run_dir=run)
    folder = checkpoints_of(one.folder, one.recipe)
    assert [p.name for p in folder.glob("checkpoint-*")] == ["checkpoint-2"]
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
