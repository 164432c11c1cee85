"""The memory of training a mixture of experts, against what the plan predicts.

    python bench/experts.py --out bench/results/experts-h100.json [--only NAME;NAME] [--tiny]

Some layers of five mixtures at their real widths, with random weights, are trained some steps in
bfloat16, with and without adapters on the experts, with activations kept and recomputed. --tiny runs it
on a CPU.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from step import CUDA, DEFAULT, hardware_here, train

HEADS = {"num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 43176}
SHAPES: dict[str, tuple[Any, bool]] = {
    # The family's configuration at the widths of a model on the Hub, and whether its rows are packed.
    "Qwen3-30B-A3B": (
        hf.Qwen3MoeConfig(
            **HEADS,
            hidden_size=2048,
            moe_intermediate_size=768,
            num_hidden_layers=4,
            num_local_experts=128,
            num_experts_per_tok=8,
        ),
        True,
    ),
    "Mixtral-8x7B": (
        hf.MixtralConfig(**HEADS, hidden_size=4096, intermediate_size=14336, num_hidden_layers=2),
        True,
    ),
    "GLM-4.5-Air": (
        hf.Glm4MoeConfig(
            **HEADS,
            hidden_size=4096,
            intermediate_size=10944,
            moe_intermediate_size=1408,
            num_hidden_layers=3,
            n_routed_experts=128,
            num_experts_per_tok=8,
            first_k_dense_replace=1,
        ),
        True,
    ),
    "gpt-oss-20b": (
        hf.GptOssConfig(
            **HEADS | {"num_attention_heads": 64, "head_dim": 64},
            hidden_size=2880,
            intermediate_size=2880,
            num_hidden_layers=4,
            num_local_experts=32,
            num_experts_per_tok=4,
        ),
        False,
    ),
    "Qwen3.5-35B-A3B": (
        hf.Qwen3_5MoeTextConfig(
            **HEADS | {"num_attention_heads": 16, "num_key_value_heads": 2, "head_dim": 256},
            hidden_size=2048,
            moe_intermediate_size=512,
            shared_expert_intermediate_size=512,
            num_hidden_layers=4,
            num_experts=256,
            num_experts_per_tok=8,
        ),
        False,
    ),
}
CASES = {
    f"{name}: {'experts' if experts else 'no experts'}, {'recomputed' if recompute else 'kept'}, "
    f"{per_row} a row": {"shape": name, "experts": experts, "recompute": recompute, "per_row": per_row}
    for name, (_, packed) in SHAPES.items()
    for experts in (False, True) for recompute in (False, True) for per_row in ((4, 16) if packed else (1,))
}  # fmt: skip


def shape(name: str, *, tiny: bool) -> Any:
    """A fresh configuration: a model writes its attention into it."""
    config = copy.deepcopy(SHAPES[name][0])
    if tiny:
        for key, value in {
            "vocab_size": 500, "hidden_size": 64, "intermediate_size": 64, "moe_intermediate_size": 32,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        }.items():  # fmt: skip
            if hasattr(config, key):
                setattr(config, key, value)
    return config


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", help="names of cases, or their beginnings, with ; between")
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    result: dict[str, Any] = {
        "format": 1,
        "device": hardware_here().name,
        "versions": {"torch": torch.__version__, "transformers": hf.__version__},
        "command": " ".join(sys.argv),
        "cases": {},
    }
    for name, options in CASES.items():
        if not name.startswith(tuple((arguments.only or "").split(";"))):
            continue
        config = shape(options["shape"], tiny=arguments.tiny)
        packed = SHAPES[options["shape"]][1]
        case = (
            DEFAULT
            | {"nf4": False, "dequantized": False, "liger": False, "rank": 16, "steps": 3}
            | options
        )
        if arguments.tiny:
            case |= {"longest": 60, "per_row": min(4, options["per_row"])}
        gc.collect()
        if CUDA:
            torch.cuda.empty_cache()
        torch.manual_seed(0)
        left = torch.cuda.memory_allocated() / 2**30 if CUDA else 0.0
        with torch.device("cuda" if CUDA else "cpu"):
            model = hf.AutoModelForCausalLM.from_config(
                config, dtype=torch.bfloat16 if CUDA else torch.float32
            )
        model.requires_grad_(requires_grad=False)
        case["packed"] = packed
        found = train(case, model.eval(), config, tiny=arguments.tiny, profile=None)
        del model
        found["peak_gib"] = round(found["peak_gib"] - left, 2)
        if found["peak_gib"]:
            found["error"] = round(found["predicted_gib"] / found["peak_gib"] - 1, 3)
        result["cases"][name] = {"options": options, **found}
        print(f"{name:32}", {k: v for k, v in found.items() if k != "losses"}, flush=True)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
