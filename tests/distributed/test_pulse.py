"""How a process ends that can't end by itself: what it waits for is torch, in C++."""

from __future__ import annotations

import math
import threading

import pytest
from torch import distributed as dist

from ragtune.distributed import limits, pulse
from ragtune.distributed.pulse import lost
from ragtune.distributed.store import write


def test_what_rank_0_writes_is_finished_when_a_rank_is_lost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also while it waits for that rank in C++, and only another thread writes."""
    codes = list[int]()
    monkeypatch.setattr(pulse.Pulse, "_run", lambda _: None)
    monkeypatch.setattr(pulse.os, "_exit", codes.append)
    one = pulse.Pulse(lambda: None, rank=0, size=2, started=None)  # type: ignore[arg-type, return-value]
    one.lost, one.working, one._well = lost("rank 1", "it was killed"), True, -math.inf
    one.writing = lambda: True
    one._end_if_stuck(None)
    one.writing = lambda: False
    one._end_if_stuck(None)
    assert not codes  # from the end of the writing on it has its time
    one._well = -math.inf
    one._end_if_stuck(None)
    assert codes == [1]
    assert "Lost rank 1: it was killed." in capsys.readouterr().err


def test_a_rank_that_comes_and_fails_while_it_is_looked_for_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Late:
        def __init__(self) -> None:
            self._store = dist.HashStore()
            self.get = self._store.get

        def check(self, keys: list[str]) -> bool:
            if keys == ["failed/1"]:
                self._store.set("host/1", "Node-1")
                write(self._store, "failed/1", ["No memory.", "", ""])
            return self._store.check(keys)

    monkeypatch.setattr(pulse.Pulse, "_run", lambda _: None)
    one = pulse.Pulse(lambda: None, rank=0, size=2, started=None)  # type: ignore[arg-type, return-value]
    assert str(one._look(Late())).startswith("Rank 1 on Node-1: No memory.")  # type: ignore[arg-type]


def test_a_rank_that_is_cut_off_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Torch's store waits for an answer without an end; nothing else of the process can be trusted to run."""
    cut, codes, before = threading.Event(), list[int](), {*threading.enumerate()}

    class CutOff:
        def set(self, *_: str) -> None:
            pass

        def check(self, _: list[str]) -> bool:
            return not cut.wait(60)

    def ends(code: int) -> None:
        codes.append(code)
        cut.set()

    monkeypatch.setattr(limits, "BEAT", 0.01)
    monkeypatch.setattr(limits, "SILENT", 0.05)
    monkeypatch.setattr(limits, "LEAVING", 0.05)
    monkeypatch.setattr(pulse.os, "_exit", ends)
    one = pulse.Pulse(CutOff, rank=1, size=2, started=None)  # type: ignore[arg-type, return-value]
    assert cut.wait(30)
    one.stop()
    for thread in {*threading.enumerate()} - before:  # else they may end this very process
        thread.join()
    assert codes[0] == 1
    assert "Lost rank 0: its machine does not answer." in capsys.readouterr().err
