"""Weights that can't be read are named, with where to get them again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors import safe_open

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.model import load, unloadable
from ragtune.model.hardware import Hardware, choose_hardware
from ragtune.model.load import _loading, load_config, load_model, load_tokenizer
from ragtune.model.lora import attach, load_adapter, save_adapter
from ragtune.model.skeleton import skeleton
from ragtune.model.source import ModelSource
from ragtune.recipe.lora import Lora
from ragtune.recipe.schema import Recipe
from tests.conftest import tiny_model

CPU = Hardware(torch.device("cpu"), torch.float32, "test", "CPU")


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


@pytest.fixture
def adapter(tiny_folder: Path, tmp_path: Path) -> Path:
    tuned = attach(load_model(ModelSource(str(tiny_folder), None), CPU, nf4=False), Lora(rank=4), 0)
    folder = tmp_path / "adapter"
    folder.mkdir()
    save_adapter(tuned, folder, None)
    return folder


def test_an_adapter_that_is_damaged_or_of_another_model(adapter: Path, tiny_folder: Path) -> None:
    other = tiny_model("llama", hidden_size=64)
    words = r"adapter does not fit the model: size mismatch for .*\nIt was trained on another model"
    with pytest.raises(RagtuneError, match=words):
        load_adapter(other, adapter)
    base = load_model(ModelSource(str(tiny_folder), None), CPU, nf4=False)
    whole = (adapter / "adapter_model.safetensors").read_bytes()
    (adapter / "adapter_model.safetensors").write_bytes(whole[:-100])
    words = r"adapter is damaged: .*\nDelete the folder and run the same command again"
    with pytest.raises(RagtuneError, match=words):
        load_adapter(base, adapter)
    (adapter / "adapter_model.safetensors").write_bytes(whole)
    (adapter / "adapter_config.json").write_text("{", "utf-8")
    with pytest.raises(RagtuneError, match=words):
        load_adapter(base, adapter)


def test_an_error_that_is_none_of_these_is_a_fault(
    adapter: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AttributeError("a fault")

    base = load_model(ModelSource(str(tiny_folder), None), CPU, nf4=False)
    monkeypatch.setattr("peft.PeftModel.from_pretrained", fail)
    with pytest.raises(AttributeError):
        load_adapter(base, adapter)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_config", _refuse)
    with pytest.raises(UsageError, match=r"config\.json of llama makes no model: something else"):
        skeleton(hf.LlamaConfig())
    with pytest.raises(
        UsageError, match=r"no causal language model: transformers .* has none of vit"
    ):
        skeleton(hf.ViTConfig())


def _refuse(*_: Any, **__: Any) -> None:
    raise ValueError("something else")


def test_what_can_t_be_loaded_is_quoted_and_what_is_there_is_named(
    tiny_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    source = ModelSource(str(folder), None)
    (folder / "config.json").write_text('{"model_type": "no such thing"}', "utf-8")
    with pytest.raises(UsageError) as raised:
        load_config(source)
    assert raised.value.message.startswith(
        f"model.id: the configuration of {folder} can't be loaded: "
    )
    assert raised.value.advice.startswith(
        "--debug shows all of it. What is there: chat_template.jinja, config.json, generation_config.json, "
    )


@pytest.mark.parametrize("there", [[], ["sentencepiece"], ["google.protobuf"]])
def test_a_sentencepiece_model_names_the_packages_that_are_missing(
    there: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tokenizer's file need not be whole: without the packages nobody reads it."""
    (tmp_path / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}', "utf-8")
    (tmp_path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "LlamaTokenizer"}', "utf-8"
    )

    def fail(
        *_: Any, **__: Any
    ) -> None:  # what transformers ends in, whichever of the two is missing
        raise ValueError("`tiktoken` is required to read a `tiktoken` file.")

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", fail)
    monkeypatch.setattr(unloadable, "_is_installed", there.__contains__)
    missing = [p for m, p in unloadable._PACKAGES.items() if m not in there]
    with pytest.raises(UsageError) as caught:
        load_tokenizer(ModelSource(str(tmp_path), None))
    assert caught.value.message == (
        f"model.id: the tokenizer of {tmp_path} is a SentencePiece model (there is no tokenizer.json), and "
        f"{' and '.join(missing)} to read it {'are' if len(missing) == 2 else 'is'} not installed."
    )
    assert caught.value.advice == f"Run: pip install {' '.join(missing)}"


def test_a_tiktoken_file_is_no_sentencepiece_model(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.model"
    file.write_text("IQ== 0\nIg== 1\n", "utf-8")
    assert not unloadable._is_sentencepiece(file)
    assert unloadable._packages_missing([file]) == []


def test_what_rounds_to_nf4_is_imported_before_the_weights_are_read(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    did: list[str] = []
    monkeypatch.setattr(load, "await_import", lambda: did.append("import"))
    monkeypatch.setattr(load, "compare", lambda *_: did.append("read"))
    monkeypatch.setattr(load, "round_to_nf4", lambda _: did.append("round"))
    source = ModelSource(str(tiny_folder), None)
    load_model(source, CPU, nf4=True, dequantized=True)
    assert did == ["import", "read", "round"]
    did.clear()
    load_model(source, CPU, nf4=False)
    assert did == ["read"]
