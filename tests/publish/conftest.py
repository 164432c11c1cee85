"""A Hub to publish on, and runs that are finished up to the push."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from ragtune.base import hub as client
from ragtune.base.files import write_json
from ragtune.recipe.schema import Recipe
from ragtune.store.folder import RunDir
from tests.standin import Hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as hub:
        hub.stand_in(monkeypatch)
        yield hub


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that would be waited."""
    waits: list[float] = []
    monkeypatch.setattr(client, "sleep", waits.append)
    return waits


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a finished merge leaves, and what must not leave the machine."""
    folder = tmp_path / "merged"
    folder.mkdir()
    (folder / "model-00001-of-00002.safetensors").write_bytes(os.urandom(300_000))
    (folder / "model-00002-of-00002.safetensors").write_bytes(os.urandom(1_000))
    (folder / "config.json").write_text('{"model_type": "llama"}', "utf-8")
    (folder / "chat_template.jinja").write_text("{{ 'こんにちは' }}", "utf-8")
    (folder / "README.md").write_text("---\nlibrary_name: transformers\n---\n# model\n", "utf-8")
    for name in ("training_args.bin", "optimizer.pt", "rng_state.pth", "train_log.jsonl", "x.pkl"):
        (folder / name).write_bytes(b"secret")
    (folder / "checkpoint-5").mkdir()
    (folder / "checkpoint-5" / "optimizer.pt").write_bytes(b"secret")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def published(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in contents(folder).items() if content != b"secret"}


def figures(value: float, low: float, high: float) -> dict[str, Any]:
    """The part of metrics.json that a push looks at."""
    one = {"value": value, "low": low, "high": high}
    return {"n": 10, "metrics": {"squad_em": value}, "intervals": {"squad_em": one}}


@pytest.fixture
def run_dir(
    tmp_path: Path, tiny_recipe: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> RunDir:
    """A run that is finished up to the push."""
    monkeypatch.setattr(
        "ragtune.stages.context.free_gpu", lambda: None
    )  # slow, and nothing is loaded
    run_dir = RunDir(tmp_path)
    recipe = Recipe.model_validate(tiny_recipe)
    write_json(run_dir.state, {"recipe": recipe.model_dump(mode="json")})
    run_dir.claim(recipe, date(2025, 1, 2))
    run_dir.update(merge={"asked": 10, "changed": 1, **figures(0.5, 0.2, 0.8)})
    split = {"selected": 10, "read": 10}
    written = {
        "data/report.json": {"train": split, "eval": split},
        "after/metrics.json": figures(0.6, 0.3, 0.9),
    }
    for name, value in written.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(json.dumps(value), "utf-8")
    return run_dir
