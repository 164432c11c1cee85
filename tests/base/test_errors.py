from __future__ import annotations

import threading

import pytest
import torch

from ragtune.base.errors import RagtuneError, UsageError, in_words, is_out_of_memory
from ragtune.base.screen.progress import busy


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory"
            ),
            True,
        ),
        (RuntimeError("shapes do not match"), False),
        (ValueError("memory"), False),
    ],
)
def test_out_of_memory_is_recognised(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_torch_says_what_is_looked_for() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)


def test_a_refused_thread_is_no_fault_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError) as caught, busy("anything"):
        pass
    told = in_words(caught.value)
    assert told.message == "The system lets this process start no more threads."
    assert "ulimit -u" in told.advice


def test_exit_codes() -> None:
    assert (RagtuneError("x").exit_code, UsageError("x").exit_code) == (1, 2)
    assert str(RagtuneError("what", "do")) == "what\ndo"
