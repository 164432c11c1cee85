"""A model of the Hub in its cache: one commit for one run, and damage is noticed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import ragtune
from ragtune.base.files import read_json
from ragtune.model import hub_cache
from ragtune.model.hub_cache import commit_of, set_damaged_aside, to_download
from ragtune.model.source import ModelSource
from tests.conftest import tiny_model
from tests.ready import Ready
from tests.standin import Fault, Hub

BASE = ModelSource("owner/base", "owner/base")


def snapshot(cache: Path, commit: str, folder: Path) -> Path:
    """Put a folder into the Hub's cache as a commit, which main then is."""
    model = cache / "models--owner--base"
    target = model / "snapshots" / commit
    target.mkdir(parents=True)
    (model / "blobs").mkdir(exist_ok=True)
    (model / "refs").mkdir(exist_ok=True)
    (model / "refs" / "main").write_text(commit, "utf-8")
    for file in folder.iterdir():
        content = file.read_bytes()
        name = hashlib.sha256(content).hexdigest()
        if file.suffix == ".json":
            name = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        (model / "blobs" / name).write_bytes(content)
        (target / file.name).symlink_to(f"../../blobs/{name}")
    return target


@pytest.fixture
def cached(tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("RAGTUNE_CACHE", str(tmp_path / "cache"))
    return snapshot(tmp_path / "hub", "a" * 40, tiny_folder)


def test_what_is_to_be_downloaded(cached: Path) -> None:
    """Nothing of what is whole; else it can be watched how it arrives, and an index says how much it is."""
    assert to_download(BASE) == (None, None)
    (cached / "model.safetensors").unlink()
    blobs = cached.parents[1] / "blobs"
    assert to_download(BASE) == (blobs, None)
    index = cached / "model.safetensors.index.json"
    for said, size in (({"total_size": 7}, 7), (None, None), ({"total_size": "7"}, None)):
        index.write_text(json.dumps({"metadata": said, "weight_map": {"a": "b"}}), "utf-8")
        assert to_download(BASE) == (blobs, size)
    assert to_download(ModelSource("owner/other", "owner/other")) == (None, None)


def test_damaged_files_are_set_aside_and_whole_ones_read_once(
    cached: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert commit_of(BASE) == "a" * 40
    set_damaged_aside(BASE)
    assert not capsys.readouterr().out
    read: list[Path] = []
    digest = hub_cache._digest
    monkeypatch.setattr(hub_cache, "_digest", lambda blob: (read.append(blob), digest(blob))[1])
    set_damaged_aside(BASE)
    assert not read
    for name in ("model.safetensors", "config.json"):
        blob = (cached / name).resolve()
        content = bytearray(blob.read_bytes())
        content[-1] ^= 1
        blob.write_bytes(content)
        os.utime(blob, ns=(1, len(read) + 1))
        set_damaged_aside(BASE, 10_000 if name == "config.json" else 10**9)
        assert not (cached / name).exists()
        assert f"{name} of owner/base has another" in capsys.readouterr().out.replace("\n", " ")
    assert commit_of(BASE) is None
    set_damaged_aside(ModelSource("/no/folder", None))  # no model of the Hub


def test_two_at_once_remember_what_is_whole(cached: Path, tmp_path: Path) -> None:
    memory = tmp_path / "cache" / "whole.json"
    begin = threading.Barrier(2, lambda: memory.unlink(missing_ok=True))

    def look(_: int) -> None:
        for _ in range(40):
            begin.wait(20)
            set_damaged_aside(BASE)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(look, range(2)))
    known = json.loads(memory.read_text("utf-8"))["files"]
    assert known.keys() == {str(file.resolve()) for file in cached.iterdir()}
    assert [file.name for file in memory.parent.iterdir()] == ["whole.json"]


def test_a_run_stays_with_one_commit(
    cached: Path, tmp_path: Path, tiny_folder: Path, tiny_recipe: dict[str, Any]
) -> None:
    hub, run = tmp_path / "hub", tmp_path / "run"
    other = shutil.copytree(tiny_folder, tmp_path / "other")
    tiny_model("llama", initializer_range=0.3, eos_token_id=2).save_pretrained(other)
    tiny_recipe["model"]["id"] = "owner/base"
    answers = run / "eval" / "eval" / "before" / "predictions.jsonl"
    ragtune.prepare(tiny_recipe, run_dir=run)
    newer = snapshot(hub, "b" * 40, other)
    ragtune.evaluate(tiny_recipe, base=True, run_dir=run)
    assert read_json(run / "run.json")["commit"] == "a" * 40
    of_the_first = answers.read_bytes()
    ragtune.evaluate(tiny_recipe, base=True, run_dir=tmp_path / "later")
    assert read_json(tmp_path / "later" / "run.json")["commit"] == "b" * 40
    for folder in (run, newer):
        shutil.rmtree(folder)
    (hub / "models--owner--base" / "refs" / "main").write_text("a" * 40, "utf-8")
    ragtune.evaluate(tiny_recipe, base=True, run_dir=run)
    assert answers.read_bytes() == of_the_first


def test_with_an_expired_token_a_run_takes_the_model_in_the_cache(
    tmp_path: Path, tiny_folder: Path, tiny_recipe: dict[str, Any], ready: Ready
) -> None:
    snapshot(tmp_path / "hf" / "hub", "a" * 40, tiny_folder)
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({**tiny_recipe, "train": {"steps": 1, "batch_size": 1}}), "utf-8")
    says = "Invalid credentials in Authorization header"
    with Hub() as hub:
        hub.fail["."] = Fault(code=401, headers={"X-Error-Message": says})
        environment = {**hub.environment(), "HF_HOME": str(tmp_path / "hf")}
        for command, model, code in (
            ("run", "owner/base", 0), ("run", "owner/base", 0), ("check", "owner/other", 1),
        ):  # fmt: skip
            place = ["--run-dir", str(tmp_path / model)]
            arguments = [command, str(path), f"model.id={model}", *place]
            done = ready.run(arguments, **environment)
            assert done.returncode == code, done.stdout + done.stderr
            mark = "will fail" if code else "warning"
            assert (
                f"{mark}  model: model.id: {model} can't be looked up. The Hub refused (401): {says}."
                in (done.stdout)
            )
            assert "The token is wrong or has expired" in done.stdout
    assert (tmp_path / "owner" / "base" / "report.html").exists()


def test_offline_a_check_sees_that_the_weights_are_not_in_the_cache(
    tmp_path: Path, tiny_folder: Path, tiny_recipe: dict[str, Any], ready: Ready
) -> None:
    folder = snapshot(tmp_path / "hf" / "hub", "a" * 40, tiny_folder)
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({**tiny_recipe, "train": {"steps": 1, "batch_size": 1}}), "utf-8")
    place = ["--run-dir", str(tmp_path / "run")]
    command = ["--offline", "check", str(path), "model.id=owner/base", *place]
    for code in (0, 1):
        done = ready.run(command, HF_HOME=str(tmp_path / "hf"))
        assert done.returncode == code, done.stdout + done.stderr
        for file in folder.glob("*.safetensors"):
            file.unlink()
    assert (
        "will fail  model: model.id: not all weights of owner/base are in the cache" in done.stdout
    )
