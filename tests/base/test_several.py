"""Sources of several files: names with *, and folders of `save_to_disk`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ragtune.base import several
from ragtune.base.errors import UsageError
from ragtune.base.several import files_of, fixed_part, saved_splits


def test_shards_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        (tmp_path / f"train-{number}.jsonl").touch()
    (tmp_path / "train-0.jsonl").mkdir()
    found = files_of(f"{tmp_path}/train-*.jsonl")
    assert [p.name for p in found] == ["train-1.jsonl", "train-2.jsonl", "train-10.jsonl"]


def test_a_file_whose_name_has_brackets_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a[1].jsonl").touch()
    (tmp_path / "a1.jsonl").touch()
    assert [p.name for p in files_of(f"{tmp_path}/a[1].jsonl")] == ["a[1].jsonl"]
    assert files_of(f"{tmp_path}/b[1].jsonl") == []


def test_two_stars_go_through_folders(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x.jsonl").touch()
    (tmp_path / "y.jsonl").touch()
    assert [p.name for p in files_of(f"{tmp_path}/**/*.jsonl")] == ["x.jsonl", "y.jsonl"]
    assert fixed_part(Path(f"{tmp_path}/**/*.jsonl")) == tmp_path
    assert fixed_part(Path("*.jsonl")) == Path()


def test_too_many_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(several, "MAX_FILES", 2)
    for number in range(3):
        (tmp_path / f"{number}.jsonl").touch()
    with pytest.raises(UsageError, match="names more than 2 files"):
        files_of(f"{tmp_path}/*.jsonl")


@pytest.mark.parametrize("name", ["../x.arrow", "/etc/x.arrow", "a/b.arrow", 7, "x.parquet"])
def test_a_saved_dataset_names_no_files_elsewhere(tmp_path: Path, name: object) -> None:
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    assert files_of(str(tmp_path)) == []


@pytest.mark.parametrize(
    "text", ["", "[]", '{"splits": 7}', '{"splits": [7]}', '{"splits": ["../x", ".."]}']
)
def test_a_damaged_list_of_splits_names_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset_dict.json").write_text(text)
    assert saved_splits(tmp_path) == []
