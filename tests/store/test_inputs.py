"""What a stage was made of, where that is several files: each is known by its name, and one more is a change."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from ragtune.recipe.load import load_recipe
from ragtune.recipe.schema import Recipe
from ragtune.store import seal
from ragtune.store.inputs import input_changes, read_ahead, read_inputs
from ragtune.store.sets import set_name
from tests.conftest import make_records, write_records

BASE: dict[str, Any] = {
    "name": "x",
    "model": {"id": "owner/model"},
    "prompt": {"preset": "english"},
    "train": {"steps": 1},
}
KEYS = ("model.id", "data.train", "data.eval")


def recipe(train: str, evaluation: str = "owner/name") -> Recipe:
    return load_recipe(BASE | {"data": {"train": train, "eval": evaluation}})


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    (tmp_path / "a").mkdir()
    for number in range(3):
        write_records(tmp_path / "a" / f"train-{number}.jsonl", make_records(2, f"{number}"))
    return tmp_path


def test_shards_are_known_by_their_names(shards: Path) -> None:
    pattern = f"{shards}/*/train-*.jsonl"
    known = read_inputs(recipe(pattern), KEYS)()
    assert list(known) == ["data.train"]
    assert list(known["data.train"]["files"]) == [f"a/train-{n}.jsonl" for n in range(3)]
    assert known["data.train"]["path"] == pattern
    assert input_changes(known, recipe(pattern)) == []
    write_records(shards / "a" / "train-1.jsonl", make_records(3))
    write_records(shards / "a" / "train-9.jsonl", make_records(1))
    (shards / "a" / "train-0.jsonl").unlink()
    changes = input_changes(known, recipe(pattern))
    assert [change.replace(str(shards), "").partition(" (")[0] for change in changes] == [
        "data.train: /a/train-1.jsonl has changed",
        "data.train: /a/train-9.jsonl is new",
    ]


def test_a_folder_of_datasets_is_known_by_the_split_that_a_key_means(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    rows = Dataset.from_list(make_records(2))
    DatasetDict({"train": rows, "validation": rows}).save_to_disk(tmp_path / "d")
    known = read_inputs(recipe(f"{tmp_path}/d", f"{tmp_path}/d"), KEYS)()
    assert {key: list(found["files"]) for key, found in known.items()} == {
        "data.train": ["train/data-00000-of-00001.arrow"],
        "data.eval": ["validation/data-00000-of-00001.arrow"],
    }
    (tmp_path / "d" / "train" / "data-00000-of-00001.arrow").write_bytes(b"other")
    (change,) = input_changes(known, recipe(f"{tmp_path}/d", f"{tmp_path}/d"))
    assert change.startswith("data.train: ")
    assert "has changed" in change


def test_one_file_is_known_however_its_path_is_spelt(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = shards / "a" / "train-0.jsonl"
    known = read_inputs(recipe(str(file)), KEYS)()
    assert list(known["data.train"]["files"]) == ["train-0.jsonl"]
    monkeypatch.chdir(shards)
    other = recipe("a/train-0.jsonl")
    assert input_changes(known, other) == []
    os.truncate(file, 3)
    assert len(input_changes(known, other)) == 1


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("data/dev-*.parquet", "dev"),
        ("data/questions.csv", "questions"),
        ("q.ndjson.gz", "q"),
        ("問題.xlsx", "問題"),
        ("owner/name:distractor:validation", "name-distractor-validation"),
        ("data/*.jsonl", "questions"),
    ],
)  # fmt: skip
def test_what_a_set_is_called(source: str, expected: str) -> None:
    assert set_name(recipe("t.jsonl", source)) == expected


def test_weights_are_read_once_for_all_stages_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But anew where their time is another; small files always."""
    read: list[str] = []
    original = seal.sha256
    monkeypatch.setattr(seal, "sha256", lambda file: (read.append(file.name), original(file))[1])
    monkeypatch.setattr(seal, "SMALL", 100)
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    weights.write_bytes(b"1" * 200)
    config.write_text("{}", "utf-8")
    one = load_recipe(
        BASE | {"model": {"id": str(tmp_path)}, "data": {"train": "a/b", "eval": "a/b"}}
    )
    first = read_inputs(one, KEYS)()
    assert sorted(read) == ["config.json", "model.safetensors"]
    read.clear()
    assert read_inputs(one, KEYS)() == first
    assert read == ["config.json"]
    weights.write_bytes(b"2" * 200)
    os.utime(weights, ns=(1, 1))
    changed = read_inputs(one, KEYS)()["model.id"]["files"]["model.safetensors"]
    assert changed != first["model.id"]["files"]["model.safetensors"]


def test_what_is_being_read_ahead_is_waited_for_and_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    original, go = seal.sha256, threading.Event()

    def slowly(file: Path) -> str:
        read.append(file.name)
        assert go.wait(60)
        return original(file)

    monkeypatch.setattr(seal, "sha256", slowly)
    (tmp_path / "model.safetensors").write_bytes(b"1")
    one = load_recipe(
        BASE | {"model": {"id": str(tmp_path)}, "data": {"train": "a/b", "eval": "a/b"}}
    )
    read_ahead(one)
    first, second = read_inputs(one, KEYS), read_inputs(one, KEYS)
    go.set()
    assert first() == second()
    assert read == ["model.safetensors"]
    first()["model.id"]["files"]["model.safetensors"]["size"] = 5  # the caller's own
    assert second()["model.id"]["files"]["model.safetensors"]["size"] == 1


def test_a_model_that_cannot_be_read_is_no_error_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: Path) -> None:
        raise PermissionError

    one = load_recipe(
        BASE | {"model": {"id": str(tmp_path)}, "data": {"train": "a/b", "eval": "a/b"}}
    )
    monkeypatch.setattr(Path, "iterdir", refused)
    read_ahead(one)
    with pytest.raises(PermissionError):
        read_inputs(one, KEYS)
