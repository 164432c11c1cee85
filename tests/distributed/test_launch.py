"""Ranks that are started beside this process, and gone when it has done its work."""

from __future__ import annotations

import errno
import os

import pytest

from ragtune.base.errors import RagtuneError
from ragtune.distributed import followers
from ragtune.distributed.followers import Followers
from ragtune.distributed.launch import launched
from ragtune.distributed.pulse import LostError

WAITS = ("timeit", "--setup", "import time; time.sleep(600)")
"""A module, and what it is given: what the ranks run doesn't matter, if only it lasts."""


def test_ranks_are_gone_afterwards() -> None:
    """Each leads a session of its own, as Ctrl-C is for rank 0 alone."""
    before, ranks = dict(os.environ), Followers([0, 2, 5], *WAITS)
    with launched(ranks) as world:
        found = [one.process for one in ranks._all]
        assert [os.getsid(one.pid) for one in found] == [one.pid for one in found]
        assert [one.poll() for one in found] == [None, None]
        assert world.leads
    assert None not in [one.returncode for one in found]
    assert dict(os.environ) == before


def test_they_are_gone_after_an_error_too() -> None:
    ranks = Followers([0, 1], *WAITS)
    with pytest.raises(KeyboardInterrupt) as raised, launched(ranks):
        raise KeyboardInterrupt(*(one.process for one in ranks._all))
    (found,) = raised.value.args
    assert found.returncode is not None


def test_one_that_can_not_begin_is_lost_with_its_words() -> None:
    with (
        pytest.raises(
            LostError, match=r"Lost rank 1: it ended with exit code 1: .*No module named"
        ),
        launched(Followers([0, 1], "there.is.none")) as world,
    ):
        world.take("never")


def test_where_the_system_starts_no_more_processes_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(followers, "start", refuse)
    before = dict(os.environ)
    with (
        pytest.raises(
            RagtuneError,
            match=r"can't be started here: Resource temporarily unavailable\.\n.*devices=1",
        ),
        launched(Followers([0, 1], *WAITS)),
    ):
        pass
    assert dict(os.environ) == before
