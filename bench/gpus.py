"""What several GPUs would bring: a prediction from what one took, and no measurement.

    python bench/gpus.py --out bench/results/gpus-predicted.json

The compute is that of the results beside it, measured on one H100; what travels is counted by the plan's
own formulas; the links' speeds are those of their data sheets, of which a share is assumed to be reached.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from ragtune.model.hardware import Hardware
from ragtune.model.memory import Shape
from ragtune.model.plan import make_plan
from ragtune.recipe.load import load_recipe

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench/results"
GPUS = (1, 2, 4, 8)
LINKS = {
    "NVLink 4 (H100 SXM), 450 GB/s": 450.0,
    "PCIe 5 x16, 64 GB/s": 64.0,
    "PCIe 4 x16, 32 GB/s": 32.0,
    "between nodes, 400 Gbit/s": 50.0,
    "between nodes, 100 Gbit/s": 12.5,
    "between nodes, 10 Gbit/s": 1.25,
}
"""GB/s each way, by data sheet."""
REACHED = 0.7
"""Of that, by assumption."""
BACKWARD = 2 / 3
"""Of a step's compute, during which gradients travel: it computes twice what the forward pass does."""
PIECE = 128 * 2**20
"""Bytes of the last piece of the gradients, which travels when there is nothing left to compute."""
LENGTH = 762
"""Tokens of each of the 16 samples of a step, so that they are as many as in the longest that was measured."""
PARTS = {
    "step": "a step",
    "before": "637 questions before tuning",
    "after": "637 questions after tuning",
    "run": "the whole run",
}
MEMORY = 79.1
"""GiB of an H100 that a process may have."""


@dataclass(frozen=True)
class Measured:
    """Seconds on one GPU."""

    step: float
    row: float
    """More with every row that a step is cut into."""
    optimizer: float
    before: float
    after: float
    run: float
    steps: int = 100

    @property
    def first(self) -> float:
        """Loading and compiling the kernels, which the first answers wait for; every rank does it."""
        return self.before - self.after

    @property
    def rest(self) -> float:
        """Of a run, that isn't shared out."""
        return self.run - self.steps * self.step - self.before - self.after


def measured() -> Measured:
    rows = {r["work"]: r["seconds"] for r in _read("side-by-side-h100") if r["system"] == "ragtune"}
    cases = _result("step-h100")["cases"]
    profile = _result("profile-h100")["cases"]["kept, 16 a row, dropout"]["profile"]["rows"]
    optimizer = next(r for r in profile if r["name"] == "Optimizer.step#AdamW.step")
    one, two = (cases[f"kept, {count} a row, dropout"]["step_seconds"] for count in (16, 8))
    return Measured(
        step=rows["train_step"],
        row=two - one,
        optimizer=optimizer["self_cuda_ms"] / 1000,
        before=rows["evaluate_before"],
        after=rows["evaluate_after"],
        run=rows["run"],
    )


def _result(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
    return found


def _read(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = _result(name)["rows"]
    return rows


def step(one: Measured, gpus: int, gradient: int, link: float) -> float:
    """Seconds of a step of the same samples on so many GPUs, each with one row."""
    compute = (one.step - one.row - one.optimizer) / gpus + one.row
    if gpus == 1:
        return compute + one.optimizer
    speed = link * 1e9 * REACHED
    # Each GPU sends and receives so much of it in a ring: once for the sums, once to tell them.
    ring = 2 * (gpus - 1) / gpus
    waited = max(ring * PIECE / speed, ring * gradient / speed - BACKWARD * compute)
    return compute + waited + one.optimizer


def run(one: Measured, gpus: int, gradient: int, link: float) -> dict[str, float]:
    """Seconds of the whole run and of its parts."""
    each = step(one, gpus, gradient, link)
    before, after = (one.after / gpus + one.first, one.after / gpus)
    return {
        "step": each,
        "before": before,
        "after": after,
        "run": one.rest + one.steps * each + before + after,
    }


def llama(layers: int, hidden: int, inner: int, kv_heads: int, vocabulary: int) -> Any:
    return hf.LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=hidden // 128, num_key_value_heads=kv_heads, max_position_embeddings=4096,
    )  # fmt: skip


SHAPES = {"7B": llama(32, 4096, 11008, 32, 43176), "70B": llama(80, 8192, 28672, 8, 128256)}


def cost(name: str, rank: int) -> dict[str, Any]:
    """The plan of the notebook's run with a base of this shape on one H100, and the GPU's time for it."""
    recipe = load_recipe(ROOT / "recipes/aio-swallow-7b.yaml", [f"lora.rank={rank}"])
    hardware = Hardware(torch.device("cuda", 0), torch.bfloat16, "", "H100")
    memory = int(MEMORY * 2**30)
    plan = make_plan(
        recipe, hardware, SHAPES[name], [[(LENGTH, 7)] * 16], [LENGTH] * 637, memory=memory
    )
    shape, small = Shape.of(SHAPES[name], recipe), Shape.of(SHAPES["7B"], recipe)
    times = {
        r["work"]: r["seconds"] for r in _read("side-by-side-h100") if r["system"] == "ragtune"
    }
    # Recomputed activations over weights that stay in NF4 are what was measured within 12 GiB.
    a_step = times["train_step_12gib" if plan.recompute else "train_step"]
    larger, one = shape.linear / small.linear, measured()
    seconds = larger * (one.steps * a_step + one.before + one.after) + one.rest
    return {
        "rank": rank,
        "linear_parameters": shape.linear,
        "gradient_bytes": 4 * shape.trained,
        "training_gib": plan.memory["training"],
        "samples_per_row": plan.samples_per_row,
        "recompute": plan.recompute,
        "dequantized": plan.dequantized,
        "step_gpu_seconds": round(larger * a_step, 2),
        "run_gpu_hours": round(seconds / 3600, 3),
        "million_tokens_gpu_hours": round(larger * a_step / (16 * 714.3) * 1e6 / 3600, 3),
    }


def links(one: Measured, gradient: int) -> dict[str, Any]:
    """Seconds of a run and its parts, by link and number of GPUs."""
    return {
        name: {
            str(gpus): {k: round(v, 3) for k, v in run(one, gpus, gradient, link).items()}
            for gpus in GPUS
        }
        for name, link in LINKS.items()
    }


def predicted() -> dict[str, Any]:
    """Everything, rounded."""
    one = measured()
    costs = {f"{name}, rank {rank}": cost(name, rank) for name in SHAPES for rank in (128, 16)}
    gradient = costs["7B, rank 128"]["gradient_bytes"]
    return {
        "format": 1,
        "what": "a prediction, and no measurement: no run was made on more than one GPU",
        "command": "python bench/gpus.py --out bench/results/gpus-predicted.json",
        "from": ["side-by-side-h100.json", "step-h100.json", "profile-h100.json"],
        "gradient_bytes": gradient,
        "reached_share_of_links": REACHED,
        "links": links(one, gradient),
        "costs": costs,
    }


def tables(found: dict[str, Any]) -> list[list[str]]:
    """What docs/gpus.md shows of it: steps by link, the run with NVLink, what it costs."""
    steps = ["| link, each way | 2 GPUs | 4 GPUs | 8 GPUs |", "|---|---|---|---|"]
    for name, counts in found["links"].items():
        steps.append(f"| {name} | {' | '.join(_cells(counts, 'step')[1:])} |")
    whole = ["| | 1 GPU, measured | 2 GPUs | 4 GPUs | 8 GPUs |", "|---|---|---|---|---|"]
    counts = next(iter(found["links"].values()))
    for part, words in PARTS.items():
        whole.append(f"| {words} | {' | '.join(_cells(counts, part))} |")
    head = "base", "rank", "memory to train", "a step of 16 samples", "the notebook's run"
    cost = [f"| {' | '.join((*head, 'a million tokens trained'))} |", f"|{'---|' * 6}"]
    for name, one in found["costs"].items():
        cost.append(
            f"| {name.partition(',')[0]} | {one['rank']} | {one['training_gib']:.0f} GiB | "
            f"{one['step_gpu_seconds']:.1f} s | {one['run_gpu_hours']:.2f} GPU hours | "
            f"{one['million_tokens_gpu_hours']:.3f} GPU hours |"
        )
    return [steps, whole, cost]


def _cells(counts: dict[str, dict[str, float]], part: str) -> list[str]:
    """Seconds by number of GPUs, and how many times as fast as one."""
    alone, digits = counts["1"][part], 2 if part == "step" else 1
    more = [counts[str(n)][part] for n in GPUS[1:]]
    return [f"{alone:.{digits}f} s", *(f"{s:.{digits}f} s, {alone / s:.2f} ×" for s in more)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path)
    out = parser.parse_args().out
    found = predicted()
    if out:
        out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    print("\n\n".join(map("\n".join, tables(found))))


if __name__ == "__main__":
    main()
