"""A rank that follows reads the adapter again only where its own may be another."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ragtune.model.lora import attach
from ragtune.recipe.schema import Lora
from ragtune.stages import answer
from tests.conftest import tiny_model


@pytest.mark.parametrize(
    ("keep", "alike", "read"), [("last", True, 0), ("last", False, 1), ("best", True, 1)]
)
def test_what_all_computed_alike_is_not_read_again(
    keep: str, alike: bool, read: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Any] = []
    asked: list[Any] = []
    monkeypatch.setattr(answer, "refresh", lambda *given: reads.append(given))
    monkeypatch.setattr(answer.Local, "follow", lambda self, *_: asked.append(self.model))
    model = attach(tiny_model("llama"), Lora(), 1)
    context: Any = SimpleNamespace(
        plan=SimpleNamespace(evaluation_batch=2, cache_tokens=None),
        recipe=SimpleNamespace(
            evaluate=SimpleNamespace(max_new_tokens=3), train=SimpleNamespace(keep=keep)
        ),
        encoder=None,
        folder=SimpleNamespace(adapter="there"),
        tuned=lambda: model,
    )
    world: Any = SimpleNamespace(alike=alike)
    answer.follow(context, world, {"model": "after", "queue": "0", "how": "packed"})
    assert reads == [(model, "there")] * read
    assert asked == [model]
