from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

import ragtune
from ragtune.base.errors import UsageError
from ragtune.model.causal import require_causal
from tests.conftest import tiny_model

SMALL = {
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 1024,
}
OTHER = {"vocab_size": 512, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64}


def encoder_of(family: str, **changes: Any) -> Any:
    configs = {
        "bert": (hf.BertConfig, SMALL),
        "roberta": (hf.RobertaConfig, SMALL),
        "electra": (hf.ElectraConfig, SMALL | {"embedding_size": 32}),
        "xlnet": (hf.XLNetConfig, OTHER),
        "xlm": (hf.XLMConfig, {"vocab_size": 512, "emb_dim": 32, "n_layers": 2, "n_heads": 4}),
    }
    make, values = configs[family]
    torch.manual_seed(0)
    return hf.AutoModelForCausalLM.from_config(make(**values, **changes)).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "xlnet", "xlm"])
def test_encoders_are_not_causal(family: str, dtype: torch.dtype) -> None:
    words = r"x/y can't write text from left to right: later tokens change the logits of earlier ones \(by "
    with pytest.raises(UsageError, match=words):
        require_causal(encoder_of(family).to(dtype), "x/y")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "gemma3", "gpt_oss", "lfm2"])
def test_decoders_are(family: str, dtype: torch.dtype) -> None:
    model = tiny_model(family).to(dtype).train()
    require_causal(model, "x/y")
    assert model.training


def test_an_encoder_that_was_made_a_decoder_is() -> None:
    require_causal(encoder_of("bert", is_decoder=True), "x/y")


def test_a_run_stops_before_the_first_answer(
    tiny_recipe: dict[str, Any], chatml_tokenizer: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "bert"
    encoder_of("bert").save_pretrained(folder)
    chatml_tokenizer.save_pretrained(folder)
    tiny_recipe["model"]["id"] = str(folder)
    tiny_recipe["lora"]["target_modules"] = ["query", "value"]
    words = (
        r"bert can't write text from left to right: later tokens .*\nName a model that was made to"
    )
    with pytest.raises(UsageError, match=words):
        ragtune.evaluate(tiny_recipe, base=True, run_dir=tmp_path / "run")
    assert not (tmp_path / "run" / "eval" / "eval" / "before").exists()


def test_logits_that_are_not_finite_show_nothing_of_it() -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    with pytest.raises(UsageError, match="logits are not finite") as caught:
        require_causal(model, "x/y")
    assert "model.dtype=float32" in caught.value.advice
