from __future__ import annotations

import pytest

from ragtune.answering import generate


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The lengths of the prompts in every batch that `generate` is asked."""
    seen: list[list[int]] = []
    original = generate.generate
    monkeypatch.setattr(
        generate,
        "generate",
        lambda model, ids, settings: (
            seen.append([len(i) for i in ids]),
            original(model, ids, settings),
        )[1],
    )
    return seen
