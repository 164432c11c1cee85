"""Tiny models of families whose answers depend, or might depend, on what shares their batch.

Their windows and changes of RoPE lie among the lengths of the prompts and their answers.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from ragtune.answering.engine import Way
from ragtune.answering.local import Local
from ragtune.answering.prediction import Prediction

LENGTHS = (10, 11, 13, 13, 18, 20, 20, 20, 25, 31, 36, 40, 40)
NEW_TOKENS = 8
STOP = 2

MLA = {"kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
       "num_key_value_heads": 4}  # fmt: skip
EXPERTS = {"moe_intermediate_size": 16, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2,
           "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}  # fmt: skip
# Scores of no head are exactly 0, as they would be with few: of equals, topk takes any.
INDEX = {"index_topk": 12, "index_head_dim": 16, "index_n_heads": 16}
LONGROPE = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0, 1.1, 1.2, 1.3],
            "long_factor": [4.0, 6.0, 8.0, 12.0], "original_max_position_embeddings": 24}  # fmt: skip
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {}),
    "llama_dynamic": ("LlamaConfig", {"rope_parameters": DYNAMIC, "max_position_embeddings": 24}),
    "phi3_longrope": ("Phi3Config", {"rope_parameters": LONGROPE, "max_position_embeddings": 512,
                                     "original_max_position_embeddings": 24}),
    "gemma2": ("Gemma2Config", {"head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8}),
    "gemma3": ("Gemma3TextConfig", {"head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8,
                                    "layer_types": ["sliding_attention", "full_attention"]}),
    "gpt_oss": ("GptOssConfig", {"head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1,
                                 "sliding_window": 8}),
    "lfm2": ("Lfm2Config", {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False}),
    "llama4": ("Llama4TextConfig", {"head_dim": 8, "attention_chunk_size": 16, "num_local_experts": 2,
                                    "num_experts_per_tok": 1, "intermediate_size_mlp": 64,
                                    "num_hidden_layers": 4}),
    "deepseek_v32": ("DeepseekV32Config", {**MLA, **EXPERTS, **INDEX, "num_hidden_layers": 2}),
    "deepseek_v32_equals": ("DeepseekV32Config", {**MLA, **EXPERTS, **INDEX, "index_topk": 6, "index_n_heads": 2,
                                                  "index_head_dim": 8}),
    "glm_dsa": ("GlmMoeDsaConfig", {**MLA, **EXPERTS, **INDEX, "num_hidden_layers": 2}),
    "mamba": ("MambaConfig", {"state_size": 4}),
    "mamba2": ("Mamba2Config", {"state_size": 4, "num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 8}),
    "rwkv": ("RwkvConfig", {"attention_hidden_size": 32}),
}  # fmt: skip


def family_model(name: str) -> Any:
    """With wide random weights: what is otherwise inside shows in the answers."""
    kind, own = FAMILIES[name]
    config = getattr(hf, kind)(
        **{
            "vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
            "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **own,
        }
    )  # fmt: skip
    torch.manual_seed(0)
    model = hf.AutoModelForCausalLM.from_config(config).float().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


class Tokenizer:
    pad_token_id = 0


def prompts(lengths: tuple[int, ...] = LENGTHS) -> list[tuple[str, list[int]]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (f"q{i:02}", torch.randint(3, 500, (n,), generator=generator).tolist())
        for i, n in enumerate(lengths)
    ]


def ask(
    model: Any,
    tokenizer: Any,
    partial: Path,
    asked: list[tuple[str, list[int]]] | None = None,
    **more: Any,
) -> tuple[list[Prediction], Way]:
    options = {"stop_id": STOP, "max_new_tokens": NEW_TOKENS, "batch_size": 4, **more}
    stop_id = options.pop("stop_id")
    engine = Local(model, **options)
    found = engine.complete(asked or prompts(), tokenizer, stop_id, partial, "answering")
    assert engine.way
    return found, engine.way


def alone(
    name: str, asked: list[tuple[str, list[int]]] | None = None, **settings: Any
) -> list[list[int]]:
    """Transformers' answers, each by a model that has read nothing before, without the stop token."""
    found = []
    unused = family_model(name)
    unused.generation_config.update(
        eos_token_id=STOP, pad_token_id=0, max_new_tokens=NEW_TOKENS, **settings
    )
    for _, ids in asked or prompts():
        model = copy.deepcopy(unused)
        with torch.inference_mode():
            whole = model.generate(
                torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)).long()
            )
        row = whole[0, len(ids) :].tolist()
        found.append(row[: row.index(STOP)] if STOP in row else row)
    return found
