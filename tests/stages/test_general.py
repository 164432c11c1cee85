"""General tasks before and after tuning: asked through lm-evaluation-harness, paired, kept, and shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import ragtune
from ragtune.base.errors import RagtuneError, UsageError
from tests.conftest import make_records, write_records

pytestmark = pytest.mark.usefixtures("_installed")

ANIMALS = ("cow", "dog", "cat", "owl", "hen", "fox")


@pytest.fixture
def _installed() -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: make general")


def write_task(folder: Path, name: str, count: int = 12, **more: Any) -> None:
    """A task of multiple choice, with its data beside it."""
    folder.mkdir(exist_ok=True)
    documents = [
        {
            "question": f"Which of the {n} animals barks?",
            "choices": list(ANIMALS[:4]),
            "answer": n % 4,
        }
        for n in range(count)
    ]
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(one) + "\n" for one in documents), "utf-8")
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        **more,
    }
    (folder / f"{name}.yaml").write_text(json.dumps(task), "utf-8")


@pytest.fixture
def recipe(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    write_task(tmp_path / "tasks", "animals")
    settings = {"general": ["animals"], "general_folder": str(tmp_path / "tasks")}
    return {**tiny_recipe, "evaluate": {**tiny_recipe["evaluate"], **settings}}


def test_it_runs(recipe: dict[str, Any], tmp_path: Path) -> None:
    ragtune.run(recipe, run_dir=tmp_path / "run")
    print((tmp_path / "run/eval/eval/general.json").read_text())
