"""Families at their real widths and a few layers, on a GPU: run, merge, and ask the merged model.

Their weights are random, so no answer means anything: what is seen is that each step runs in half
precision and in NF4, that the loss falls, that every adapter learns, and that the merged model answers.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

import ragtune
from ragtune.base.files import read_json, read_jsonl
from tests.conftest import make_records, write_records
from tests.families import reference
from tests.families.build import build
from tests.families.table import Family

NARROW = {"initializer_range": 0.02, "vocab_size": 4096, "sliding_window": 512}
WIDE = [
    Family("qwen3", "Qwen3Config", {
        **NARROW, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 4,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128}, manner="qwen3"),
    Family("gemma3", "Gemma3TextConfig", {
        **NARROW, "hidden_size": 1152, "intermediate_size": 6912, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256,
        "layer_types": ["sliding_attention", "full_attention"] * 2}, manner="gemma"),
    Family("qwen3_moe", "Qwen3MoeConfig", {
        **NARROW, "hidden_size": 2048, "moe_intermediate_size": 768, "num_hidden_layers": 2,
        "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "num_local_experts": 32,
        "num_experts_per_tok": 8}, experts=True, manner="qwen3"),
    Family("qwen3_5", "Qwen3_5Config", {
        "text_config": {
            **NARROW, "hidden_size": 1024, "intermediate_size": 3584, "num_hidden_layers": 4,
            "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 256,
            "linear_num_key_heads": 16, "linear_num_value_heads": 16, "linear_key_head_dim": 128,
            "linear_value_head_dim": 128,
            "layer_types": ["linear_attention"] * 3 + ["full_attention"]},
        "vision_config": {"depth": 1, "hidden_size": 64, "intermediate_size": 64, "num_heads": 4,
                          "out_hidden_size": 1024, "num_position_embeddings": 64}},
        kind="vision", manner="qwen3"),
]  # fmt: skip


@pytest.mark.gpu
@pytest.mark.parametrize("quantization", [None, "nf4"])
@pytest.mark.parametrize("family", WIDE, ids=lambda f: f.name)
def test_a_wide_model_is_tuned_merged_and_asked(
    family: Family, quantization: str | None, tmp_path: Path, capsys: Any
) -> None:
    if quantization:
        pytest.importorskip("bitsandbytes", reason="NF4 needs it")
    build(family, tmp_path / "model")
    recipe: dict[str, Any] = {
        "name": "wide",
        "model": {"id": str(tmp_path / "model"), "dtype": "bfloat16", "quantization": quantization},
        "data": {
            "train": str(write_records(tmp_path / "train.jsonl", make_records(48))),
            "eval": str(write_records(tmp_path / "eval.jsonl", make_records(10, "e"))),
        },
        "prompt": {"preset": "english"},
        "lora": {"rank": 16, "alpha": 16, "experts": family.experts},
        "train": {"steps": 12, "batch_size": 8, "learning_rate": 1e-3},
        "evaluate": {"max_new_tokens": 6, "metric": "squad_em"},
    }
    run = tmp_path / "run"
    ragtune.run(recipe, run_dir=run)
    said = capsys.readouterr().out
    assert "no gradient" not in said
    losses = [
        row["loss"] for row in read_jsonl(run / "adapter" / "train_log.jsonl") if "loss" in row
    ]
    assert losses[-1] < losses[0]
    state = read_json(run / "run.json")
    assert state["merge"]["asked"] == 10
    if not quantization:  # NF4 rounds the base that was trained on
        merged, untuned = apart_by_median(tmp_path / "model", run, make_records(10, "e"))
        assert merged < 0.02
        assert untuned > 2 * merged, (merged, untuned)
    with capsys.disabled():
        sys.stdout.write(
            f"\n{family.name} {quantization or 'bf16'}: packed {state['plan']['packed']}, loss "
            f"{losses[0]:.3f} → {losses[-1]:.3f}, merged changed {state['merge']['changed']} of 10, "
            f"peak {state['peak_gib'].get('train')} of {state['plan']['memory'].get('training')} GiB\n"
        )


def apart_by_median(model: Path, run: Path, records: list[dict[str, Any]]) -> tuple[float, float]:
    """How far the logits of the merged model, and of the base, are from the tuned one's, relatively.

    In float32, the base rounded as it was trained on. Answers say less: those of random weights are near
    ties, and a mixture's routers turn to another expert by a rounding, so that a few tokens are far off.
    """
    tokenizer = AutoTokenizer.from_pretrained(run / "merged")
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": f"{r['question']} {r['passages'][0]['text']}"}],
            return_tensors="pt",
            return_dict=True,
        )["input_ids"]
        for r in records
    ]

    def logits(one: Any) -> torch.Tensor:
        with torch.inference_mode():
            return torch.cat([one(input_ids=ids, use_cache=False).logits[0] for ids in prompts])

    kind = read_json(model / "config.json")["architectures"][0]
    base = reference.load(model, kind)
    for weight in base.parameters():
        weight.data = weight.data.bfloat16().float()
    untuned = logits(base)
    tuned = logits(reference.with_adapter(base, run / "adapter"))
    merged = logits(reference.load(run / "merged", kind))
    one, other = (
        float(((x - tuned).norm(dim=-1) / tuned.norm(dim=-1)).median()) for x in (merged, untuned)
    )
    return one, other
