from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import pytest
import torch
import transformers as hf
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import ragtune
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.memory import available_memory
from ragtune.data.encode import Encoder
from ragtune.data.tokenizer import prepare_tokenizer
from ragtune.model import merge as merge_module
from ragtune.model import merge_parts
from ragtune.model.hardware import Hardware
from ragtune.model.load import load_model, load_tokenizer
from ragtune.model.lora import attach, load_adapter, save_adapter
from ragtune.model.merge import memory_needed, merge
from ragtune.model.source import ModelSource
from ragtune.recipe.lora import Lora
from ragtune.recipe.schema import Recipe
from tests.families.build import build
from tests.families.table import FAMILIES

CPU = Hardware(torch.device("cpu"), torch.float32, "test", "CPU")
MXFP4 = {"quant_method": "mxfp4"}
LLAMA_2_7B = {
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}


@pytest.fixture
def source(tiny_folder: Path) -> ModelSource:
    return ModelSource(str(tiny_folder), None)


@pytest.fixture
def encoder(source: ModelSource, tiny_recipe: dict[str, Any]) -> Encoder:
    recipe = Recipe.model_validate(tiny_recipe)
    return Encoder(prepare_tokenizer(load_tokenizer(source), recipe), recipe, 1024)


def make_adapter(source: ModelSource, folder: Path, scale: float = 0.2) -> Path:
    """An adapter that changes the model a lot."""
    tuned = attach(load_model(source, CPU, nf4=False), Lora(rank=4, alpha=8, dropout=0.1), 0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * scale
    folder.mkdir()
    save_adapter(tuned, folder, None)
    return folder


@pytest.fixture
def adapter(source: ModelSource, tmp_path: Path) -> Path:
    return make_adapter(source, tmp_path / "adapter")


@pytest.fixture
def merged(source: ModelSource, adapter: Path, encoder: Encoder, tmp_path: Path) -> Path:
    merge_into(source, adapter, encoder, tmp_path / "merged")
    return tmp_path / "merged"


def merge_into(source: ModelSource, adapter: Path, encoder: Encoder, folder: Path) -> None:
    folder.mkdir()
    merge(source, adapter, encoder, folder)


def logits_of(model: Any) -> torch.Tensor:
    ids = torch.arange(3, 43).reshape(2, 20)
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(input_ids=ids).logits.float()
    return logits


def test_logits_are_those_of_base_plus_adapter(
    source: ModelSource, adapter: Path, merged: Path
) -> None:
    base = load_model(source, CPU, nf4=False)
    logits_base = logits_of(base)
    logits_tuned = logits_of(load_adapter(base, adapter))
    # bf16 weights, computed with in float32: what is left is the rounding of the weights.
    found = logits_of(hf.AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32))
    change = (logits_tuned - logits_base).norm()
    assert (found - logits_tuned).norm() < 0.02 * change
    assert (found - logits_base).norm() > 0.9 * change


def test_a_small_update_of_a_float32_base_is_rounded_once(
    source: ModelSource, encoder: Encoder, tmp_path: Path
) -> None:
    adapter = make_adapter(source, tmp_path / "small", scale=0.002)
    merge_into(source, adapter, encoder, tmp_path / "merged")
    whole = load_adapter(load_model(source, CPU, nf4=False), adapter).merge_and_unload()
    written = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.bfloat16)
    for name, expected in whole.state_dict().items():
        assert torch.equal(written.state_dict()[name], expected.to(torch.bfloat16)), name


def test_a_plain_model_that_needs_no_peft(merged: Path, tiny_folder: Path) -> None:
    program = (
        "import sys; sys.modules['peft'] = None\n"  # importing it fails
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype='auto')\n"
        "tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "text = tokenizer.apply_chat_template([{'role': 'user', 'content': 'Hi'}], tokenize=False)\n"
        "print(type(model).__name__, model.dtype, text.split()[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, merged], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "LlamaForCausalLM torch.bfloat16 <|im_start|>user", done.stderr
    names = {p.name for p in merged.iterdir()}
    assert {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json"} <= names
    assert {p.suffix for p in merged.iterdir()} <= {".safetensors", ".json", ".jinja"}
    assert not [p for p in merged.parent.iterdir() if p.name.startswith(".")]  # nothing half-made
    text = "".join(p.read_text("utf-8") for p in merged.iterdir() if p.suffix != ".safetensors")
    assert str(tiny_folder.parent) not in text
    assert "quantization_config" not in json.loads((merged / "config.json").read_text("utf-8"))


def test_the_libraries_bars_are_kept_off_the_screen(
    source: ModelSource,
    adapter: Path,
    encoder: Encoder,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    capfd.readouterr()
    merge_into(source, adapter, encoder, tmp_path / "merged")
    assert capfd.readouterr() == ("", "")


def test_generation_ends_at_the_stop_token(merged: Path, encoder: Encoder) -> None:
    settings = hf.GenerationConfig.from_pretrained(merged)
    ends = settings.eos_token_id
    assert encoder.stop_id in (ends if isinstance(ends, list) else [ends])
    assert settings.pad_token_id == encoder.tokenizer.pad_token_id


def test_the_template_of_the_recipe_is_saved(
    source: ModelSource, adapter: Path, tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    tiny_recipe["prompt"]["chat_template"] = "plain"
    recipe = Recipe.model_validate(tiny_recipe)
    encoder = Encoder(prepare_tokenizer(load_tokenizer(source), recipe), recipe, 1024)
    merge_into(source, adapter, encoder, tmp_path / "merged")
    tokenizer = hf.AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert "User:\nHi" in tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False
    )


def test_an_adapter_that_diverged(source: ModelSource, encoder: Encoder, tmp_path: Path) -> None:
    adapter = make_adapter(source, tmp_path / "adapter", scale=float("nan"))
    with pytest.raises(RagtuneError) as caught:
        merge_into(source, adapter, encoder, tmp_path / "merged")
    assert str(caught.value).startswith("The adapter's weights are not finite: ")
    assert str(caught.value).endswith("The adapter diverged; train it again.")
    assert not list((tmp_path / "merged").iterdir())


def test_a_base_with_a_weight_that_is_no_number(
    source: ModelSource, encoder: Encoder, tmp_path: Path
) -> None:
    base = changed(source, tmp_path / "base", "model.norm.weight", float("inf"))
    adapter = make_adapter(source, tmp_path / "adapter")
    words = (
        r"^The base model's weights are not finite: \S+norm\.weight\.\nSet publish\.format=adapter"
    )
    with pytest.raises(RagtuneError, match=words):
        merge_into(base, adapter, encoder, tmp_path / "merged")


def test_a_sum_that_is_too_large(source: ModelSource, encoder: Encoder, tmp_path: Path) -> None:
    base = changed(source, tmp_path / "base", "model.layers.0.mlp.up_proj.weight", 3.4e38)
    adapter = make_adapter(source, tmp_path / "adapter", scale=1e37)
    words = (
        r"^The merged weights are not finite: \S+\. Base and adapter are; their sum is too large"
    )
    with pytest.raises(RagtuneError, match=words):
        merge_into(base, adapter, encoder, tmp_path / "merged")


def test_no_file_is_closed_while_it_is_read(
    source: ModelSource, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next tensor is being read as the look at this one fails."""
    closed: list[bool] = []

    class Slow:
        def __init__(self, *arguments: str) -> None:
            self.file, self.read = safe_open(*arguments), False

        def __enter__(self) -> Self:
            self.file.__enter__()
            return self

        def __exit__(self, *error: object) -> None:
            closed.append(self.read)
            self.file.__exit__(*error)

        def get_tensor(self, name: str) -> torch.Tensor:
            self.read = True
            time.sleep(0.05)
            tensor = self.file.get_tensor(name)
            self.read = False
            return tensor

    monkeypatch.setattr(merge_parts, "safe_open", Slow)
    base = changed(source, tmp_path / "base", "model.layers.0.mlp.up_proj.weight", 3.4e38)
    adapter = make_adapter(source, tmp_path / "adapter", scale=1e37)
    with pytest.raises(RagtuneError, match="their sum is too large"):
        merge_into(base, adapter, encoder, tmp_path / "merged")
    assert closed == [False]


def changed(source: ModelSource, folder: Path, name: str, value: float) -> ModelSource:
    """The model with one of its weights set to a value."""
    shutil.copytree(source.path, folder)
    weights = load_file(folder / "model.safetensors")
    weights[name].fill_(value)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return ModelSource(str(folder), None)


def test_too_little_memory(
    source: ModelSource,
    adapter: Path,
    encoder: Encoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"
        )

    monkeypatch.setattr(merge_module, "load_model", fail)
    with pytest.raises(
        RagtuneError,
        match=r"Merging needs \d+ KiB of memory for the base: .*\nSet publish\.format=adapter",
    ):
        merge_into(source, adapter, encoder, tmp_path / "merged")


def test_another_failure_is_not_called_a_lack_of_memory(
    source: ModelSource,
    adapter: Path,
    encoder: Encoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("The size of tensor a (32) must match the size of tensor b (64)")

    monkeypatch.setattr(merge_module, "load_adapter", fail)
    with pytest.raises(RuntimeError, match="size of tensor"):
        merge_into(source, adapter, encoder, tmp_path / "merged")


# Expected: the published number of parameters, in billions.
@pytest.mark.parametrize(
    ("config", "billions"),
    [
        (  # a mixture of experts, which transformers stacks
            hf.Qwen3MoeConfig(
                vocab_size=151_936, hidden_size=2048, intermediate_size=6144, moe_intermediate_size=768,
                num_experts=128, num_hidden_layers=48, num_attention_heads=32, num_key_value_heads=4,
                head_dim=128,
            ),
            30.5,
        ),
        (hf.LlamaConfig(**LLAMA_2_7B, quantization_config=MXFP4), 6.74),
    ],
    ids=["qwen3-30b-a3b", "quantised"],
)  # fmt: skip
def test_memory_needed_for_the_whole_model(config: Any, billions: float) -> None:
    weights = 2e9 * billions
    assert 0.99 * weights < memory_needed(config) < 1.05 * weights + 1e8


@pytest.mark.parametrize(
    ("config", "needed"),
    [
        # The largest matrix of a layer in 12 bytes a number; the output, embeddings and four more in 2.
        (hf.LlamaConfig(**LLAMA_2_7B), (12 + 8) * 11_008 * 4096 + 4 * 32_000 * 4096),
        (  # tied embeddings, larger than the rest
            hf.Gemma3TextConfig(
                vocab_size=262_144, hidden_size=640, intermediate_size=2048, num_hidden_layers=18,
                num_attention_heads=4, num_key_value_heads=1, head_dim=256,
            ),
            (12 + 10) * 2048 * 640 + 2 * 262_144 * 640,
        ),
    ],
    ids=["llama-2-7b", "gemma3-270m"],
)  # fmt: skip
def test_memory_needed_tensor_by_tensor(config: Any, needed: int) -> None:
    assert memory_needed(config) == needed
    assert memory_needed(config, whole=True) > memory_needed(config)


def test_memory_needed_of_another_kind_of_model() -> None:
    with pytest.raises(UsageError, match=r"^model\.id: no causal language model: "):
        memory_needed(hf.T5Config())


def test_available_memory() -> None:
    available = available_memory()
    assert available is None or 2**20 < available < 2**45


def test_a_bias_that_looks_like_an_unread_tensor_is_merged_once(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    """GPT-2's class ignores "attn.bias" in files, which "c_attn.bias" fits."""
    build(next(f for f in FAMILIES if f.name == "gpt2"), tmp_path / "base")
    tiny_recipe["model"]["id"] = str(tmp_path / "base")
    ragtune.merge(tiny_recipe, run_dir=tmp_path / "run")
    merged = load_file(tmp_path / "run" / "merged" / "model.safetensors")
    assert {tensor.dtype for tensor in merged.values()} == {torch.bfloat16}


def test_what_transformers_keeps_in_float32_stays_so(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    """A router's correction decides which experts are asked: rounded, it may decide otherwise."""
    build(next(f for f in FAMILIES if f.name == "glm4_moe (experts)"), tmp_path / "base")
    name = "model.layers.1.mlp.gate.e_score_correction_bias"
    weights = load_file(tmp_path / "base" / "model.safetensors")
    weights[name] = torch.rand(weights[name].shape)
    save_file(weights, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    tiny_recipe["model"]["id"] = str(tmp_path / "base")
    ragtune.merge(tiny_recipe, run_dir=tmp_path / "run")
    merged = load_file(tmp_path / "run" / "merged" / "model.safetensors")
    assert torch.equal(merged[name], weights[name])
    assert {t.dtype for n, t in merged.items() if n != name and "e_score" not in n} == {
        torch.bfloat16
    }
