"""Of a repository on the Hub nothing is loaded but its own weights, and no pickle."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterator
from hashlib import sha1
from pathlib import Path

import pytest
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import LocalEntryNotFoundError

from ragtune.base.errors import UsageError
from ragtune.model.facts import model_facts
from ragtune.model.hardware import Hardware
from ragtune.model.hub_cache import require_safe_snapshot
from ragtune.model.load import load_config, load_model
from ragtune.model.lora import attach, save_adapter
from ragtune.model.source import ModelSource, resolve
from ragtune.recipe.lora import Lora
from ragtune.recipe.schema import Model
from tests.conftest import tiny_model
from tests.model.test_hub_cache import snapshot
from tests.safety.test_code import Bomb
from tests.standin import Hub, Repo

BASE = ModelSource("owner/base", "owner/base")
CPU = Hardware(torch.device("cpu"), torch.float32, "", "CPU")
COMMIT = sha1(b"0").hexdigest()
"""The one that the stand-in names."""


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What lies in the repository; the cache is empty."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return shutil.copytree(tiny_folder, tmp_path / "model")


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub that has it."""
    with Hub() as hub:
        hub.stand_in(monkeypatch)
        hub.repos["owner/base"] = Repo(False, {p.name: p.read_bytes() for p in folder.iterdir()})
        yield hub


def add_adapter(folder: Path, mark: Path, base: Path) -> None:
    """An adapter of another model, as a pickle."""
    save_adapter(attach(tiny_model("llama"), Lora(rank=2), 0), folder, None)
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Bomb(mark)))
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    config["base_model_name_or_path"] = str(base)
    (folder / "adapter_config.json").write_text(json.dumps(config), "utf-8")


@pytest.mark.parametrize("load", [load_config, lambda source: load_model(source, CPU, nf4=False)])
@pytest.mark.parametrize("kind", ["pickle", "safetensors"])
def test_an_adapter_in_the_cache_is_refused(
    folder: Path, tiny_folder: Path, tmp_path: Path, load: type, kind: str
) -> None:
    mark = tmp_path / "ran"
    add_adapter(folder, mark, tiny_folder)
    if kind == "safetensors":
        (folder / "adapter_model.bin").unlink()
    snapshot(tmp_path / "hub", COMMIT, folder)
    with pytest.raises(UsageError) as raised:
        load(BASE)
    assert raised.value.message.startswith(
        "model.id: owner/base holds an adapter " + ("as a" if kind == "pickle" else "(adapter_con")
    )
    assert not mark.exists()


def test_an_adapter_that_only_the_hub_has_is_refused(
    hub: Hub, folder: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    snapshot(tmp_path / "hub", COMMIT, folder)
    assert require_safe_snapshot(BASE)[1]
    add_adapter(folder, tmp_path / "ran", tiny_folder)
    config = (folder / "adapter_config.json").read_bytes()
    hub.repos["owner/base"].files["adapter_config.json"] = config
    words = r"model\.id: owner/base holds an adapter \(adapter_config\.json\) beside the model"
    with pytest.raises(UsageError, match=words) as raised:
        load_model(BASE, CPU, nf4=False)
    assert "hf download owner/base --exclude 'adapter_*' --local-dir FOLDER" in raised.value.advice


def test_what_could_not_be_asked_is_not_looked_up_later(
    hub: Hub, folder: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network is away when the adapter is looked for, and back when transformers looks again."""
    snapshot(tmp_path / "hub", COMMIT, folder)
    add_adapter(folder, tmp_path / "ran", tiny_folder)
    for file in folder.glob("adapter_*"):
        hub.repos["owner/base"].files[file.name] = file.read_bytes()
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)

    def away(*_: object, **__: object) -> None:
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr("ragtune.model.hub_cache.hf_hub_download", away)
    own = load_model(resolve(Model(id=str(tiny_folder))), CPU, nf4=False).state_dict()
    hub.requests.clear()
    model = load_model(BASE, CPU, nf4=False)
    assert not [r for r in hub.requests if "adapter" in r]
    assert all(torch.equal(own[name], value) for name, value in model.state_dict().items())
    assert hf_hub_download("owner/base", "adapter_config.json", revision=COMMIT)  # it was there


@pytest.mark.parametrize(("code", "asked"), [(404, True), (403, False)])
def test_an_answer_of_a_mirror(
    hub: Hub, folder: Path, tmp_path: Path, code: int, asked: bool
) -> None:
    """It says 404 without the Hub's own code for a file that is not there."""
    snapshot(tmp_path / "hub", COMMIT, folder)
    hub.fail["adapter_config"] = code
    assert require_safe_snapshot(BASE) == (ModelSource("owner/base", "owner/base", COMMIT), asked)
    assert [r for r in hub.requests if "adapter_config" in r]


def test_a_repository_that_is_gone_is_read_from_the_cache(
    hub: Hub, folder: Path, tmp_path: Path
) -> None:
    snapshot(tmp_path / "hub", COMMIT, folder)
    hub.repos.clear()
    assert not require_safe_snapshot(BASE)[1]
    assert load_model(BASE, CPU, nf4=False)


@pytest.mark.parametrize("name", ["pytorch_model-00001-of-00001.bin", "../x.safetensors"])
def test_an_index_that_leads_to_something_else_is_refused(
    hub: Hub, folder: Path, tmp_path: Path, name: str
) -> None:
    (folder / "model.safetensors").unlink()
    snapshot(tmp_path / "hub", COMMIT, folder)
    index = json.dumps({"weight_map": {"a": name}}).encode()
    hub.repos["owner/base"].files["model.safetensors.index.json"] = index
    with pytest.raises(UsageError, match="which is no file of this folder"):
        load_config(ModelSource("owner/base", "owner/base", COMMIT))


@pytest.mark.parametrize("place", ["top", "text_config"])
@pytest.mark.parametrize("name", ["adapter_model.bin", "../x.safetensors"])
def test_a_configuration_that_names_other_weights_is_refused(
    folder: Path, tmp_path: Path, name: str, place: str
) -> None:
    """transformers reads adapter_model.bin so, with use_safetensors=True and without an adapter."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (config if place == "top" else config.setdefault(place, {}))["transformers_weights"] = name
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    words = "as weights, which is no safetensors file of this folder"
    with pytest.raises(UsageError, match=words):
        resolve(Model(id=str(folder)))
    snapshot(tmp_path / "hub", COMMIT, folder)
    with pytest.raises(UsageError, match=words):
        load_model(BASE, CPU, nf4=False)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["pytorch_model.bin", "old/model.safetensors"], r"base/pytorch_model\.bin is a pickle"),
        (["model.safetensors", "adapter_config.json"], r"base holds an adapter \(adapter_config"),
        (["model.safetensors", "adapter_model.bin"], "base holds an adapter as a pickle"),
        (["model-q4.gguf"], r"base holds no \.safetensors file"),
        (["model.safetensors", "pytorch_model.bin", "sub/adapter_config.json"], ""),
    ],
)
def test_what_the_hub_lists_is_looked_at(hub: Hub, names: list[str], words: str) -> None:
    hub.repos["owner/base"] = Repo(False, dict.fromkeys(["config.json", *names], b"{}"))
    if not words:
        assert model_facts("owner/base", None) == (None, False)
        return
    with pytest.raises(UsageError, match=words):
        model_facts("owner/base", None)


def test_a_model_of_which_the_cache_has_little_is_no_pickle(folder: Path, tmp_path: Path) -> None:
    """Another program may have fetched the pickle only."""
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"x")
    snapshot(tmp_path / "hub", COMMIT, folder)
    assert load_config(BASE).model_type == "llama"
