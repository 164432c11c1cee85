from __future__ import annotations

from typing import Any

import pytest
import transformers as hf

from ragtune.model.trial import TrialError, small_copy

# Sizes as they are on the Hub: nothing of them is made but the copy.
LARGE: dict[str, tuple[Any, int]] = {
    "llama": (hf.LlamaConfig(), 1),
    "gemma3": (hf.Gemma3TextConfig(), 6),  # five with a window, and one without
    "glm4_moe": (hf.Glm4MoeConfig(), 2),  # one dense, and one with experts
    "qwen3_5": (hf.Qwen3_5Config(), 4),  # three with a state, and one with attention; and vision
    "deepseek_v3": (hf.DeepseekV3Config(), 4),
}


@pytest.mark.parametrize("family", LARGE)
def test_a_copy_has_each_kind_of_layer_and_is_small(family: str) -> None:
    config, kinds = LARGE[family]
    before = config.to_json_string()
    copy, layers = small_copy(config)
    assert layers == kinds
    assert sum(p.numel() for p in copy.parameters()) < 2e7
    assert config.to_json_string() == before


def test_a_model_that_is_another_one_when_it_is_small() -> None:
    """Its layers take keys and values of others, counted from the end."""
    config = hf.Gemma3nTextConfig(num_hidden_layers=35, num_kv_shared_layers=15)
    with pytest.raises(TrialError, match="a smaller one"):
        small_copy(config)
