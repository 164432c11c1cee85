from __future__ import annotations

import copy
import errno
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ragtune.base.errors import RagtuneError
from ragtune.model.tensor_file import save_tensors
from ragtune.stages.context import Context
from ragtune.stages.order import checkpoints_of
from ragtune.stages.road import make as make_stage
from ragtune.stages.road import working
from ragtune.store.seal import MANIFEST, is_whole, seal
from ragtune.training import checkpoint as module
from ragtune.training.checkpoint import Writer, checkpoints, keep_newest, newest_whole, snapshot


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


def test_many_kills_leave_no_more_than_one_set_aside(tmp_path: Path) -> None:
    for step in (1, 2):
        (make(tmp_path, step) / MANIFEST).unlink()
        assert newest_whole(tmp_path) is None
    assert [p.name for p in tmp_path.iterdir()] == ["damaged-checkpoint-2"]
    whole = make(tmp_path, 3)
    assert newest_whole(tmp_path) == whole
    assert (tmp_path / "damaged-checkpoint-2").exists()  # nothing takes its place


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


def save(path: Path, value: torch.Tensor) -> None:
    torch.save(value, path)


def begin(writer: Writer, folder: Path, write: Callable[[torch.Tensor], object]) -> torch.Tensor:
    """Begin a checkpoint of one tensor, and change that."""
    live = torch.ones(3)
    with writer.checkpoint(folder, 100, (folder.parent / "counts").touch):
        folder.mkdir()
        (folder / "small").write_text("x", "utf-8")
        writer.save(write, live)
    live.zero_()
    return live


def test_a_checkpoint_is_of_the_moment_it_was_asked_for(tmp_path: Path) -> None:
    folder, go = tmp_path / "checkpoint-1", threading.Event()
    with Writer() as writer:
        begin(writer, folder, lambda one: (go.wait(), save(folder / "large", one)))
        assert not (folder / "large").exists()  # the training goes on meanwhile
        assert not (tmp_path / "counts").exists()
        assert writer.busy()
        go.set()
    assert not writer.busy()
    assert torch.equal(torch.load(folder / "large"), torch.ones(3))
    assert is_whole(folder)
    assert (tmp_path / "counts").exists()


def no_memory(_: object) -> None:
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 12 bytes")


@pytest.mark.parametrize(
    ("name", "short"), [("available_memory", lambda: 2 * 12 - 1), ("snapshot", no_memory)]
)  # room for less than two copies of three numbers; a limit that nobody tells of
def test_where_memory_is_short_it_is_written_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, short: object
) -> None:
    monkeypatch.setattr(module, name, short)
    folder = tmp_path / "checkpoint-1"
    with Writer() as writer:
        seen: list[tuple[torch.Tensor, bool]] = []
        live = begin(writer, folder, lambda one: seen.append((one, writer.busy())))
    assert seen[0][0] is live
    assert seen[0][1]
    assert is_whole(folder)


def test_no_tensor_of_a_snapshot_is_a_live_one() -> None:
    shared = torch.arange(4)
    state = {"a": [shared, {"b": shared}], "c": (torch.ones(2, 3).T, 0.5), "d": "word"}
    copied = snapshot(state)
    shared += 1
    state["c"][0].zero_()
    assert copied["a"][0].tolist() == [0, 1, 2, 3]
    assert copied["a"][1]["b"] is copied["a"][0]
    assert copied["c"][0].stride() == (1, 3)
    assert copied["c"][0].eq(1).all()
    assert copied["c"][1:] == (0.5,)
    assert copied["d"] == "word"


def full(_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("when", ["next step", "next checkpoint", "end"])
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, when: str) -> None:
    folder = tmp_path / "checkpoint-1"

    def train() -> None:
        with Writer() as writer:
            begin(writer, folder, full)
            if when == "next step":
                writer._join()
                writer.look()
            elif when == "next checkpoint":
                begin(writer, tmp_path / "checkpoint-2", full)

    with pytest.raises(RagtuneError, match=r"The disk is full: could not write .*checkpoint-1 "):
        train()
    assert list(tmp_path.iterdir()) == []


def test_what_fails_beside_another_failure_is_told_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def train() -> None:
        with Writer() as writer:
            begin(writer, tmp_path / "checkpoint-1", full)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    said = capsys.readouterr().out.replace("\n", " ")
    assert "could not be written: The disk is full" in said
    assert "Free some space" not in said  # of one failure it is told what to do


def test_what_both_fail_with_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lost() -> None:
        raise RagtuneError("The lock is lost.")

    def train() -> None:
        with Writer() as writer:
            begin(writer, tmp_path / "checkpoint-1", full)
            lost()

    monkeypatch.setattr(module, "require_held", lost)
    with pytest.raises(RagtuneError, match="lock"):
        train()
    assert "could not be written" not in capsys.readouterr().out


def test_a_stop_waits_until_the_checkpoint_is_whole(tmp_path: Path) -> None:
    folder, go = tmp_path / "checkpoint-1", threading.Event()

    def train() -> None:
        with Writer() as writer:
            begin(writer, folder, lambda one: (go.wait(), save(folder / "large", one)))
            threading.Timer(0.1, go.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train()
    assert is_whole(folder)


@pytest.mark.parametrize("times", [1, 3])
def test_further_stops_leave_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    folder, main = tmp_path / "checkpoint-1", threading.get_ident()
    waits, go, wait = threading.Semaphore(0), threading.Event(), Writer._join

    def waiting(self: Writer) -> None:
        if not self._written.is_set():
            waits.release()
        wait(self)

    def write(_: torch.Tensor) -> None:
        for _ in range(times):
            assert waits.acquire(timeout=60)  # it waits, and is cut off in that, and waits again
            signal.pthread_kill(main, signal.SIGINT)
        assert waits.acquire(timeout=60)
        go.set()

    monkeypatch.setattr(Writer, "_join", waiting)
    with pytest.raises(KeyboardInterrupt), Writer() as writer:
        begin(writer, folder, write)
    assert go.is_set()  # nobody ends while a file is being written
    assert not folder.exists()


def test_a_stop_while_the_thread_begins_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, start = tmp_path / "checkpoint-1", threading.Thread.start
    writer, writes = Writer(), threading.Event()

    def begun(thread: threading.Thread) -> None:
        start(thread)
        if thread.name == folder.name:
            assert writes.wait(60)  # else it may be cut off before it took up its work
            raise KeyboardInterrupt

    def write(one: torch.Tensor) -> None:
        writes.set()
        time.sleep(0.1)
        save(folder / "large", one)

    monkeypatch.setattr(threading.Thread, "start", begun)
    with pytest.raises(KeyboardInterrupt), writer:
        begin(writer, folder, write)
    assert is_whole(folder)


def test_nobody_waits_for_a_thread_that_never_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: threading.Thread) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "snapshot", copy.deepcopy)  # it has threads of its own
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(KeyboardInterrupt), Writer() as writer:
        begin(writer, tmp_path / "checkpoint-1", full)
    assert writer._written.is_set()


@pytest.mark.parametrize("refused", ["all", "checkpoint-1", "ThreadPool"])
def test_where_the_system_refuses_a_thread_the_checkpoint_is_written_without(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    refused: str,
) -> None:
    folder, begins = tmp_path / "checkpoint-1", threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if refused == "all" or thread.name.startswith(refused):
            raise RuntimeError("can't start new thread")
        begins(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with Writer() as writer:
        begin(writer, folder, lambda one: save_tensors({"one": one}, folder / "large"))
    assert torch.equal(load_file(folder / "large")["one"], torch.ones(3))
    assert is_whole(folder)
    assert (tmp_path / "counts").exists()
    told = "The system refuses a thread: checkpoint-1 is written before the training goes on."
    assert (told in capsys.readouterr().out) is (refused != "ThreadPool")


def test_a_stop_where_the_system_refuses_a_thread_leaves_nothing_to_wait_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def stop(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(module, "warn", stop)
    writer = Writer()
    with pytest.raises(KeyboardInterrupt):
        begin(writer, tmp_path / "checkpoint-1", lambda _: None)
    assert writer._written.is_set()  # else its end would wait for ever


def test_a_lock_that_is_lost_meanwhile_gets_no_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, lost = tmp_path / "checkpoint-1", threading.Event()

    def require_held() -> None:
        if lost.is_set():
            raise RagtuneError("lost")

    monkeypatch.setattr(module, "require_held", require_held)
    with pytest.raises(RagtuneError, match="lost"), Writer() as writer:
        begin(writer, folder, lambda _: lost.set())
    assert [p.name for p in folder.iterdir()] == ["small"]  # it may be another machine's by now


def test_later_steps_change_nothing_of_a_checkpoint(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written a step late is what is written at once: weights, moments, and the mean."""

    def files(run: Path) -> dict[str, bytes]:
        with working(one := Context(tiny_recipe, ["train.average_last=0.9"], run)):
            make_stage(one, "adapter")
        folder = checkpoints_of(one.folder, one.recipe) / "checkpoint-2"
        written = {p.name: p.read_bytes() for p in folder.iterdir()}
        return {n: c for n, c in written.items() if n.endswith((".safetensors", ".pt"))}

    tiny_recipe["train"] |= {"steps": 4}
    with monkeypatch.context() as patch:
        patch.setattr(module, "available_memory", lambda: None)
        at_once = files(tmp_path / "at once")
    stepped, look = threading.Event(), Writer.look
    monkeypatch.setattr(module, "require_held", stepped.wait)

    def step(self: Writer) -> None:
        if not self._written.is_set():
            stepped.set()
        look(self)

    monkeypatch.setattr(Writer, "look", step)
    assert files(tmp_path / "late") == at_once
    assert stepped.is_set()
    assert {"average.safetensors", "adapter_model.safetensors", "optimizer.pt"} <= at_once.keys()
