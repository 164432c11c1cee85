"""Training steps and answers at a 7B Llama's shape with random weights: time, memory, prediction.

    python bench/step.py --out bench/results/NAME.json [--only NAME,NAME] [--profile] [--tiny]

Every case builds its model on the GPU, trains a few steps through ragtune's own trainer and gives the
median step, the peak of allocated memory and what the plan predicted for it. `answer` cases ask
questions of the notebook's lengths; `small` ones have Gemma 3 270M's shape, and `NeMo` ones Qwen2.5-7B's with
rank 16 and full rows of 4,096 tokens, all of them trained, as NVIDIA measures its NeMo AutoModel. `fp8` is
train.products.
--tiny runs the same code on a CPU in seconds.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import platform
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from ragtune.answering.local import Local
from ragtune.data.encode import Sample
from ragtune.model import load as loading
from ragtune.model.fast import eight
from ragtune.model.fast.attention import NAME
from ragtune.model.fast.dropout import Masks
from ragtune.model.fast.lora import fuse
from ragtune.model.fast.to_eight import convert
from ragtune.model.hardware import Hardware
from ragtune.model.layout import row_size
from ragtune.model.lora import attach
from ragtune.model.nf4 import linear_layers, round_to_nf4
from ragtune.model.plan import Plan, estimate_of, make_plan
from ragtune.model.targets import ordinary_layers
from ragtune.recipe.schema import Recipe
from ragtune.training.arguments import training_arguments
from ragtune.training.rows import PackedRows, split_rows
from ragtune.training.trainer import PackedTrainer, set_recompute

CUDA = torch.cuda.is_available()
VOCABULARY = 43176


SIZES = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads",
)  # fmt: skip


def shape(layers: int, *, tiny: bool, nemo: bool = False, small: bool = False) -> Any:
    if small:
        sizes = (64, 128, 2, 4, 1) if tiny else (640, 2048, 18, 4, 1)
        return hf.Gemma3TextConfig(
            **dict(zip(SIZES, sizes, strict=True)), head_dim=16 if tiny else 256,
            vocab_size=500 if tiny else 262144, sliding_window=512, max_position_embeddings=32768,
            pad_token_id=0,
        )  # fmt: skip
    if nemo:
        sizes = (64, 128, 2, 4, 2) if tiny else (3584, 18944, 28, 28, 4)
        return hf.Qwen2Config(
            **dict(zip(SIZES, sizes, strict=True)), vocab_size=2000 if tiny else 152064, rope_theta=1e6,
            max_position_embeddings=32768, tie_word_embeddings=False, pad_token_id=0,
        )  # fmt: skip
    if tiny:
        return hf.LlamaConfig(
            vocab_size=500, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=4096, pad_token_id=0,
        )  # fmt: skip
    return hf.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=4096, intermediate_size=11008, num_hidden_layers=layers,
        num_attention_heads=32, num_key_value_heads=32, max_position_embeddings=4096, pad_token_id=0,
    )  # fmt: skip


def build(
    config: Any,
    *,
    nf4: bool,
    dequantized: bool,
    liger: bool,
    fp8: bool = False,
    whole_ends: int = 0,
) -> Any:
    """A model with random weights, as load_model would give it.

    `whole_ends`: so many of the first and of the last layers stay out of 8 bits.
    """
    torch.manual_seed(0)
    with torch.device("cuda" if CUDA else "cpu"):
        torch.set_default_dtype(torch.bfloat16 if CUDA else torch.float32)
        model = hf.AutoModelForCausalLM.from_config(config)
        torch.set_default_dtype(torch.float32)
    if nf4 and dequantized:
        round_to_nf4(linear_layers(model))
    elif nf4:
        import bitsandbytes as bnb

        for module in list(model.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, torch.nn.Linear) and name != "lm_head":
                    packed = bnb.nn.Linear4bit(
                        child.in_features, child.out_features, bias=False,
                        compute_dtype=torch.bfloat16, quant_type="nf4", device="meta",
                    )  # fmt: skip
                    packed.weight = bnb.nn.Params4bit(
                        child.weight.data,
                        requires_grad=False,
                        quant_type="nf4",
                        compress_statistics=False,
                    ).to("cuda")
                    setattr(module, name, packed)
        model.is_loaded_in_4bit = True
    if liger and CUDA:
        loading.fuse_kernels(model)
    model.requires_grad_(requires_grad=False)
    if fp8:
        middle = range(whole_ends, config.num_hidden_layers - whole_ends)
        convert(model, [n for n in ordinary_layers(model) if int(n.split(".")[2]) in middle])
    return model.eval()


def samples(
    count: int, longest: int, vocabulary: int, trained: int | None = None, full: int | None = None
) -> list[Sample]:
    """Samples of about 720 tokens, as the notebook's, with short answers or `trained` tokens each.

    `full`: each has so many tokens instead, drawn of 1,024, and all of them that have one before are trained.
    """
    rng = random.Random(0)
    out = []
    if full:
        drawn = (
            [rng.randrange(5, min(1024, vocabulary)) for _ in range(full)] for _ in range(count)
        )
        return [Sample(str(i), ids[:1], ids[1:], i) for i, ids in enumerate(drawn)]
    for i in range(count):
        n = int(min(1150, max(260, rng.gauss(720, 150))) * longest / 1150)
        k = rng.choice([3, 4, 5, 6, 7, 8, 10])
        k = k if trained is None else min(trained, n - 1)
        ids = [rng.randrange(5, vocabulary) for _ in range(n)]
        out.append(Sample(str(i), ids[:-k], ids[-k:], i))
    return out


def recipe_of(case: dict[str, Any], batch: int) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "bench",
            "model": {"id": "x", "quantization": "nf4" if case["nf4"] else None},
            "data": {"train": "x", "eval": "x", "max_passages": 3},
            "prompt": {"preset": "aio"},
            "lora": {"rank": case["rank"], "alpha": case["rank"], "dropout": case["dropout"],
                     "experts": case.get("experts", False)},
            "train": {
                "steps": case["steps"], "batch_size": batch, "samples_per_row": case["per_row"],
                "recompute": case["recompute"], "products": "fp8" if case.get("fp8") else None,
                "optimizer": case["optimizer"] if CUDA else "adamw",
            },
        }
    )  # fmt: skip


def train(
    case: dict[str, Any], model: Any, config: Any, *, tiny: bool, profile: Path | None
) -> dict[str, Any]:
    batch = 4 if tiny else 16
    recipe = recipe_of(case, batch)
    count = batch * case["steps"]
    data = samples(count, case["longest"], config.vocab_size, case["trained"], case.get("full"))
    steps = [data[i : i + batch] for i in range(0, len(data), batch)]
    hardware = hardware_here()
    tuned = attach(model, recipe.lora, 42)
    masks = Masks(recipe.seed)
    masks.take_over(tuned)
    if case["fuse"]:
        fuse(tuned)
    packed = case.get("packed", True)
    if packed:
        model.set_attn_implementation(NAME)
    plan = Plan(
        device=hardware.name, dtype=hardware.dtype_name, quantization=recipe.model.quantization,
        samples_per_row=case["per_row"], recompute=case["recompute"],
        optimizer=recipe.train.optimizer, evaluation_batch=1, dequantized=case["dequantized"],
        packed=packed, products=recipe.train.products,
    )  # fmt: skip
    if case["recompute"]:
        set_recompute(tuned, on=True)
    ends: list[float] = []
    losses: list[float] = []

    class Clock(hf.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if CUDA:
                torch.cuda.synchronize()
            ends.append(time.monotonic())
            if profile and len(ends) == case["steps"] - 2:
                profiler.start()
            if profile and len(ends) == case["steps"] - 1:
                profiler.stop()

        def on_log(
            self, _args: Any, _state: Any, _control: Any, logs: Any = None, **__: Any
        ) -> None:
            if "loss" in logs:
                losses.append(logs["loss"])

    profiler = torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = PackedTrainer(
            model=tuned,
            args=training_arguments(recipe, plan, hardware, case["steps"], Path(folder)),
            train_dataset=PackedRows([r for s in steps for r in split_rows(s, plan.rows(batch))]),
            callbacks=[Clock()],
            plan=plan,
            trained=[sum(len(s.completion_ids) for s in step) for step in steps],
            masks=masks,
            on_plan=lambda p: print("  plan:", p.changes, flush=True),
            keep=1,
        )
        trainer.args.save_strategy = "no"
        if CUDA:
            torch.cuda.reset_peak_memory_stats()
        trainer.train()
    if profile:
        write_profile(profiler, profile)
    estimate = estimate_of(recipe, hardware, config)
    sizes = [[(len(s), len(s.completion_ids)) for s in step] for step in steps]
    tokens, trained = row_size(sizes, case["per_row"])
    estimate = type(estimate)(
        **{**estimate.__dict__, "dequantized": case["dequantized"], "fused_kernels": case["liger"]}
    )
    predicted = estimate.training(tokens, trained, -(-batch // case["per_row"])) / 2**30
    peak = torch.cuda.max_memory_allocated() / 2**30 if CUDA else 0.0
    seconds = statistics.median(b - a for a, b in itertools.pairwise(ends))
    return {
        "step_seconds": round(seconds, 4),
        "tokens_a_second": round(sum(map(len, data)) / case["steps"] / seconds),
        "peak_gib": round(peak, 2),
        "predicted_gib": round(predicted, 2),
        "error": round(predicted / peak - 1, 3) if peak else None,
        "row_tokens": tokens,
        "row_trained": trained,
        "losses": [round(x, 4) for x in losses],
        "changes": list(trainer.plan.changes),
        "graphs": trainer.plan.graphs,
    }  # fmt: skip


def write_profile(profiler: torch.profiler.profile, path: Path) -> None:
    """Write what took the most time, of the GPU's and of the processor's."""
    found = profiler.key_averages()
    tables = [
        found.table(sort_by=f"self_{device}_time_total", row_limit=40) for device in ("cuda", "cpu")
    ]
    path.write_text("\n".join(tables), encoding="utf-8")


class Decoder:
    pad_token_id = 0

    def decode(self, ids: list[int], **_: Any) -> str:
        return " ".join(map(str, ids))


def ask(case: dict[str, Any], model: Any, config: Any, *, profile: Path | None) -> dict[str, Any]:
    recipe = recipe_of({**case, "steps": 1, "recompute": False, "per_row": 1}, 1)
    hardware = hardware_here()
    tuned = model
    if case["adapter"]:
        tuned = attach(model, recipe.lora, 42)
        if case["fuse"]:
            fuse(tuned)
    model.generation_config.min_new_tokens = 32
    model.generation_config.eos_token_id = 2
    prompts = [
        (s.qid, s.prompt_ids)
        for s in samples(case["questions"], case["longest"], config.vocab_size)
    ]
    plan = make_plan(
        recipe, hardware, config, [[(10, 5)]], [len(ids) for _, ids in prompts],
        memory=None if CUDA else 80 * 2**30,
    )  # fmt: skip
    limits = {
        "batch_size": case.get("batch") or plan.evaluation_batch,
        "cache_tokens": plan.cache_tokens,
    }

    def answer(asked: list[tuple[str, list[int]]], partial: Path, max_new_tokens: int = 32) -> None:
        Local(tuned, max_new_tokens, **limits).complete(asked, Decoder(), 2, partial, "answering")

    with tempfile.TemporaryDirectory() as folder:
        answer(prompts[:8], Path(folder) / "warm")
        if CUDA:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        start = time.monotonic()
        answer(prompts, Path(folder) / "a")
        seconds = time.monotonic() - start
        if profile:
            tuned.generation_config.min_new_tokens = 6
            with torch.profiler.profile(
                activities=[
                    torch.profiler.ProfilerActivity.CPU,
                    torch.profiler.ProfilerActivity.CUDA,
                ]
            ) as profiler:
                answer(prompts[:100], Path(folder) / "b", 6)
            write_profile(profiler, profile)
    peak = torch.cuda.max_memory_allocated() / 2**30 if CUDA else 0.0
    return {
        "seconds": round(seconds, 2), "questions": len(prompts), "peak_gib": round(peak, 2),
        "predicted_gib": plan.memory["evaluation"],
        "error": round(plan.memory["evaluation"] / peak - 1, 3) if peak else None, **limits,
    }  # fmt: skip


def hardware_here() -> Hardware:
    if CUDA:
        return Hardware(
            torch.device("cuda", 0), torch.bfloat16, "bench", torch.cuda.get_device_name()
        )
    return Hardware(torch.device("cpu"), torch.float32, "bench", platform.machine())


DEFAULT = {
    "layers": 32, "rank": 128, "dropout": 0.0, "nf4": True, "dequantized": True, "recompute": False,
    "per_row": 8, "fuse": True, "liger": True, "longest": 1150, "trained": None, "steps": 6,
    "fp8": False, "e5m2": False, "fast": True, "whole_ends": 0, "full": None, "small": False,
    "optimizer": "paged_adamw_8bit",
}  # fmt: skip
NEMO = {"full": 4096, "rank": 16, "nf4": False, "dequantized": False, "per_row": 2, "steps": 4}
SMALL = {
    "small": True, "layers": 18, "nf4": False, "dequantized": False, "dropout": 0.05, "longest": 1480,
    "steps": 60, "optimizer": "adamw",
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "kept, 8 a row": {},
    "kept, 8 a row, dropout": {"dropout": 0.05},
    "kept, 16 a row": {"per_row": 16},
    "kept, 16 a row, dropout": {"per_row": 16, "dropout": 0.05},
    "NF4, 8 a row": {"dequantized": False},
    "NF4, recompute, 8 a row, dropout": {"dequantized": False, "recompute": True, "dropout": 0.05},
    "NF4, recompute, 16 a row, dropout": {
        "dequantized": False, "recompute": True, "dropout": 0.05, "per_row": 16,
    },
    "PEFT's adapters, 8 a row": {"fuse": False},
    "PEFT's adapters, 8 a row, dropout": {"fuse": False, "dropout": 0.05},
    "no Liger, 8 a row": {"liger": False},
    "fp8, 8 a row": {"fp8": True},
    "fp8, 8 a row, dropout": {"fp8": True, "dropout": 0.05},
    "fp8, 16 a row": {"fp8": True, "per_row": 16},
    "fp8, 16 a row, dropout": {"fp8": True, "per_row": 16, "dropout": 0.05},
    "fp8, bf16 base, 8 a row, dropout": {"fp8": True, "nf4": False, "dropout": 0.05},
    "fp8, recompute, 16 a row, dropout": {
        "fp8": True, "recompute": True, "dropout": 0.05, "per_row": 16,
    },
    # What may mend what 8 bits cost, and what it costs itself.
    "fp8 with e5m2 for gradients, 16 a row, dropout": {
        "fp8": True, "per_row": 16, "dropout": 0.05, "e5m2": True,
    },
    "fp8 without the two first and last layers, 16 a row, dropout": {
        "fp8": True, "per_row": 16, "dropout": 0.05, "whole_ends": 2,
    },
    "fp8 with sums in float32, 16 a row, dropout": {
        "fp8": True, "per_row": 16, "dropout": 0.05, "fast": False,
    },
    "small, 4 a row": {**SMALL, "per_row": 4},
    "small, 8 a row": {**SMALL},
    "small, 16 a row": {**SMALL, "per_row": 16},
    "small, answer: before": {**SMALL, "answer": True, "adapter": False, "questions": 300},
    "small, answer: after": {**SMALL, "answer": True, "adapter": True, "questions": 300},
    "NeMo": NEMO,
    "NeMo, fp8": {**NEMO, "fp8": True},
    "NeMo, 4 a row, recompute": {**NEMO, "per_row": 4, "recompute": True},
    "NeMo, 4 a row, recompute, fp8": {**NEMO, "per_row": 4, "recompute": True, "fp8": True},
    # Memory alone, at a quarter of the layers.
    "m: fp8": {"layers": 8, "steps": 3, "fp8": True},
    "m: fp8, dropout, 16 a row": {"layers": 8, "steps": 3, "fp8": True, "dropout": 0.05, "per_row": 16},
    "m: fp8, recompute, bf16": {
        "layers": 8, "steps": 3, "fp8": True, "nf4": False, "recompute": True, "per_row": 16,
    },
    "m: rank 16": {"layers": 8, "rank": 16, "steps": 3},
    "m: rank 64, 4 a row, NF4": {"layers": 8, "rank": 64, "per_row": 4, "steps": 3, "dequantized": False},
    "m: bf16 base": {"layers": 8, "nf4": False, "dequantized": False, "steps": 3},
    "m: recompute, bf16": {"layers": 8, "nf4": False, "dequantized": False, "recompute": True, "steps": 3},
    "m: recompute, NF4, 16 a row": {
        "layers": 8, "recompute": True, "dequantized": False, "per_row": 16, "steps": 3,
    },
    "m: short, dropout": {"layers": 8, "longest": 300, "dropout": 0.1, "per_row": 16, "steps": 3},
    "m: long, 2 a row": {"layers": 8, "longest": 3500, "per_row": 2, "steps": 3},
    "m: long answers": {"layers": 8, "trained": 600, "steps": 3},
    "m: long answers, recompute": {
        "layers": 8, "trained": 600, "steps": 3, "recompute": True, "per_row": 16,
    },
    "answer: before": {"answer": True, "adapter": False, "questions": 300},
    "answer: after": {"answer": True, "adapter": True, "questions": 300},
    "answer: NF4": {"answer": True, "adapter": False, "questions": 100, "dequantized": False},
    "answer: fp8, before": {"answer": True, "adapter": False, "questions": 300, "fp8": True},
    "answer: fp8, after": {"answer": True, "adapter": True, "questions": 300, "fp8": True},
    # For bench/fusing.py: what compiles every kernel.
    "first use: a step": {"layers": 2, "fp8": True, "per_row": 16, "dropout": 0.05, "steps": 2},
    "first use: answers": {"layers": 2, "answer": True, "adapter": True, "questions": 8},
    "answer: batch 64": {"answer": True, "adapter": False, "questions": 192, "batch": 64},
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", help="names of cases, or their beginnings, with ; between")
    parser.add_argument(
        "--profile", help="names of cases, with ; between, whose profile is written beside --out"
    )
    parser.add_argument("--steps", type=int, help="in each case, for curves of the loss")
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    result: dict[str, Any] = {
        "format": 1,
        "device": hardware_here().name,
        "versions": {"torch": torch.__version__, "transformers": hf.__version__},
        "command": " ".join(sys.argv),
        "cases": {},
    }
    wanted = tuple((arguments.only or "").split(";"))
    built: tuple[Any, Any] = (None, None)
    for name, options in CASES.items():
        if not name.startswith(wanted):
            continue
        case = {**DEFAULT, **options}
        if arguments.tiny:
            case |= {"layers": 2, "nf4": False, "dequantized": False, "longest": 60, "steps": 3}
            case |= {
                "questions": 5,
                "full": case["full"] and 64,
                "whole_ends": 0,
            }
        case["steps"] = arguments.steps or case["steps"]
        del built
        gc.collect()
        if CUDA:
            torch.cuda.empty_cache()
        config = shape(
            case["layers"], tiny=arguments.tiny, nemo=bool(case["full"]), small=case["small"]
        )
        eight.GRADIENTS = torch.float8_e5m2 if case["e5m2"] else torch.float8_e4m3fn
        eight.FAST_SUMS = case["fast"]
        profile = None
        if arguments.profile and name.startswith(tuple(arguments.profile.split(";"))):
            profile = arguments.out.with_name(
                name.replace(" ", "-").replace(",", "").replace(":", "") + ".profile.txt"
            )
        start = time.monotonic()
        left = torch.cuda.memory_allocated() / 2**30 if CUDA else 0.0
        try:
            built = (
                build(
                    config,
                    **{k: case[k] for k in ("nf4", "dequantized", "liger", "fp8", "whole_ends")},
                ),
                None,
            )
            if case.get("answer"):
                found = ask(case, built[0], config, profile=profile)
            else:
                found = train(case, built[0], config, tiny=arguments.tiny, profile=profile)
        except Exception as error:  # noqa: BLE001 - the other cases are worth having
            found = {"failed": repr(error)[:300]}
            built = (None, None)
        if left and "peak_gib" in found:  # what the case before didn't give back isn't this one's
            found["peak_gib"] = round(found["peak_gib"] - left, 2)
            found["error"] = round(found["predicted_gib"] / found["peak_gib"] - 1, 3)
        found["total_seconds"] = round(time.monotonic() - start, 1)
        result["cases"][name] = {"options": options, **found}
        print(f"{name:38}", {k: v for k, v in found.items() if k != "losses"}, flush=True)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
