"""Weights that can't be read are named, with where to get them again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from ragtune.errors import RagtuneError
from ragtune.model.load import _loading, choose_hardware, load_model
from ragtune.model.source import ModelSource
from ragtune.recipe import Recipe


def cut(file: Path) -> Path:
    file.write_bytes(file.read_bytes()[:-100])
    return file


@pytest.mark.parametrize("how", ["cut", "zeros", "empty"])
def test_damaged_weights_of_a_folder_are_named(
    tiny_folder: Path, tiny_recipe: dict[str, Any], tmp_path: Path, how: str
) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    file = folder / "model.safetensors"
    if how == "cut":
        cut(file)
    else:
        file.write_bytes(b"" if how == "empty" else bytes(1000))
    words = (
        r"model\.id: .*/model/model\.safetensors is damaged \(.+\)\.\nCopy the model to that folder"
    )
    with pytest.raises(RagtuneError, match=words):
        load_model(
            ModelSource(str(folder), None),
            choose_hardware(Recipe.model_validate(tiny_recipe)),
            nf4=False,
        )


def test_damaged_weights_of_the_hubs_cache_are_those_that_the_link_leads_to(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "models--owner--name"
    snapshot, blob = home / "snapshots" / ("a" * 40), home / "blobs" / "b"
    for folder in (snapshot, blob.parent, home / "refs"):
        folder.mkdir(parents=True)
    (home / "refs" / "main").write_text(snapshot.name)
    shutil.copy(tiny_folder / "config.json", snapshot)
    shutil.copy(tiny_folder / "model.safetensors", blob)
    (snapshot / "model.safetensors").symlink_to(cut(blob))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    def load() -> None:
        with _loading("model", ModelSource("owner/name", "owner/name")):
            safe_open(snapshot / "model.safetensors", "pt")

    words = (
        r"/blobs/b is damaged \(.+\)\.\nDelete it and run the same command again: it is downloaded"
    )
    with pytest.raises(RagtuneError, match=words):
        load()
