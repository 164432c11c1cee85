"""llama.cpp computes what transformers does, of every shape that is written; others are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from ragtune.answering.llama_process import Llama
from ragtune.base.errors import UsageError
from ragtune.data.encode import Encoder
from ragtune.model.to_gguf.shapes import context_of, shape_of
from ragtune.model.to_gguf.write import gguf_of, write_gguf
from tests.conftest import SHAPE, tiny_model
from tests.model.to_gguf.vocabularies import encoder_of

pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")

PROMPT = [5, 90, 17, 33, 401, 8, 250, 77, 61, 300, 44, 129, 12, 500, 7, 66, 201, 350, 9, 31] * 2
"""Longer than the tiny models' sliding windows."""
GEMMA3 = ["sliding_attention"] * 5 + ["full_attention"]


def rope(kind: str, **more: Any) -> dict[str, Any]:
    return {"rope_type": kind, "rope_theta": 5000.0, **more}


LLAMA3 = rope(
    "llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "tied, wide heads, biases": ("llama", {"tie_word_embeddings": True, "head_dim": 16, "attention_bias": True}),
    "linear": ("llama", {"rope_parameters": rope("linear", factor=4.0)}),
    "llama3": ("llama", {"rope_parameters": LLAMA3}),
    "yarn": ("llama", {"rope_parameters": rope("yarn", factor=4.0, original_max_position_embeddings=16)}),
    "mistral": ("mistral", {"sliding_window": None}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2, yarn": ("qwen2", {"rope_parameters": rope("yarn", factor=4.0, original_max_position_embeddings=16)}),
    "qwen3": ("qwen3", {}),
    "gemma2": ("gemma2", {"sliding_window": 8, "final_logit_softcapping": 30.0, "tie_word_embeddings": True,
                          "num_hidden_layers": 4}),
    "gemma3": ("gemma3", {"num_hidden_layers": 7, "layer_types": [*GEMMA3, "sliding_attention"],
                          "tie_word_embeddings": True,
                          "rope_parameters": {"full_attention": rope("linear", factor=8.0),
                                              "sliding_attention": rope("default")}}),
    "gemma3, with vision": ("vision", {"num_hidden_layers": 6, "layer_types": GEMMA3}),
}  # fmt: skip


def with_vision(**changes: Any) -> Any:
    """A tiny Gemma 3 that sees; of which only the language model is written."""
    own = {"head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8, **changes}
    seeing = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    config = hf.Gemma3Config(
        text_config={**SHAPE, **own}, vision_config=seeing, mm_tokens_per_image=4
    )
    return hf.Gemma3ForConditionalGeneration(config).float().eval()


def model_of(family: str, changes: dict[str, Any]) -> Any:
    """A tiny model without a weight that would hide a mistake: no zeros, no ones."""
    torch.manual_seed(1)
    wide = {"initializer_range": 0.3, **changes}
    model = with_vision(**wide) if family == "vision" else tiny_model(family, **wide)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1:
                weight.add_(torch.randn_like(weight), alpha=0.2)
            weight.copy_(weight.bfloat16())
    return model


@pytest.fixture(scope="module")
def encoder(chatml_tokenizer: Any) -> Encoder:
    return encoder_of(chatml_tokenizer)


def by_llama(file: Path) -> list[tuple[int, int, dict[int, float]]]:
    """For beginnings of the prompt: their length, the likeliest next token, and likely ones' log probabilities.

    Of a token that is half a letter the server tells no probability.
    """
    found = []
    with Llama(file, 256, 1) as llama:
        for length in range(3, len(PROMPT) + 1):
            question = {
                "prompt": PROMPT[:length], "n_predict": 1, "temperature": 0, "n_probs": 8, "return_tokens": True,
                "cache_prompt": False,
            }  # fmt: skip
            answer = llama.ask("/completion", question)
            for step in answer.get("completion_probabilities", []):
                likely = {one["id"]: one["logprob"] for one in step["top_logprobs"]}
                found.append((length, answer["tokens"][0], likely))
    return found


@pytest.mark.parametrize("name", SHAPES)
def test_the_same_probabilities(name: str, encoder: Encoder, tmp_path: Path) -> None:
    model = model_of(*SHAPES[name])
    model.save_pretrained(tmp_path)
    made = gguf_of(tmp_path, "tiny", model.config, encoder)
    write_gguf(made, "F16", tmp_path / "tiny.gguf")
    with torch.no_grad():
        logits = model(torch.tensor([PROMPT])).logits[0].log_softmax(-1)
    found = by_llama(tmp_path / "tiny.gguf")
    assert len(found) > 10
    for length, token, likely in found:
        own = logits[length - 1]
        assert {i: own[i].item() for i in likely} == pytest.approx(likely, abs=0.03), length
        assert own[token].item() == pytest.approx(own.max().item(), abs=0.03)


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "another family": ("gpt_oss", {}, "models of the type gpt_oss are not written here"),
    "activation": ("llama", {"hidden_act": "relu"}, "has the activation silu, and this model relu"),
    "scaling": (
        "llama",
        {"rope_parameters": rope("dynamic", factor=2.0)},
        "scale positions by dynamic",
    ),
    "llama3 elsewhere": (
        "qwen2",
        {"rope_parameters": LLAMA3},
        "qwen2 doesn't scale positions by llama3",
    ),
    "yarn": (
        "llama",
        {"rope_parameters": rope("yarn", factor=2.0, beta_fast=8.0)},
        "it sets beta_fast of yarn",
    ),
    "windows": ("gemma3", {}, "every 6. layer without a sliding window"),
    "attention scale": (
        "gemma2",
        {"query_pre_attn_scalar": 16},
        "by a width of 8, and this model by 16",
    ),
    "caps": ("gemma2", {"final_logit_softcapping": None}, "gemma2 caps logits"),
    "biases": ("llama", {"mlp_bias": True}, "feed-forward layers have biases"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_computed_otherwise_is_refused(name: str) -> None:
    family, changes, words = REFUSED[name]
    with pytest.raises(UsageError, match=words) as raised:
        shape_of(tiny_model(family, **changes).config)
    assert "llama.cpp's own converter" in raised.value.advice


def test_a_window_of_every_layer_ends_the_context() -> None:
    assert context_of(tiny_model("mistral", sliding_window=64).config) == 64
    assert context_of(tiny_model("mistral", sliding_window=None).config) == 1024
    assert context_of(tiny_model("gemma2", sliding_window=8).config) == 1024
