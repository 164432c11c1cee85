"""Bases that come quantised: what is said of them, how they are loaded, trained and merged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

import ragtune
from ragtune.base.errors import UsageError
from ragtune.model.hardware import Hardware
from ragtune.model.headers import compare
from ragtune.model.load import load_config, load_model
from ragtune.model.plan import estimate_of, make_plan
from ragtune.model.quantized import quantization_of, settle, without_quantization
from ragtune.model.skeleton import skeleton
from ragtune.model.source import ModelSource
from ragtune.recipe.schema import Recipe
from tests.conftest import SHAPE, tiny_model

CPU = torch.device("cpu")
HARDWARE = Hardware(CPU, torch.float32, "", "CPU")


def write_quantized(
    folder: Path, values: dict[str, Any], pack: Callable[[str, torch.Tensor], dict[str, Any] | None]
) -> None:
    """Quantise a saved model: `pack` gives the tensors that stand for a weight, or None to keep it."""
    tensors = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        tensors |= pack(name, weight) or {name: weight}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["quantization_config"] = values
    (folder / "config.json").write_text(json.dumps(config), "utf-8")


def fp8(name: str, weight: torch.Tensor) -> dict[str, Any] | None:
    """As fine-grained FP8: a scale for each block of 16 by 16."""
    if not name.endswith("_proj.weight"):
        return None
    scale = torch.full([size // 16 for size in weight.shape], float(weight.abs().max()) / 448)
    packed = (weight.float() / scale[0, 0]).to(torch.float8_e4m3fn)
    return {name: packed, name.replace(".weight", ".weight_scale_inv"): scale}


FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [16, 16]}


def mxfp4(name: str, weight: torch.Tensor) -> dict[str, Any] | None:
    """As gpt-oss is published: two numbers a byte, a scale for 32 of them; the numbers are drawn."""
    if not name.endswith(("gate_up_proj", "down_proj")):
        return None
    experts, inputs, outputs = weight.shape
    torch.manual_seed(0)
    shape = (experts, outputs, inputs // 32)
    return {
        f"{name}_blocks": torch.randint(0, 256, (*shape, 16), dtype=torch.uint8),
        f"{name}_scales": torch.full(shape, 122, dtype=torch.uint8),
    }


@pytest.fixture
def fp8_folder(tiny_folder: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "fp8"))
    write_quantized(folder, FP8, fp8)
    return folder


@pytest.fixture
def mxfp4_folder(chatml_tokenizer: Any, tmp_path: Path) -> Path:
    folder = tmp_path / "mxfp4"
    end = chatml_tokenizer.eos_token_id
    tiny_model("gpt_oss", eos_token_id=end).bfloat16().save_pretrained(folder)
    chatml_tokenizer.save_pretrained(folder)
    write_quantized(folder, {"quant_method": "mxfp4"}, mxfp4)
    return folder


Q = "model.layers.0.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop(Q), f"lack {Q}."),
        (lambda t: t.pop(f"{Q}_scale_inv"), f"lack {Q}_scale_inv."),
        (
            lambda t: t.update({f"{Q}_scale_inv": torch.ones(1, 1)}),
            f"{Q}_scale_inv has the shape [1, 1], and by config.json (weight_block_size) it is [2, 2].",
        ),
        (lambda t: t.update({Q: t[Q][:16].clone()}), f"{Q} has the shape [16, 32], and by config.json"),
        (
            lambda t: t.update({Q.replace("q_proj", "r_proj"): t[Q].clone()}),
            f"have {Q.replace('q_proj', 'r_proj')}, and LlamaForCausalLM",
        ),
        (
            lambda t: t.update({Q.replace(".0.", ".7."): t[Q].clone()}),
            f"have {Q.replace('.0.', '.7.')}, and LlamaForCausalLM",
        ),
    ],
    ids=["a weight", "a scale", "its shape", "the weight's", "a module", "a layer"],
)  # fmt: skip
def test_fp8_files_are_compared_with_the_class(
    change: Callable[[dict[str, torch.Tensor]], object], words: str, fp8_folder: Path
) -> None:
    source = ModelSource(str(fp8_folder), None)
    assert compare(load_config(source), source)
    tensors = load_file(fp8_folder / "model.safetensors")
    change(tensors)
    save_file(tensors, fp8_folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError) as raised:
        compare(load_config(source), source)
    assert words in raised.value.message


def bnb_folder(tiny_folder: Path, folder: Path, bits: int) -> Path:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    asked = (
        hf.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
        if bits == 4
        else hf.BitsAndBytesConfig(load_in_8bit=True)
    )
    shutil.copytree(tiny_folder, folder)
    model = hf.AutoModelForCausalLM.from_pretrained(tiny_folder, quantization_config=asked)
    model.save_pretrained(folder)
    return folder


def config_of(**values: Any) -> Any:
    return hf.LlamaConfig(**SHAPE, quantization_config=values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"quant_method": "gptq", "bits": 4},
            ("model.id: the base is quantised (gptq with 4 bits), and transformers can't load it here: "
            "Loading a GPTQ quantized model requires optimum (`pip install optimum`).\n"
            "Run: pip install optimum. Or name the model as it was before it was quantised."),
        ),
        (
            {"quant_method": "awq", "bits": 4},
            "Run: pip install gptqmodel. Or name the model as it was before it was quantised.",
        ),
        (
            {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int8WeightOnlyConfig"}}},
            "No module named 'torchao'.\nRun: pip install torchao. Or",
        ),
        (
            {"quant_method": "compressed-tensors", "format": "pack-quantized"},
            "\nRun: pip install 'compressed-tensors>=",
        ),
        (
            {"quant_method": "auto-round"},
            "\nRun: pip install 'auto-round>=",
        ),
        (
            {"quant_method": "fbgemm_fp8"},
            ("Using fbgemm fp8 quantization requires a GPU or XPU.\nThere is no NVIDIA GPU here. Name the "
            "model as it was before it was quantised."),
        ),
        ({"quant_method": "bitnet"}, "(bitnet), and transformers does not train that.\nName the model"),
        ({"quant_method": "modelopt"}, "(modelopt), which transformers does not know.\nName the model"),
        ({"anything": 1}, "the base is quantised (of no known kind), which transformers does not know."),
    ],
)  # fmt: skip
def test_what_a_base_lacks_here(
    values: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    there = "transformers.utils.quantization_config.is_compressed_tensors_available"
    monkeypatch.setattr(there, lambda: False)
    with pytest.raises(UsageError) as caught:
        quantization_of(config_of(**values), CPU)
    assert words in str(caught.value)


def test_bitsandbytes_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    quantizer = "transformers.quantizers.quantizer_bnb_4bit.is_bitsandbytes_available"
    monkeypatch.setattr(quantizer, lambda: False)
    words = r"bitsandbytes with 4 bits.*\nRun: pip install -U 'bitsandbytes>=[\d.]+'\. Or name"
    with pytest.raises(UsageError, match=words):
        quantization_of(config_of(quant_method="bitsandbytes", load_in_4bit=True), CPU)


def test_a_plain_base_is_none() -> None:
    assert quantization_of(hf.LlamaConfig(**SHAPE), CPU) is None
    config = hf.LlamaConfig(**SHAPE)
    assert without_quantization(config) is config


def test_a_base_whose_text_part_is_quantised() -> None:
    config = hf.Gemma3Config(text_config={**SHAPE, "head_dim": 8, "quantization_config": FP8})
    found = quantization_of(config, CPU)
    assert found is not None
    assert found.kind == "fp8"
    assert quantization_of(without_quantization(config), CPU) is None
    assert quantization_of(config, CPU) is not None


def test_nf4_of_a_quantised_base_is_refused(
    tiny_recipe: dict[str, Any], fp8_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_recipe["model"]["id"] = str(fp8_folder)
    tiny_recipe["model"]["quantization"] = "nf4"
    monkeypatch.setattr("ragtune.model.hardware._require_bitsandbytes", lambda *_: None)
    page = ragtune.check(tiny_recipe, run_dir=tmp_path / "run")
    (one,) = (f for f in page if f["name"] == "quantization")
    assert one["level"] == "fail"
    assert one["message"].endswith("fp8 is quantised already (fp8).")
    assert one["advice"].startswith("Set model.quantization=null.")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["fp8", "mxfp4"])
def test_what_is_dequantised_is_a_plain_model(
    kind: str, dtype: torch.dtype, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = request.getfixturevalue(f"{kind}_folder")
    model = load_model(ModelSource(str(folder), None), Hardware(CPU, dtype, "", "CPU"), nf4=False)
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert model.num_parameters() == skeleton(model.config).num_parameters()
    name = "model.layers.0.mlp." + ("up_proj.weight" if kind == "fp8" else "experts.down_proj")
    stored = load_file(folder / "model.safetensors")
    if kind == "fp8":
        scale = stored["model.layers.0.mlp.up_proj.weight_scale_inv"][0, 0]
        expected = stored[name].float() * scale
    else:
        levels = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
        packed = stored[f"{name}_blocks"].long()
        numbers = levels[torch.stack([packed & 15, packed >> 4], dim=-1)] / 2 ** (127 - 122)
        expected = numbers.reshape(*packed.shape[:2], -1).transpose(1, 2)
    assert torch.equal(model.state_dict()[name], expected.to(dtype))
    model.save_pretrained(tmp_path / "saved")
    again, report = hf.AutoModelForCausalLM.from_pretrained(
        tmp_path / "saved", output_loading_info=True, dtype=dtype
    )
    assert not any(report[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ids = torch.randint(0, 400, (1, 9))
    assert torch.equal(again(ids).logits, model(ids).logits)
    assert "quantization_config" not in (tmp_path / "saved" / "config.json").read_text("utf-8")


@pytest.mark.parametrize("kind", ["fp8", "mxfp4", "bnb4", "bnb8"])
def test_a_quantised_base_runs_to_the_merged_model(
    kind: str, request: pytest.FixtureRequest, tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    if kind in ("fp8", "mxfp4"):
        folder = request.getfixturevalue(f"{kind}_folder")
    else:
        tiny = request.getfixturevalue("tiny_folder")
        folder = bnb_folder(tiny, tmp_path / kind, int(kind[-1]))
    tiny_recipe["model"]["id"] = str(folder)
    tiny_recipe["lora"]["target_modules"] = ["q_proj", "v_proj"]
    tiny_recipe["publish"] = {"format": "merged"}
    page = ragtune.check(tiny_recipe, run_dir=tmp_path / "run")
    said = {f["name"]: f for f in page}
    assert "fail" not in {f["level"] for f in page}
    words = {
        "fp8": "the base is quantised already (fp8); it is dequantised when it is loaded, and stays so",
        "mxfp4": "the base is quantised already (mxfp4); it is dequantised when it is loaded, and stays so",
        "bnb4": "the base is quantised already (bitsandbytes with 4 bits); it is dequantised when it is "
        "loaded, and stays so",
        "bnb8": "the base is quantised already (bitsandbytes with 8 bits); it is dequantised when it is "
        "loaded, and stays so",
    }
    assert said["quantization"]["message"] == words[kind]
    ragtune.run(tiny_recipe, run_dir=tmp_path / "run")
    state = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))
    assert state["merge"]["changed"] <= 1
    merged = tmp_path / "run" / "merged"
    assert "quantization_config" not in (merged / "config.json").read_text("utf-8")
    assert {w.dtype for w in load_file(merged / "model.safetensors").values()} == {torch.bfloat16}
    model, report = hf.AutoModelForCausalLM.from_pretrained(merged, output_loading_info=True)
    assert not any(report[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert not getattr(model, "is_quantized", False)


def test_what_can_t_be_dequantised_is_not_merged(
    tiny_recipe: dict[str, Any], tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_recipe["model"]["id"] = str(bnb_folder(tiny_folder, tmp_path / "bnb4", 4))
    tiny_recipe["lora"]["target_modules"] = ["q_proj"]
    # A quantizer that has no way back, as those of GPTQ and AWQ.
    monkeypatch.setattr("ragtune.model.quantized._undoes", lambda _: False)
    page = ragtune.check(tiny_recipe, "publish.format=merged", run_dir=tmp_path / "run")
    said = {f["name"]: f for f in page}
    words = "it is trained as it is, and an adapter can't be merged into it"
    assert said["quantization"]["message"].endswith(words)
    assert said["merging"]["level"] == "fail"
    assert said["merging"]["message"] == (
        "The base is quantised (bitsandbytes with 4 bits), and transformers can't undo that: nothing is "
        "merged into quantised weights."
    )
    assert said["merging"]["advice"].startswith("Set publish.format=adapter")
    page = ragtune.check(tiny_recipe, "publish.format=adapter", run_dir=tmp_path / "run")
    assert "fail" not in {f["level"] for f in page}


@pytest.mark.gpu
def test_4_bits_are_kept_on_a_gpu(
    tiny_folder: Path, tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    folder = bnb_folder(tiny_folder, tmp_path / "bnb4", 4)
    gpu = Hardware(torch.device("cuda", 0), torch.bfloat16, "", "GPU")
    model = load_model(ModelSource(str(folder), None), gpu, nf4=False)
    kinds = {(type(p).__name__, p.dtype) for p in model.parameters()}
    assert kinds == {("Params4bit", torch.uint8), ("Parameter", torch.bfloat16)}
    tiny_recipe["model"] = {"id": str(folder), "dtype": "bfloat16"}
    tiny_recipe["publish"] = {"format": "merged"}
    ragtune.run(tiny_recipe, run_dir=tmp_path / "run")
    state = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))
    assert state["plan"]["quantization"] == "bitsandbytes with 4 bits"
    assert "quantization_config" not in (tmp_path / "run/merged/config.json").read_text("utf-8")


def test_memory_counts_what_is_loaded(
    tiny_folder: Path, fp8_folder: Path, tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    recipe = Recipe.model_validate(tiny_recipe)
    gpu = Hardware(torch.device("cuda", 0), torch.bfloat16, "", "GPU")
    plain = estimate_of(recipe, gpu, load_config(ModelSource(str(tiny_folder), None)))
    fp8 = estimate_of(recipe, gpu, load_config(ModelSource(str(fp8_folder), None)))
    assert fp8.weights == plain.weights  # it is dequantised
    folder = bnb_folder(tiny_folder, tmp_path / "bnb4", 4)
    config = load_config(ModelSource(str(folder), None))
    found = quantization_of(config, gpu.device)
    assert found is not None
    assert found.words.endswith("it is trained as it is, and is dequantised to be merged")
    packed = estimate_of(recipe, gpu, config)
    model = hf.AutoModelForCausalLM.from_pretrained(folder)
    settle(model, found, torch.bfloat16)
    states = [p.quant_state for p in model.parameters() if hasattr(p, "quant_state")]
    real = sum(p.numel() * p.element_size() for p in model.parameters())
    real += sum(s.absmax.numel() * 4 for s in states)
    assert packed.weights == pytest.approx(real, rel=0.01)
    plan = make_plan(recipe, gpu, config, [[(10, 2)]], [10], memory=2**30)
    assert plan.quantization == "bitsandbytes with 4 bits"
    assert not plan.dequantized
