"""What an adapter goes on, by the structure of models at their sizes on the Hub; no weights are made."""

from __future__ import annotations

from typing import Any

import pytest
import transformers as hf

from ragtune.base.errors import UsageError
from ragtune.model import targets
from ragtune.model.targets import Targets, find_targets
from ragtune.recipe.lora import Lora

LLAMAS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
STATES = {"in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b", "out_proj"}


def ends(targets: Targets) -> set[str]:
    return {name.rpartition(".")[2] for name in targets.layers}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (hf.LlamaConfig, LLAMAS),
        (hf.Phi3Config, {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}),
        (hf.GPT2Config, {"c_attn", "c_proj", "c_fc"}),
        (hf.MambaConfig, {"in_proj", "x_proj", "dt_proj"}),
        (hf.Qwen3_5Config, LLAMAS | STATES),  # its linear attention is reached
        (hf.GptOssConfig, ATTENTION),
        (hf.PhimoeConfig, ATTENTION),  # its router is a kind of linear layer
        (hf.Llama4Config, LLAMAS),
        (hf.Glm4MoeConfig, LLAMAS),  # dense first layers and shared experts
        (hf.Qwen3MoeConfig, ATTENTION),
    ],
)
def test_every_linear_layer_of_the_language_model_but_output_and_routers(
    config: Any, expected: set[str]
) -> None:
    targets = find_targets(config(), Lora())
    assert ends(targets) == expected
    assert not any(part in n for n in targets.layers for part in ("vision", "visual", "lm_head"))
    assert not targets.experts


@pytest.mark.parametrize(
    "config",
    [hf.Qwen3MoeConfig, hf.MixtralConfig, hf.Glm4MoeConfig, hf.GptOssConfig, hf.Qwen3_5MoeConfig],
)
def test_experts_are_trained_where_the_recipe_says_so_and_counted_where_not(config: Any) -> None:
    without, with_experts = (find_targets(config(), Lora(rank=8, experts=e)) for e in (False, True))
    assert without.left_out["experts"] > 0.85 * without.every
    assert "experts" not in with_experts.left_out
    ends_of_experts = {name.rpartition(".")[2] for name in with_experts.experts}
    assert ends_of_experts == {"gate_up_proj", "down_proj"}
    assert with_experts.layers == without.layers
    # An adapter of each expert: its two matrices, of rank 8.
    text = config().get_text_config()
    hidden, layers = text.hidden_size, len(with_experts.experts) // 2
    inner = getattr(text, "moe_intermediate_size", None) or text.intermediate_size
    count = next(
        getattr(text, n)
        for n in ("num_experts", "num_local_experts", "n_routed_experts")
        if hasattr(text, n)
    )
    added = 8 * count * layers * (hidden + 2 * inner + inner + hidden)
    assert with_experts.trained - without.trained == added


def test_a_model_that_was_loaded_in_few_bits_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = find_targets(hf.LlamaConfig(num_hidden_layers=1), Lora())
    monkeypatch.setattr(targets, "_find", lambda *_: pytest.fail("it was tried"))
    packed = hf.LlamaConfig(num_hidden_layers=1)
    packed.quantization_config = hf.BitsAndBytesConfig(load_in_4bit=True)
    assert find_targets(packed, Lora()) is found


def test_what_peft_would_take_for_experts_is_reached_by_its_weight() -> None:
    targets = find_targets(hf.Glm4MoeConfig(), Lora())
    assert "model.layers.0.mlp.gate_proj" in targets.by_weight
    assert "model.layers.0.self_attn.q_proj" not in targets.by_weight


def test_what_peft_refuses_is_left_out_or_refused() -> None:
    assert find_targets(hf.MambaConfig(), Lora()).refused == ("out_proj",)
    with pytest.raises(UsageError, match="PEFT adapts no out_proj of MambaForCausalLM") as caught:
        find_targets(hf.MambaConfig(), Lora(target_modules=["in_proj", "out_proj"]))
    assert "all-linear" in caught.value.advice


def test_named_layers_are_those_of_the_language_model() -> None:
    targets = find_targets(hf.Gemma3Config(), Lora(target_modules=["q_proj"]))
    assert targets.layers
    assert all(n.startswith("model.language_model.") for n in targets.layers)
    assert targets.left_out["parts that do not read text"] > 0


def test_layers_that_share_their_weights_are_left_out() -> None:
    """One adapter each, merged into the one weight that they share, would count all of them."""
    config = hf.Zamba2Config(num_hidden_layers=6, layers_block_type=["mamba", "hybrid"] * 3)
    targets = find_targets(config, Lora())
    assert targets.left_out["layers that share their weights"] > 0
    assert not any("shared_transformer.self_attn" in n for n in targets.layers)
    with pytest.raises(UsageError, match="the weights of q_proj are shared with other layers"):
        find_targets(config, Lora(target_modules=["q_proj"]))


def test_names_of_experts_in_the_place_of_layers() -> None:
    with pytest.raises(UsageError, match="no linear layer gate_up_proj") as caught:
        find_targets(hf.Qwen3MoeConfig(), Lora(target_modules=["q_proj", "gate_up_proj"]))
    assert "lora.experts=true" in caught.value.advice


def test_a_dense_model_has_no_experts() -> None:
    with pytest.raises(UsageError, match="LlamaForCausalLM has no experts"):
        find_targets(hf.LlamaConfig(), Lora(experts=True))


def test_what_a_named_choice_leaves_out_is_layers_alone() -> None:
    """Not the output layer, with or without weights of its own."""
    seven = sorted(LLAMAS)
    for tied in (False, True):
        config = hf.LlamaConfig(num_hidden_layers=2, tie_word_embeddings=tied)
        assert find_targets(config, Lora(target_modules=seven)).left_out == {}
    config = hf.LlamaConfig(num_hidden_layers=2)
    assert "lm_head" in find_targets(config, Lora(target_modules=["q_proj", "lm_head"])).layers
    left = find_targets(config, Lora(target_modules=["q_proj"])).left_out
    assert set(left) == {"other linear layers"}
