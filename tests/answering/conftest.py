from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from ragtune.answering import local, prediction


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The lengths of the prompts in every batch that `generate` is asked."""
    seen: list[list[int]] = []
    original = local.generate
    monkeypatch.setattr(
        local,
        "generate",
        lambda model, ids, settings: (
            seen.append([len(i) for i in ids]),
            original(model, ids, settings),
        )[1],
    )
    return seen


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where the progress bar was moved to."""
    seen: list[int] = []

    @contextlib.contextmanager
    def bar(*_: object, **__: object) -> Iterator[Callable[[int], None]]:
        yield seen.append

    monkeypatch.setattr(prediction, "progress", bar)
    return seen
