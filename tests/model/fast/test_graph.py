"""What is done before a capture; captures themselves need a GPU (tests/training/test_graphs.py and others)."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ragtune.model.fast import graph
from ragtune.model.fast.graph import capture

CPU = torch.device("cpu")
OUT = torch.OutOfMemoryError("CUDA out of memory")


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done, in order, with 100 bytes that are free."""
    found: list[str] = []
    monkeypatch.setattr(graph, "free", lambda _: 100)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: found.append("waited"))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: found.append("emptied"))
    return found


def capturing(monkeypatch: pytest.MonkeyPatch, done: list[str], *errors: Exception | None) -> None:
    """Let captures, one after the other, fail so or not at all."""
    left = [*errors]

    def captured(*_: Any) -> str:
        done.append("captured")
        if (error := left.pop(0)) is not None:
            raise error
        return "a graph"

    monkeypatch.setattr(graph, "_captured", captured)


@pytest.mark.parametrize(
    ("needs", "before"), [(100, []), (101, ["waited", "emptied"]), (None, ["waited", "emptied"])]
)
def test_memory_is_given_back_before_where_there_may_be_too_little(
    monkeypatch: pytest.MonkeyPatch, done: list[str], needs: int | None, before: list[str]
) -> None:
    capturing(monkeypatch, done, None)
    assert capture(list, CPU, needs=needs) == "a graph"  # type: ignore[comparison-overlap]
    assert done == [*before, "captured"]


def test_where_it_was_too_little_it_is_given_back_and_captured_again(
    monkeypatch: pytest.MonkeyPatch, done: list[str]
) -> None:
    capturing(monkeypatch, done, OUT, None)
    assert capture(list, CPU, needs=100) == "a graph"  # type: ignore[comparison-overlap]
    assert done == ["captured", "waited", "emptied", "captured"]


def test_what_fails_otherwise_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, done: list[str]
) -> None:
    capturing(monkeypatch, done, RuntimeError("it asks the host"))
    with pytest.raises(RuntimeError, match="asks the host"):
        capture(list, CPU, needs=100)
    assert done == ["captured"]
