"""Mixtures of experts whose experts are trained: what the adapter is, and going on after a break."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import ragtune
from ragtune.base.files import read_json
from ragtune.model.fast.lora import fuse
from ragtune.model.hardware import Hardware
from ragtune.model.load import load_model
from ragtune.model.lora import attach
from ragtune.model.source import ModelSource
from ragtune.model.wrapping import ADAPTER, adapters
from ragtune.recipe.lora import Lora
from tests.families.build import build
from tests.families.table import FAMILIES

GLM = next(f for f in FAMILIES if f.name == "glm4_moe (experts)")


def test_a_training_with_experts_goes_on_to_the_same_bytes(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    build(GLM, tmp_path / "model")
    tiny_recipe["model"]["id"] = str(tmp_path / "model")
    tiny_recipe["lora"]["experts"] = True
    tiny_recipe["train"] |= {"steps": 4, "save_every": 2}
    adapter = tmp_path / "run" / "adapter"
    ragtune.train(tiny_recipe, run_dir=tmp_path / "run")
    whole = (adapter / "adapter_model.safetensors").read_bytes()
    config = read_json(adapter / "adapter_config.json")
    # PEFT loads no adapter of weights that names a dropout.
    assert config["lora_dropout"] == 0
    assert any(
        name.endswith("experts.gate_up_proj") or name == "gate_up_proj"
        for name in config["target_parameters"]
    )
    shutil.rmtree(adapter)
    ragtune.train(tiny_recipe, run_dir=tmp_path / "run")
    assert (adapter / "adapter_model.safetensors").read_bytes() == whole


def test_layers_keep_their_dropout_beside_experts(tmp_path: Path) -> None:
    import torch

    build(GLM, tmp_path / "model")
    cpu = Hardware(torch.device("cpu"), torch.float32, "test", "CPU")
    model = load_model(ModelSource(str(tmp_path / "model"), None), cpu, nf4=False)
    tuned = attach(model, Lora(rank=2, dropout=0.5, experts=True), 0)
    rates = {
        name: getattr(layer.lora_dropout[ADAPTER], "p", 0.0)
        for name, layer in adapters(tuned).items()
    }
    assert {rate for name, rate in rates.items() if ".experts." in name} == {0.0}
    assert {rate for name, rate in rates.items() if ".experts." not in name} == {0.5}
    # The dense layers and shared experts, which PEFT reaches by their weights, are fused like the others.
    assert fuse(tuned) == sum(".experts." not in name for name in rates)
