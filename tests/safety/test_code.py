"""No code of a model, a recipe or a pickle is run that was not asked for by name."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.model.load import load_config, load_model, load_tokenizer
from ragtune.model.lora import attach, load_adapter, save_adapter
from ragtune.model.skeleton import skeleton
from ragtune.model.source import ModelSource, resolve
from ragtune.recipe.load import load_recipe
from ragtune.recipe.lora import Lora
from ragtune.recipe.schema import Model
from tests.conftest import tiny_model

CODE = """\
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
Path({mark!r}).write_text("ran")
class OwnConfig(LlamaConfig):
    model_type = "own_of_its_own"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """What foreign code would leave behind."""
    return tmp_path / "ran"


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_folder, tmp_path / "model")


def test_the_bomb_works(mark: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists()


def add_code(folder: Path, mark: Path) -> None:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config |= {
        "model_type": "own_of_its_own",
        "architectures": ["OwnModel"],
        "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"},
    }
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    (folder / "own.py").write_text(CODE.format(mark=str(mark)), "utf-8")


def test_a_models_code_is_not_run_unasked(folder: Path, mark: Path) -> None:
    add_code(folder, mark)
    with pytest.raises(UsageError) as raised:
        load_config(resolve(Model(id=str(folder))))
    assert "needs Python code that comes with it" in raised.value.message
    assert "model.trust_remote_code=true" in raised.value.advice
    assert not mark.exists()


def test_a_models_code_runs_when_it_is_asked_for_and_that_is_said(
    folder: Path, mark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from ragtune.model.hardware import Hardware

    add_code(folder, mark)
    source = resolve(Model(id=str(folder), trust_remote_code=True))
    assert "model.trust_remote_code is on: Python code" in capsys.readouterr().out
    config = load_config(source)
    assert mark.exists()
    assert type(skeleton(config)).__name__ == "OwnModel"
    hardware = Hardware(torch.device("cpu"), torch.float32, "", "CPU")
    assert type(load_model(source, hardware, nf4=False)).__name__ == "OwnModel"


def test_a_tokenizers_code_is_not_run_unasked(folder: Path, mark: Path) -> None:
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text("utf-8"))
    config |= {
        "tokenizer_class": "OwnTokenizer",
        "auto_map": {"AutoTokenizer": ["own.OwnTokenizer", None]},
    }
    path.write_text(json.dumps(config), "utf-8")
    (folder / "own.py").write_text(CODE.format(mark=str(mark)), "utf-8")
    with pytest.raises(UsageError, match="needs Python code that comes with it"):
        load_tokenizer(resolve(Model(id=str(folder))))
    assert not mark.exists()


def test_trust_remote_code_is_off_and_takes_only_a_boolean(tiny_recipe: dict[str, Any]) -> None:
    assert load_recipe(tiny_recipe).model.trust_remote_code is False
    with pytest.raises(UsageError, match=r"model\.trust_remote_code = 'maybe'"):
        load_recipe(tiny_recipe, ["model.trust_remote_code=maybe"])


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl", "a.ckpt"])
def test_a_folder_with_pickled_weights_is_refused(folder: Path, mark: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(UsageError) as raised:
        resolve(Model(id=str(folder)))
    assert f"{name} is a pickle" in raised.value.message
    assert "save_pretrained" in raised.value.advice
    assert not mark.exists()


def test_pickles_beside_safetensors_are_not_read(folder: Path, mark: Path) -> None:
    import torch

    from ragtune.model.hardware import Hardware

    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(mark)))
    hardware = Hardware(torch.device("cpu"), torch.float32, "", "CPU")
    load_model(resolve(Model(id=str(folder))), hardware, nf4=False)
    assert not mark.exists()


def test_a_pickle_as_the_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(b"")
    with pytest.raises(UsageError, match="is a pickle"):
        resolve(Model(id=str(path)))


def test_weights_that_are_only_pickles_further_away_are_refused_when_loaded(
    folder: Path, mark: Path
) -> None:
    """As of a repository on the Hub, whose files are not known before."""
    import torch

    from ragtune.model.hardware import Hardware

    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(mark)))
    hardware = Hardware(torch.device("cpu"), torch.float32, "", "CPU")
    with pytest.raises(UsageError, match=r"has no model\.safetensors.*safetensors and GGUF only"):
        load_model(ModelSource(str(folder), None), hardware, nf4=False)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "chat_template.jinja"])
def test_a_pipe_among_a_models_files_is_not_waited_for(folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(UsageError, match=r"is no plain file, but a pipe|config\.json"):
        resolve(Model(id=str(folder)))


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/x.safetensors", "model.py"])
def test_an_index_that_leaves_its_folder_is_refused(folder: Path, name: str) -> None:
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": name}}), "utf-8"
    )
    with pytest.raises(UsageError, match="no file of this folder"):
        resolve(Model(id=str(folder)))


def test_an_adapter_beside_the_base_is_refused(folder: Path) -> None:
    resolve(Model(id=str(folder)))
    save_adapter(attach(tiny_model("llama"), Lora(rank=2), 0), folder, None)
    with pytest.raises(UsageError) as raised:
        resolve(Model(id=str(folder)))
    assert raised.value.message == (
        f"model.id: {folder} holds an adapter (adapter_config.json) beside the model."
    )
    for file in folder.glob("adapter_*"):  # as the advice says
        file.unlink()
    assert resolve(Model(id=str(folder))).path == str(folder)


def test_a_pickled_adapter_is_refused(tmp_path: Path, mark: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    save_adapter(attach(tiny_model("llama"), Lora(rank=2), 0), adapter, None)
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(RagtuneError) as raised:
        load_adapter(tiny_model("llama"), adapter)
    assert "holds no adapter_model.safetensors" in raised.value.message
    assert "pickle" in raised.value.advice
    assert not mark.exists()


@pytest.mark.parametrize("revision", ["../../x", "a/../../b", "/etc", "a\0b", "-x", "a b"])
def test_a_revision_is_no_path(revision: str) -> None:
    with pytest.raises(UsageError, match=r"model\.revision"):
        resolve(Model(id="some/model", revision=revision))


@pytest.mark.parametrize("name", ["..", "../x", "a/..", "a/../b", "package:../x", "package:a.b"])
def test_a_model_id_leads_nowhere_else(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"model\.id"):
        resolve(Model(id=name))
