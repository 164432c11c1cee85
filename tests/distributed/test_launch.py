"""Ranks that are started beside this process, and gone when it has done its work."""

from __future__ import annotations

import os

import psutil
import pytest

from ragtune.distributed.launch import launched
from ragtune.distributed.pulse import LostError

WAITS = ("timeit", "--setup", "import time; time.sleep(600)")
"""A module, and what it is given: what the ranks run doesn't matter, if only it lasts."""


def children() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if "-P" in one.cmdline()]


def test_ranks_begin_with_their_place_and_are_gone_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each leads a session of its own, as Ctrl-C is for rank 0 alone."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    before = dict(os.environ)
    with launched([0, 2, 5], *WAITS) as world:
        found = children()
        assert [os.getsid(one.pid) for one in found] == [one.pid for one in found]
        places = [one.environ() for one in found]
        assert [one["RANK"] for one in places] == ["1", "2"]
        assert [one["LOCAL_RANK"] for one in places] == ["2", "5"]
        assert {one["WORLD_SIZE"] for one in places} == {"3"}
        # Before they import anything: a library that looks for GPUs then would see them all.
        assert [one["CUDA_VISIBLE_DEVICES"] for one in places] == ["2", "5"]
        assert world.leads
    assert not any(one.is_running() for one in found)
    assert dict(os.environ) == before


def test_they_are_gone_after_an_error_too() -> None:
    with pytest.raises(KeyboardInterrupt) as raised, launched([0, 1], *WAITS):
        raise KeyboardInterrupt(*children())
    assert raised.value.args
    assert not any(one.is_running() for one in raised.value.args)


def test_one_that_can_not_begin_is_lost_with_its_words() -> None:
    with (
        pytest.raises(
            LostError, match=r"Lost rank 1: it ended with exit code 1: .*No module named"
        ),
        launched([0, 1], "there.is.none") as world,
    ):
        world.take("never")
