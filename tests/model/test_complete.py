"""A model is loaded with all of its weights or not at all, and the check says so before."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import ragtune
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.model import headers
from ragtune.model.hardware import Hardware
from ragtune.model.headers import Compared, compare
from ragtune.model.load import load_config, load_model
from ragtune.model.lora import attach, load_adapter, save_adapter
from ragtune.model.source import ModelSource
from ragtune.recipe.lora import Lora
from tests.families.build import build
from tests.families.table import FAMILIES, Family

CPU = Hardware(torch.device("cpu"), torch.float32, "test", "CPU")
Q = "model.layers.0.self_attn.q_proj.weight"
Tensors = dict[str, torch.Tensor]


def changed(folder: Path, to: Path, change: Callable[[Tensors], object]) -> ModelSource:
    shutil.copytree(folder, to)
    tensors = load_file(to / "model.safetensors")
    change(tensors)
    save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})
    return ModelSource(str(to), None)


WRONG: dict[str, tuple[Callable[[Tensors], object], str]] = {
    "one is missing": (lambda t: t.pop(Q), f"lack {Q}. In their place would be random numbers."),
    "all are missing": (
        lambda t: t.clear(),
        "lack lm_head.weight, model.embed_tokens.weight, model.layers.0.input_layernorm.weight and 18 more.",
    ),
    "a shape": (
        lambda t: t.update({"model.embed_tokens.weight": torch.ones(500, 32)}),
        "model.embed_tokens.weight has the shape [500, 32], and by config.json (vocab_size) it is [512, 32].",
    ),
    "a bias too many": (
        lambda t: t.update({Q.replace("weight", "bias"): torch.ones(32)}),
        f"have {Q.replace('weight', 'bias')}, and LlamaForCausalLM, as config.json describes it, has no place",
    ),
    "a norm too many": (
        lambda t: t.update({"model.layers.1.self_attn.q_norm.weight": torch.ones(8)}),
        "have model.layers.1.self_attn.q_norm.weight, and LlamaForCausalLM",
    ),
    "a layer too many": (
        lambda t: t.update({Q.replace(".0.", ".2."): torch.ones(32, 32)}),
        "have model.layers.2.self_attn.q_proj.weight, and LlamaForCausalLM",
    ),
    "a layer too many, without the prefix": (
        lambda t: t.update({"layers.2.self_attn.q_proj.weight": torch.ones(32, 32)}),
        "layers.2.self_attn.q_proj.weight, and LlamaForCausalLM",
    ),
    "an adapter's": (
        lambda t: t.update({"base_model.model.x.lora_A.weight": torch.ones(3)}),
        "have base_model.model.x.lora_A.weight, and LlamaForCausalLM",
    ),
    "scales, and no quantization_config": (
        lambda t: t.update({f"{Q}_scale_inv": torch.ones(1, 1)}),
        f"have {Q}_scale_inv, and LlamaForCausalLM",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_weights_that_are_not_the_models_are_refused_by_name(
    what: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ragtune.model.configuration._PATIENCE", 0.0)  # no key is to blame
    change, words = WRONG[what]
    source = changed(tiny_folder, tmp_path / "model", change)
    for refuse in (
        lambda: compare(load_config(source), source),
        lambda: load_model(source, CPU, nf4=False),
    ):
        with pytest.raises(UsageError) as raised:
            refuse()
        assert words in raised.value.message
        assert str(tmp_path / "model") in raised.value.message
        assert "get the model again" in raised.value.advice


def test_the_same_headers_are_compared_once_and_other_ones_anew(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = changed(tiny_folder, tmp_path / "model", lambda _: None)
    made: list[object] = []
    monkeypatch.setattr(headers, "_last", {})
    plain = headers._compared
    monkeypatch.setattr(headers, "_compared", lambda *given: (made.append(given), plain(*given))[1])
    found = compare(load_config(source), source)
    assert compare(load_config(source), source) == found
    assert len(made) == 1
    of_bytes = changed(tiny_folder, tmp_path / "bf16", lambda t: t.update({Q: t[Q].bfloat16()}))
    assert compare(load_config(of_bytes), of_bytes) == found
    assert len(made) == 2
    other = changed(tiny_folder, tmp_path / "other", lambda t: t.pop(Q))
    with pytest.raises(UsageError, match=f"lack {Q}"):
        compare(load_config(other), other)
    config = load_config(source)
    config.num_attention_heads = 2
    with pytest.raises(UsageError, match="has the shape"):
        compare(config, source)


def test_a_part_that_the_class_does_not_have_is_left_unread_and_said(
    tiny_folder: Path, tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    parts = {"mtp.layers.0.weight": torch.ones(3), "model.vision_tower.x.weight": torch.ones(3)}
    source = changed(tiny_folder, tmp_path / "model", lambda t: t.update(parts))
    load_model(source, CPU, nf4=False)
    tiny_recipe["model"]["id"] = source.path
    said = {f["name"]: f for f in ragtune.check(tiny_recipe, run_dir=tmp_path / "run")}["weights"]
    assert said["level"] == "ok"
    assert said["message"] == (
        "21 tensors in the files have the names and shapes of the model's; 2 more are of parts that are not "
        "loaded: model.mtp, model.vision_tower"
    )


def test_a_single_tensor_more() -> None:
    words = Compared(20, Counter(["model.mtp"]), shapes=True).words
    assert words.endswith("; 1 more is of parts that are not loaded: model.mtp")


OLD: dict[str, dict[str, tuple[int, ...]]] = {
    "gpt2": {"h.0.attn.bias": (1, 1, 8, 8), "h.0.attn.masked_bias": ()},
    "gptj": {"transformer.h.0.attn.bias": (1, 1, 8, 8), "transformer.h.0.attn.masked_bias": ()},
    "gpt_neo": {
        "transformer.h.0.attn.attention.bias": (1, 1, 8, 8),
        "transformer.h.0.attn.attention.masked_bias": (),
    },
    "codegen": {"transformer.h.0.attn.causal_mask": (1, 1, 8, 8)},
    "llama": {"model.layers.0.self_attn.rotary_emb.inv_freq": (4,)},
    "deepseek_v3": {
        f"model.layers.2.{n}.weight": (32,)
        for n in ("eh_proj", "enorm", "hnorm", "shared_head.norm", "input_layernorm", "self_attn.o_proj")
    },
}  # fmt: skip
"""Tensors that files of a kind have and its class computes, or leaves."""


@pytest.mark.parametrize("kind", OLD)
def test_what_a_class_computes_itself_is_no_tensor_too_many(kind: str, tmp_path: Path) -> None:
    build(next(f for f in FAMILIES if f.name == kind), tmp_path / "a")
    added = {name: torch.ones(shape) for name, shape in OLD[kind].items()}
    source = changed(tmp_path / "a", tmp_path / "model", lambda t: t.update(added))
    found = compare(load_config(source), source)
    assert found is not None
    if kind not in ("gpt2", "llama"):  # of some, transformers says nothing
        assert found.unread.total() == len(added)
    load_model(source, CPU, nf4=False)


@pytest.mark.parametrize("shape", [(32,), (1, 1, 8, 9)])
def test_a_bias_is_a_mask_by_its_shape(shape: tuple[int, ...], tmp_path: Path) -> None:
    build(next(f for f in FAMILIES if f.name == "gptj"), tmp_path / "a")
    added = {"transformer.h.0.attn.bias": torch.ones(shape)}
    source = changed(tmp_path / "a", tmp_path / "model", lambda t: t.update(added))
    with pytest.raises(UsageError, match=r"have transformer\.h\.0\.attn\.bias"):
        compare(load_config(source), source)


def test_a_shard_without_its_tensor_is_found_before_anything_is_loaded(
    tiny_folder: Path, tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    shards: dict[str, Tensors] = {"a.safetensors": {}, "b.safetensors": {}}
    for number, (name, tensor) in enumerate(sorted(tensors.items())):
        shards["ab"[number % 2] + ".safetensors"][name] = tensor
    index = {"metadata": {}, "weight_map": {n: file for file, some in shards.items() for n in some}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    for file, some in shards.items():
        save_file(some, folder / file, metadata={"format": "pt"})
    tiny_recipe["model"]["id"] = str(folder)
    said = {f["name"]: f for f in ragtune.check(tiny_recipe, run_dir=tmp_path / "run")}["weights"]
    assert said["message"] == "21 tensors in the files have the names and shapes of the model's"
    del shards["b.safetensors"][next(iter(shards["b.safetensors"]))]
    save_file(shards["b.safetensors"], folder / "b.safetensors", metadata={"format": "pt"})
    said = {f["name"]: f for f in ragtune.check(tiny_recipe, run_dir=tmp_path / "run")}["weights"]
    assert said["level"] == "fail"
    assert "lack model.embed_tokens.weight. In their place" in said["message"]
    # A run that was not checked ends in the same words, at its first model.
    with pytest.raises(UsageError, match=r"lack model\.embed_tokens\.weight\."):
        ragtune.evaluate(tiny_recipe, run_dir=tmp_path / "run", base=True)


EXPERT = "model.layers.1.mlp.experts.2.up_proj.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop(EXPERT), f"lack {EXPERT}, and have it of further experts."),
        (
            lambda t: t.update({EXPERT.replace(".2.", ".9."): t.pop(EXPERT)}),
            EXPERT.replace(".2.", ".4.").replace("up", "down"),
        ),
        (
            lambda t: [t.pop(EXPERT.replace(".2.up", f".3.{n}")) for n in ("up", "down", "gate")],
            "model.layers.1.mlp.experts.",
        ),
    ],
    ids=["one", "another number", "the last"],
)  # fmt: skip
def test_experts_are_all_there(
    change: Callable[[Tensors], object], words: str, tmp_path: Path
) -> None:
    build(next(f for f in FAMILIES if f.name == "qwen3_moe"), tmp_path / "a")
    source = changed(tmp_path / "a", tmp_path / "model", change)
    with pytest.raises(UsageError) as raised:
        compare(load_config(source), source)
    assert words in raised.value.message


@pytest.mark.parametrize("whole", [True, False])
def test_packed_experts_are_counted_too(*, whole: bool, tmp_path: Path) -> None:
    def pack(tensors: Tensors) -> None:
        for name in [n for n in tensors if ".experts." in n]:
            tensors[name.replace("weight", "qweight")] = tensors.pop(name).to(torch.int32)
        if not whole:
            del tensors[EXPERT.replace("weight", "qweight")]

    build(next(f for f in FAMILIES if f.name == "qwen3_moe"), tmp_path / "a")
    source = changed(tmp_path / "a", tmp_path / "model", pack)
    config = load_config(source)
    config.quantization_config = {"quant_method": "gptq", "bits": 4}
    if whole:
        assert compare(config, source)
        return
    with pytest.raises(
        UsageError, match=r"lack model\.layers\.1\.mlp\.experts\.2\.up_proj\.qweight"
    ):
        compare(config, source)


def test_more_layers_than_tensors_are_not_made(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ragtune.model.headers.skeleton", lambda _: pytest.fail("they are made"))
    source = changed(tiny_folder, tmp_path / "model", lambda _: None)
    config = load_config(source)
    config.num_hidden_layers = 990
    with pytest.raises(
        UsageError, match=r"990 layers \(num_hidden_layers\), and its weights are 21"
    ):
        compare(config, source)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_integers_are_no_weights_unless_it_is_said_how_they_are_read(
    dtype: torch.dtype, tiny_folder: Path, tmp_path: Path
) -> None:
    source = changed(tiny_folder, tmp_path / "model", lambda t: t.update({Q: t[Q].to(dtype)}))
    with pytest.raises(UsageError, match=f"{Q} are stored as {dtype}, and config.json has no"):
        compare(load_config(source), source)


@pytest.mark.parametrize("what", ["lacks", "has"])
def test_an_adapter_is_loaded_to_the_last_tensor(
    what: str, tiny_folder: Path, tmp_path: Path
) -> None:
    source = ModelSource(str(tiny_folder), None)
    save_adapter(attach(load_model(source, CPU, nf4=False), Lora(rank=4), 0), tmp_path, None)
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(file)
    name = min(tensors)
    tensor = tensors.pop(name) if what == "lacks" else tensors[name]
    if what == "has":
        name = name.replace(".0.", ".7.")
        tensors[name] = tensor.clone()
    save_file(tensors, file)
    with pytest.raises(RagtuneError) as raised:
        load_adapter(load_model(source, CPU, nf4=False), tmp_path)
    assert f"The adapter in {tmp_path} {what} {name}" in raised.value.message
    assert "set model.id to that one; or delete the folder" in raised.value.advice


KINDS = {
    "gpt2", "phi3", "gpt_neox", "mixtral", "qwen3_moe", "gpt_oss", "deepseek_v3", "jetmoe", "dbrx",
    "qwen3_5_moe (text)", "mamba2", "lfm2", "zamba2", "gemma3n", "llama4 (vision)", "qwen3_vl_moe",
    "gemma4 (vision)", "llava", "longcat_flash",
}  # fmt: skip
"""Tied weights, fused experts, old names, convolutions, a vision tower."""
ALL = [f for f in FAMILIES if not f.experts and f.kind != "encoder"]


@pytest.mark.parametrize("family", [f for f in ALL if f.name in KINDS], ids=lambda f: f.name)
def test_no_false_alarm(family: Family, tmp_path: Path) -> None:
    _look(family, tmp_path)


@pytest.mark.families
@pytest.mark.parametrize("family", ALL, ids=lambda f: f.name)
def test_no_false_alarm_of_any_family(family: Family, tmp_path: Path) -> None:
    _look(family, tmp_path)


def _look(family: Family, folder: Path) -> None:
    build(family, folder)
    source = ModelSource(str(folder), None)
    found = compare(load_config(source), source)
    assert found is not None
    assert found.shapes
    assert not found.unread
    load_model(source, CPU, nf4=False)
