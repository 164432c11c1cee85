"""Ranks that begin before rank 0 has imported what it needs: they are taken as they are, or end."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ragtune.distributed import followers
from ragtune.distributed.followers import Followers, early, followers_of
from ragtune.distributed.place import Place
from tests.distributed.test_launch import WAITS

LISTENS = "import os, sys; os._exit(int(sys.stdin.readline() or 99) % 100)"
"""It ends with what it is told, or, where nobody tells it anything any more, with 99."""
TELLS = "import json, os; print(json.dumps(dict(os.environ)), flush=True); os._exit(0)"


def processes(of: Followers) -> list[subprocess.Popen[bytes]]:
    return [one.process for one in of._all]


def begun_early() -> list[subprocess.Popen[bytes]]:
    (found,) = followers._early
    return processes(found)


def test_those_that_began_early_are_taken() -> None:
    with early([0, 2, 5], *WAITS):
        begun = begun_early()
        with followers_of([0, 2, 5], *WAITS) as taken:
            taken.begin()
            assert processes(taken) == begun
            assert [one.poll() for one in begun] == [None, None]
        assert all(one.returncode is not None for one in begun)


@pytest.mark.parametrize(
    ("visible", "seen"), [(None, ["2", "1"]), ("4,GPU-b,6", ["6", "GPU-b"]), ("", ["", ""])]
)
def test_they_begin_in_the_environment_that_they_would_have_later(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, seen: list[str]
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    given = [0, 2, 1], "timeit", "--setup", TELLS
    with early(*given):
        found = environments(followers._early[0])
    with Followers(*given) as later:
        later.begin()
        assert environments(later) == found
    # Before they import anything: a library that looks for GPUs then would see them all.
    assert [one["CUDA_VISIBLE_DEVICES"] for one in found] == seen
    assert [one["RANK"] for one in found] == ["1", "2"]
    assert [one["LOCAL_RANK"] for one in found] == ["2", "1"]
    assert {(one["WORLD_SIZE"], one["MASTER_ADDR"]) for one in found} == {("3", "127.0.0.1")}


def environments(of: Followers) -> list[dict[str, str]]:
    """What each was started with, as it says itself: the system may not know it yet."""
    assert [one.wait() for one in processes(of)] == [0, 0]
    for one in of._all:
        one.said.seek(0)
    return [json.loads(one.said.read()) for one in of._all]


@pytest.mark.parametrize(
    ("devices", "command"),
    [([0, 2], WAITS), ([1, 0], WAITS), ([0, 1, 2], WAITS), ([0], WAITS), ([0, 1], (*WAITS, "more"))],
)  # fmt: skip
def test_those_that_are_not_wanted_end_at_once(
    devices: list[int], command: tuple[str, ...]
) -> None:
    with early([0, 1], *WAITS):
        (begun,) = begun_early()
        others = followers_of(devices, *command)
        assert begun.returncode is not None
        assert (others.devices, others.command) == (devices, [*command])
        assert processes(others) == []


def test_those_that_nobody_takes_end_also_after_an_error() -> None:
    with pytest.raises(KeyboardInterrupt) as raised, early([0, 1], *WAITS):
        raise KeyboardInterrupt(*begun_early())
    (begun,) = raised.value.args
    assert begun.returncode is not None
    assert processes(followers_of([0, 1], *WAITS)) == []  # nothing of them is left to be taken


def test_one_that_the_system_refuses_at_first_is_started_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(place: Place, *given: str) -> followers.Follower:
        if place.rank == 2:
            raise BlockingIOError
        return original(place, *given)

    original = followers.start
    monkeypatch.setattr(followers, "start", start)
    with early([0, 1, 2], *WAITS):
        (begun,) = begun_early()
        taken = followers_of([0, 1, 2], *WAITS)
        with pytest.raises(BlockingIOError):
            taken.begin()
        monkeypatch.setattr(followers, "start", original)
        taken.begin()
        first, second = processes(taken)
        assert first is begun
    assert second.returncode is not None


def test_they_are_told_a_port() -> None:
    with Followers([0, 1], "timeit", "--setup", LISTENS) as told:
        told.begin()
        told.tell(29542)
        assert processes(told)[0].wait() == 42


def test_one_that_is_gone_is_not_told_and_named() -> None:
    with Followers([0, 1], "there.is.none") as told:
        told.begin()
        (begun,) = processes(told)
        begun.wait()
        told.tell(29500)
        found = told.ended()
        assert found is not None
        assert found[0] == 1
        assert "No module named" in found[1]


@pytest.mark.skipif(sys.platform == "win32", reason="nothing there is ended by a signal")
def test_one_that_said_nothing_is_named_with_how_it_ended() -> None:
    with Followers([0, 1], *WAITS) as told:
        told.begin()
        (begun,) = processes(told)
        begun.terminate()
        begun.wait()
        assert told.ended() == (1, "it was killed by SIGTERM")


def test_one_whose_rank_0_is_gone_ends() -> None:
    """Of a process that is killed the system closes what it had open."""
    with Followers([0, 1], "timeit", "--setup", LISTENS) as told:
        told.begin()
        told._all[0].hears.close()
        assert processes(told)[0].wait() == 99
