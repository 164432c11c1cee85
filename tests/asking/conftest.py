"""A tiny run that was tuned, made once for all tests of asking."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import ragtune
from ragtune.asking.reader import Reader
from tests.conftest import make_records, write_records


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """The directory of a whole run: data, answers before and after, adapter, merged model."""
    place = tmp_path_factory.mktemp("asked")
    run = place / "run"
    recipe: dict[str, Any] = {
        "name": "houses",
        "seed": 7,
        "model": {"id": str(tiny_folder), "dtype": "float32"},
        "data": {
            "train": str(write_records(place / "train.jsonl", make_records(24))),
            "eval": str(write_records(place / "eval.jsonl", make_records(10, "e"))),
            "max_passages": 2,
            "refusal": "not said",
        },
        "prompt": {"preset": "english"},
        "lora": {"rank": 4, "alpha": 8, "dropout": 0.0},
        "train": {"steps": 8, "batch_size": 4, "learning_rate": 0.01, "save_every": 8},
        "evaluate": {"max_new_tokens": 6, "metric": "squad_em", "limit": 10},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAGTUNE_CACHE", str(place / "cache"))
        ragtune.run(recipe, run_dir=run)
    return run


@pytest.fixture(scope="session")
def reader(tuned: Path) -> Reader:
    return Reader.load(tuned)


def predictions(run: Path, which: str) -> dict[str, dict[str, Any]]:
    """What the evaluation answered, by qid."""
    lines = (run / "eval" / "eval" / which / "predictions.jsonl").read_text("utf-8").splitlines()
    return {row["qid"]: row for row in map(json.loads, lines)}
