"""The memory of training a mixture of experts, against what the plan predicts.

    python bench/experts.py --out bench/results/experts-h100.json [--tiny]

Four layers of the shape of Qwen3-30B-A3B with random weights are trained some steps in bfloat16, with
and without adapters on the experts, with activations kept and recomputed. --tiny runs it on a CPU.
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

CASES = {
    f"{'experts' if experts else 'no experts'}, {'recomputed' if recompute else 'kept'}, {per_row} a row": {
        "experts": experts, "recompute": recompute, "per_row": per_row,
    }
    for experts in (False, True) for recompute in (False, True) for per_row in (4, 16)
}  # fmt: skip


def shape(*, tiny: bool) -> Any:
    if tiny:
        return hf.Qwen3MoeConfig(
            vocab_size=500, hidden_size=64, moe_intermediate_size=32, num_hidden_layers=2, num_experts=4,
            num_experts_per_tok=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
        )  # fmt: skip
    return hf.Qwen3MoeConfig(
        vocab_size=43176, hidden_size=2048, moe_intermediate_size=768, num_hidden_layers=4, num_experts=128,
        num_experts_per_tok=8, num_attention_heads=32, num_key_value_heads=4, head_dim=128,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    result: dict[str, Any] = {
        "format": 1,
        "device": hardware_here().name,
        "versions": {"torch": torch.__version__, "transformers": hf.__version__},
        "command": " ".join(sys.argv),
        "cases": {},
    }
    config = shape(tiny=arguments.tiny)
    for name, options in CASES.items():
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
                copy.deepcopy(config), dtype=torch.bfloat16 if CUDA else torch.float32
            )
        model.requires_grad_(requires_grad=False)
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
