"""Model families: how each is made tiny, and what is to be seen of it.

`overrides` stand over SHAPE, of which a configuration takes the keys that it knows. There are layers
of every kind that a family has, and windows, chunks and switches are shorter than the samples.

`expected` is what `measure` says of a family: `packed` or `single` (one sample a row), or `refused`
by `ragtune check`; behind it, where ragtune is not equal to plain transformers, the faults by name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SHAPE = {
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 1024,
    # Wide weights: with narrow ones all positions count alike, and nothing that is wrong would show.
    "initializer_range": 0.2,
    "init_std": 0.2,
    "attention_dropout": 0.0,
    "sliding_window": 8,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "n_shared_experts": 1,
    "num_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_d_state": 8,
    "mamba_chunk_size": 8,
    "chunk_size": 8,
}

SLIDING = ["sliding_attention", "full_attention"]
LINEAR = ["linear_attention", "full_attention"]
NO_DROPOUT = {
    "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "dropout": 0.0, "hidden_dropout": 0.0,
}  # fmt: skip
MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}}
HALF_MROPE = {
    "head_dim": 16,
    "rope_parameters": {**MROPE["rope_parameters"], "partial_rotary_factor": 0.5},
}
LONG = {"rope_type": "longrope", "rope_theta": 1e4, "partial_rotary_factor": 1.0,
        "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0, 4.0, 8.0, 16.0],
        "original_max_position_embeddings": 74}  # fmt: skip
IMAGE = {"image_token_id": 500, "video_token_id": 501, "vision_start_token_id": 502,
         "vision_end_token_id": 503}  # fmt: skip
QWEN_EYE = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "patch_size": 4,
            "out_hidden_size": 32, "num_position_embeddings": 16}  # fmt: skip
EYE = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
       "image_size": 16, "patch_size": 4}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """A row of the table."""

    name: str
    config: str
    """The configuration's class in transformers."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """A mapping under a key that ends in `_config` is that of a part."""
    experts: bool = False
    """The recipe's lora.experts."""
    kind: str = "text"
    """text; vision (the Hub's class has eyes, too); encoder."""
    manner: str = "chatml"
    """The chat template (`build.tokenizer_of`)."""
    expected: str = "packed"
    short: bool = False
    """Whether it belongs to the short set."""


FAMILIES = [
    # Dense, full attention.
    Family("llama", "LlamaConfig", manner="llama3.2", short=True),
    Family("mistral", "MistralConfig", manner="mistral"),
    Family("ministral", "MinistralConfig", {"layer_types": SLIDING}, manner="mistral"),
    Family("ministral3", "Ministral3Config", {
        "sliding_window": None, "rope_parameters": {
            "rope_type": "yarn", "type": "yarn", "rope_theta": 1e4, "factor": 16.0, "beta_fast": 32.0,
            "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1,
            "original_max_position_embeddings": 64}}, manner="mistral"),
    Family("qwen2", "Qwen2Config"),
    Family("qwen2 (sliding)", "Qwen2Config", {
        "use_sliding_window": True, "max_window_layers": 1, "num_hidden_layers": 3}),
    Family("qwen3", "Qwen3Config", manner="qwen3", short=True),
    Family("gemma", "GemmaConfig", manner="gemma"),
    Family("gemma2", "Gemma2Config", {"query_pre_attn_scalar": 8, "layer_types": SLIDING},
           manner="gemma", expected="single"),
    Family("gemma3", "Gemma3TextConfig", {"query_pre_attn_scalar": 8, "layer_types": SLIDING},
           manner="gemma", short=True),
    Family("gemma3n", "Gemma3nTextConfig", {
        "num_hidden_layers": 4, "intermediate_size": 64, "layer_types": SLIDING * 2,
        "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 512, "laurel_rank": 4,
        "num_kv_shared_layers": 2, "activation_sparsity_pattern": [0.5, 0.5, 0.0, 0.0]}, manner="gemma",
           expected="packed"),
    # With 512, as by default, attention without a scale sees one token each: rounding decides which.
    Family("gemma4", "Gemma4TextConfig", {
        "num_hidden_layers": 4, "layer_types": SLIDING * 2, "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 512, "num_kv_shared_layers": 2, "global_head_dim": 16},
        manner="gemma4"),
    Family("vaultgemma", "VaultGemmaConfig", {"query_pre_attn_scalar": 8, "layer_types": SLIDING},
           manner="gemma", expected="single"),
    Family("phi", "PhiConfig", NO_DROPOUT),
    Family("phi3", "Phi3Config", {**NO_DROPOUT, "sliding_window": None}, manner="phi3-old"),
    Family("phi3 (longrope)", "Phi3Config", {
        **NO_DROPOUT, "sliding_window": None, "original_max_position_embeddings": 74,
        "rope_parameters": LONG}, manner="phi3-old", short=True,
           expected="single"),
    Family("phi3 (sliding)", "Phi3Config", NO_DROPOUT, manner="tags"),
    Family("glm", "GlmConfig", manner="tags"),
    Family("glm4", "Glm4Config", manner="tags"),
    Family("granite", "GraniteConfig", {"logits_scaling": 4.0, "residual_multiplier": 0.5}),
    Family("olmo", "OlmoConfig", manner="tags"),
    Family("olmo2", "Olmo2Config"),
    Family("olmo3", "Olmo3Config", {"layer_types": SLIDING}),
    Family("smollm3", "SmolLM3Config", {"num_hidden_layers": 4, "no_rope_layers": [1, 0, 1, 0]}, manner="smollm3"),
    Family("cohere", "CohereConfig", {"use_qk_norm": True}, manner="tags"),
    Family("cohere2", "Cohere2Config", {"layer_types": SLIDING}, manner="tags"),
    Family("starcoder2", "Starcoder2Config", manner="tags"),
    Family("nemotron", "NemotronConfig", NO_DROPOUT, manner="tags",
           expected="single"),
    Family("stablelm", "StableLmConfig", NO_DROPOUT,
           expected="single"),
    Family("persimmon", "PersimmonConfig", NO_DROPOUT),
    Family("exaone4", "Exaone4Config", {"layer_types": SLIDING}),
    Family("ernie4_5", "Ernie4_5Config"),
    Family("hunyuan (dense)", "HunYuanDenseV1Config"),
    Family("seed_oss", "SeedOssConfig", {"residual_dropout": 0.0}),
    Family("apertus", "ApertusConfig"),
    Family("arcee", "ArceeConfig"),
    Family("helium", "HeliumConfig"),
    Family("cwm", "CwmConfig", {"layer_types": SLIDING}, manner="llama3.2"),
    Family("hyperclovax", "HyperCLOVAXConfig"),
    Family("minicpm3", "MiniCPM3Config", {"num_key_value_heads": 4}),
    Family("nanochat", "NanoChatConfig"),
    Family("diffllama", "DiffLlamaConfig"),
    # Older ones.
    Family("gpt2", "GPT2Config", {**NO_DROPOUT, "n_embd": 32, "n_layer": 2, "n_head": 4}),
    Family("gpt_bigcode", "GPTBigCodeConfig", {**NO_DROPOUT, "n_embd": 32, "n_layer": 2, "n_head": 4}),
    Family("gpt_neo", "GPTNeoConfig", {
        **NO_DROPOUT, "num_layers": 2, "num_heads": 4, "window_size": 8,
        "attention_types": [[["global", "local"], 1]]},
           expected="single"),
    Family("gpt_neox", "GPTNeoXConfig"),
    Family("gptj", "GPTJConfig", {
        **NO_DROPOUT, "n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4},
           expected="single"),
    Family("opt", "OPTConfig", {**NO_DROPOUT, "ffn_dim": 64, "word_embed_proj_dim": 32}),
    Family("bloom", "BloomConfig", {"n_layer": 2, "n_head": 4},
           expected="single"),
    Family("mpt", "MptConfig", {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 1024},
           expected="single"),
    Family("falcon", "FalconConfig", {"ffn_hidden_size": 64, "new_decoder_architecture": True,
                                      "num_kv_heads": 2},
           expected="single"),
    Family("falcon (alibi)", "FalconConfig", {"ffn_hidden_size": 64, "alibi": True},
           expected="single"),
    Family("codegen", "CodeGenConfig", {
        **NO_DROPOUT, "n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4},
           expected="single"),
    Family("xglm", "XGLMConfig", {
        **NO_DROPOUT, "d_model": 32, "ffn_dim": 64, "num_layers": 2, "attention_heads": 4},
           expected="single"),
    # Mixtures of experts.
    Family("mixtral", "MixtralConfig", {"sliding_window": None}, manner="mistral"),
    Family("qwen2_moe", "Qwen2MoeConfig"),
    Family("qwen3_moe", "Qwen3MoeConfig", {
        "num_local_experts": 4, "num_hidden_layers": 3, "mlp_only_layers": [0]}, short=True, manner="qwen3"),
    Family("gpt_oss", "GptOssConfig", {"layer_types": SLIDING}, manner="gpt-oss", short=True,
           expected="single"),
    Family("phimoe", "PhimoeConfig", {"router_jitter_noise": 0.0, "sliding_window": None}, manner="phi3-old"),
    Family("llama4", "Llama4TextConfig", {
        "num_hidden_layers": 4, "intermediate_size_mlp": 64, "interleave_moe_layer_step": 2,
        "attention_chunk_size": 16, "num_experts_per_tok": 1}, manner="llama3.2", expected="single"),
    Family("glm4_moe", "Glm4MoeConfig", manner="glm4.5"),
    Family("glm4_moe_lite", "Glm4MoeLiteConfig", {
        "num_key_value_heads": 4, "mlp_layer_types": ["dense", "sparse"]}, manner="glm4.5"),
    Family("glm_moe_dsa", "GlmMoeDsaConfig", {
        "num_key_value_heads": 4, "mlp_layer_types": ["dense", "sparse"], "index_topk": 16, "index_head_dim": 8,
        "index_n_heads": 2}, manner="tags",
           expected="single"),
    Family("deepseek_v2", "DeepseekV2Config", {"num_key_value_heads": 4}, manner="tags"),
    Family("deepseek_v3", "DeepseekV3Config", {"num_key_value_heads": 4, "num_nextn_predict_layers": 0},
           manner="deepseek-r1-distill"),
    Family("deepseek_v32", "DeepseekV32Config", {
        "num_key_value_heads": 4, "mlp_layer_types": ["dense", "sparse"], "index_topk": 16,
        "index_head_dim": 8, "index_n_heads": 2}, manner="deepseek-r1-distill",
           expected="single"),
    Family("granitemoe", "GraniteMoeConfig"),
    Family("olmoe", "OlmoeConfig"),
    Family("flex_olmo", "FlexOlmoConfig"),
    Family("ernie4_5_moe", "Ernie4_5_MoeConfig", {
        "moe_k": 2, "moe_num_experts": 4, "moe_num_shared_experts": 1, "moe_layer_end_index": 1}),
    Family("hunyuan_moe", "HunYuanMoEV1Config", {"moe_topk": 2}),
    Family("afmoe", "AfmoeConfig", {"num_dense_layers": 1, "layer_types": SLIDING}),
    Family("minimax", "MiniMaxConfig", {"layer_types": LINEAR, "block_size": 8, "sliding_window": None},
           expected="single; merging fails"),
    Family("minimax_m2", "MiniMaxM2Config"),
    Family("dots1", "Dots1Config", {"layer_types": SLIDING}),
    Family("exaone_moe", "ExaoneMoeConfig", {"layer_types": SLIDING, "mlp_layer_types": ["dense", "sparse"]}),
    Family("solar_open", "SolarOpenConfig"),
    Family("mimo_v2_flash", "MiMoV2FlashConfig", {
        "layer_types": SLIDING, "mlp_layer_types": ["dense", "sparse"]},
           expected="single"),
    Family("longcat_flash", "LongcatFlashConfig", {
        "num_layers": 2, "ffn_hidden_size": 64, "moe_topk": 2, "zero_expert_num": 2,
        "expert_ffn_hidden_size": 16, "num_key_value_heads": 4}),
    Family("jetmoe", "JetMoeConfig", {"kv_channels": 8, "num_key_value_heads": 2}),
    Family("dbrx", "DbrxConfig", {
        "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 1024,
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4},
        "ffn_config": {"ffn_hidden_size": 16, "moe_num_experts": 4, "moe_top_k": 2}}),
    # The same with adapters on the experts' weights, which are one tensor for all of a layer.
    Family("mixtral (experts)", "MixtralConfig", {"sliding_window": None}, manner="mistral", experts=True),
    Family("qwen3_moe (experts)", "Qwen3MoeConfig", {
        "num_local_experts": 4, "num_hidden_layers": 3, "mlp_only_layers": [0]}, manner="qwen3",
        experts=True),
    Family("gpt_oss (experts)", "GptOssConfig", {"layer_types": SLIDING}, manner="gpt-oss",
           experts=True, expected="single"),
    Family("glm4_moe (experts)", "Glm4MoeConfig", manner="glm4.5", experts=True),
    Family("qwen3_5_moe (experts)", "Qwen3_5MoeTextConfig", {"layer_types": LINEAR, "head_dim": 16},
           manner="qwen3.5", experts=True, expected="single"),
    # Linear attention, state spaces, convolutions, recurrence.
    Family("qwen3_next", "Qwen3NextConfig", {"layer_types": LINEAR}, expected="single"),
    Family("qwen3_5 (text)", "Qwen3_5TextConfig", {"layer_types": LINEAR, "head_dim": 16},
           manner="qwen3.5", expected="single", short=True),
    Family("qwen3_5_moe (text)", "Qwen3_5MoeTextConfig", {"layer_types": LINEAR, "head_dim": 16},
           manner="qwen3.5", expected="single"),
    Family("kimi_linear", "KimiLinearConfig", {
        "layer_types": LINEAR, "mlp_layer_types": ["dense", "sparse"], "linear_head_dim": 8,
        "linear_num_heads": 4, "num_expert_group": 1, "num_experts_per_token": 2, "q_lora_rank": None,
        "num_key_value_heads": 4}, expected="single"),
    Family("olmo_hybrid", "OlmoHybridConfig", {"layer_types": LINEAR, "linear_num_key_heads": 4},
           expected="single"),
    Family("granitemoehybrid", "GraniteMoeHybridConfig", {
        "layer_types": LINEAR, "shared_intermediate_size": 16}, expected="single"),
    Family("falcon_h1", "FalconH1Config", {"mamba_d_ssm": 64}, expected="single"),
    Family("falcon_mamba", "FalconMambaConfig", {"state_size": 8, "time_step_rank": 4},
           expected="single"),
    Family("mamba", "MambaConfig", {"state_size": 8, "time_step_rank": 4},
           expected="single"),
    Family("mamba2", "Mamba2Config", {"num_heads": 8, "state_size": 8, "n_groups": 1}, expected="single"),
    Family("jamba", "JambaConfig", {
        "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2,
        "expert_layer_offset": 1, "mamba_dt_rank": 4, "use_mamba_kernels": False},
           expected="single"),
    Family("bamba", "BambaConfig", {"attn_layer_indices": [1]},
           expected="single"),
    Family("zamba2", "Zamba2Config", {
        "num_hidden_layers": 4, "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
        "mamba_ngroups": 1, "n_mamba_heads": 8, "mamba_headdim": 8, "num_mem_blocks": 1,
        "num_key_value_heads": 4, "adapter_rank": 4},
           expected="single"),
    Family("nemotron_h", "NemotronHConfig", {
        "num_hidden_layers": 4, "layers_block_type": ["mamba", "attention", "moe", "mlp"],
        "mamba_num_heads": 8, "mamba_head_dim": 8, "ssm_state_size": 8, "n_groups": 1,
        "moe_shared_expert_intermediate_size": 16}, expected="single", manner="nemotron"),
    Family("lfm2", "Lfm2Config", {
        "layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False}, expected="single"),
    Family("lfm2_moe", "Lfm2MoeConfig", {
        "num_hidden_layers": 4, "layer_types": ["conv", "full_attention"] * 2, "num_dense_layers": 2},
        expected="single"),
    Family("rwkv", "RwkvConfig", {"attention_hidden_size": 32, "context_length": 1024},
           expected="single"),
    Family("recurrent_gemma", "RecurrentGemmaConfig", {
        "num_hidden_layers": 3, "attention_window_size": 8, "lru_width": 32}, manner="gemma",
        expected="single"),
    Family("xlstm", "xLSTMConfig", {
        "embedding_dim": 32, "num_blocks": 2, "num_heads": 4, "chunk_size": 8},
           expected="single; answering fails; merging fails"),
    # With eyes: the Hub's class is the whole.
    Family("qwen2_vl", "Qwen2VLConfig", {
        **IMAGE, "text_config": MROPE,
        "vision_config": {"depth": 1, "embed_dim": 16, "hidden_size": 32, "num_heads": 2,
                          "patch_size": 4}}, kind="vision"),
    Family("qwen2_5_vl", "Qwen2_5_VLConfig", {
        **IMAGE, "text_config": MROPE,
        "vision_config": {**QWEN_EYE, "fullatt_block_indexes": [0], "window_size": 16}}, kind="vision"),
    Family("qwen3_vl", "Qwen3VLConfig", {
        **IMAGE, "text_config": MROPE,
        "vision_config": {**QWEN_EYE, "deepstack_visual_indexes": [0]}}, kind="vision"),
    Family("qwen3_vl_moe", "Qwen3VLMoeConfig", {
        **IMAGE, "text_config": {**MROPE, "sliding_window": None},
        "vision_config": {**QWEN_EYE, "deepstack_visual_indexes": [0]}}, kind="vision"),
    Family("qwen3_5", "Qwen3_5Config", {
        **IMAGE, "text_config": {**HALF_MROPE, "layer_types": LINEAR}, "vision_config": QWEN_EYE},
        kind="vision", manner="qwen3.5", expected="single"),
    Family("qwen3_5_moe", "Qwen3_5MoeConfig", {
        **IMAGE, "text_config": {**HALF_MROPE, "layer_types": LINEAR}, "vision_config": QWEN_EYE},
        kind="vision", manner="qwen3.5", expected="single"),
    Family("gemma3 (vision)", "Gemma3Config", {
        "text_config": {"query_pre_attn_scalar": 8, "layer_types": SLIDING}, "vision_config": EYE,
        "image_token_index": 500, "boi_token_index": 501, "eoi_token_index": 502,
        "mm_tokens_per_image": 4}, kind="vision", manner="gemma", short=True),
    Family("gemma4 (vision)", "Gemma4Config", {
        "text_config": {
            "num_hidden_layers": 4, "layer_types": SLIDING * 2, "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": 512, "num_kv_shared_layers": 2, "global_head_dim": 16},
        "vision_config": {**EYE, "num_key_value_heads": 2, "head_dim": 8},
        "image_token_id": 500, "video_token_id": 501, "audio_token_id": 502}, kind="vision",
        manner="gemma4"),
    Family("llama4 (vision)", "Llama4Config", {
        "text_config": {
            "num_hidden_layers": 4, "intermediate_size_mlp": 64, "interleave_moe_layer_step": 2,
            "attention_chunk_size": 16, "num_experts_per_tok": 1},
        "vision_config": {**EYE, "vision_output_dim": 16, "projector_input_dim": 16,
                          "projector_output_dim": 16},
        "image_token_index": 500, "boi_token_index": 501, "eoi_token_index": 502}, kind="vision",
        manner="llama3.2", expected="single"),
    Family("mistral3", "Mistral3Config", {
        "text_config": {"sliding_window": None}, "vision_config": {**EYE, "head_dim": 8}}, kind="vision",
        manner="mistral"),
    Family("llava", "LlavaConfig", {
        "text_config": {}, "vision_config": EYE, "image_token_index": 500}, kind="vision"),
    Family("internvl", "InternVLConfig", {
        "text_config": {}, "vision_config": {**EYE, "image_size": [16, 16], "patch_size": [4, 4]},
        "image_token_id": 500}, kind="vision"),
    Family("smolvlm", "SmolVLMConfig", {
        "text_config": {}, "vision_config": EYE, "image_token_id": 500}, kind="vision"),
    # No decoder.
    Family("bert", "BertConfig", kind="encoder",
           expected="refused"),
    Family("roberta", "RobertaConfig", kind="encoder", expected="refused"),
]  # fmt: skip
