"""A Hub to publish on, and runs that are finished up to the push."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from ragtune.base.web import hub_client as client
from ragtune.recipe.load import save
from ragtune.recipe.schema import Recipe
from ragtune.stages.context import Context
from ragtune.stages.order import digests_of, place_of, stage_named
from ragtune.stages.summary import write_summary
from ragtune.store.changes import part_of
from ragtune.store.folder import RunFolder
from ragtune.store.proof import NAME, Proof, close
from ragtune.store.sets import set_name
from tests.conftest import make_records
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
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != NAME]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def published(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in contents(folder).items() if content != b"secret"}


@dataclass
class Finished:
    """A run that is finished up to the push, without anything having been trained."""

    path: Path
    recipe: Recipe

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.path, set_name(self.recipe))

    @property
    def adapter(self) -> Path:
        return self.folder.adapter

    def record(self, name: str, files: dict[str, str] | None = None) -> None:
        """Finish a stage: with these files, or with what its folder holds by now."""
        stage = stage_named(name)
        place, made = place_of(self.folder, stage), self.path / "made"
        needs = digests_of(self.folder, stage, self.recipe)
        proof = Proof(
            stage=name,
            recipe=part_of(self.recipe, stage.reads, stage.but),
            needs=needs,
            date=date(2025, 1, 2),
            facts={"plan": {}, "train": {}} if name == "adapter" else {},
        )
        if files is None:
            if (place / NAME).exists():
                old = Proof.model_validate_json((place / NAME).read_bytes())
                proof = old.model_copy(update={"needs": needs})
                (place / NAME).unlink()
            place.rename(made)
        for file, text in (files or {}).items():
            made.mkdir(exist_ok=True)
            (made / file).write_text(text, "utf-8")
        close(made, proof, place)

    def trained(self, base: str | None = None) -> None:
        """Finish all from the training on; the adapter's base is this model of the Hub."""
        config = json.dumps({"base_model_name_or_path": base})
        self.record(
            "adapter", {"adapter_config.json": config, "adapter_model.safetensors": "weights"}
        )
        self.answer("after", 6)
        self.record("merged")
        self.answer("merged answers", 5)

    def answer(self, name: str, right: int) -> None:
        """Let so many of the ten questions have been answered rightly."""
        rows = [
            {"qid": r["qid"], "prediction": r["answers"][0] if i < right else "no",
             "token_ids": [], "stopped": True}
            for i, r in enumerate(make_records(10, "e"))
        ]  # fmt: skip
        self.record(name, {"predictions.jsonl": lines(rows)})


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def run_dir(tmp_path: Path, tiny_recipe: dict[str, Any], folder: Path) -> Finished:
    """A run that is finished up to the push; of ten answers six are right, merged five."""
    run = Finished(tmp_path, Recipe.model_validate(tiny_recipe))
    split = {"selected": 10, "read": 10}
    report = json.dumps(
        {"max_passages": 2, "max_prompt_tokens": 99, "stop_token": "<|im_end|>", "messages": {},
         "train": split, "eval": split, "audits": []}
    )  # fmt: skip
    questions = lines([r | {"selected": True} for r in make_records(10, "e")])
    run.record("data", {"report.json": report, "train.jsonl": ""})
    run.record("questions", {"report.json": report, "eval.jsonl": questions})
    run.trained()
    context = Context(run.recipe, run_dir=tmp_path)
    write_summary(context)
    save(context.recipe, run.folder.recipe)
    return run
