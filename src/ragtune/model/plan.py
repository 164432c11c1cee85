"""The plan: how the recipe's work is laid out on this hardware, and what memory that takes.

The effective batch is the user's. How many samples share a row, whether activations are recomputed,
whether NF4 weights are kept dequantised and how many questions are answered at a time follow from
memory: predicted here before anything is loaded, corrected when it was wrong. On CPU the plan
depends on the recipe and the dtype alone, so that a run is the same on any machine of a kind.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from transformers import PreTrainedConfig

from ragtune.base.errors import UsageError
from ragtune.model.fast.liger import has_liger
from ragtune.model.hardware import Hardware, answering_alone
from ragtune.model.layout import SPARE, Size, choose_rows, row_size, share_of, share_out
from ragtune.model.memory import NF4_BYTES, Estimate, Shape, available, prefill_tokens
from ragtune.model.quantized import Quantized, quantization_of
from ragtune.recipe.schema import Recipe

CPU_SAMPLES_PER_ROW = 2
"""At least."""
CPU_ROW_TOKENS = 2_048
"""A row's on a CPU, if that many samples don't have more: each row fetches the weights from memory anew
(SmolLM2-135M on an AMD EPYC, 1,786 tokens: 8.5 s of processor time in 4 rows, 7.5 in 2, 6.9 in 1)."""
EVALUATION_BATCH = {"cpu": 50, "cuda": 25, "mps": 25}
"""Questions at a time where no memory is planned (there a token of each of 100 answers takes 0.80 s by 25)."""
GPU_EVALUATION_BATCH = 256
_GIB = 2**30


@dataclass(frozen=True)
class Plan:
    """What was chosen for this hardware; written to run.json before the first step and kept.

    `memory` is what the run is predicted to need at its peaks, in GiB; empty on a CPU.
    """

    device: str
    dtype: str
    quantization: str | None
    samples_per_row: int
    recompute: bool
    optimizer: str
    evaluation_batch: int
    dequantized: bool = False
    cache_tokens: int | None = None
    packed: bool = True
    packed_reason: str = ""
    memory: dict[str, float] = field(default_factory=dict)
    ranks: int = 1
    """The GPUs that share a step; each has a row of its own at a time."""
    spread: bool = False
    """Whether the base's weights are spread over them, and not whole on each."""
    products: str | None = None
    """fp8: those of the frozen weights are in 8 bits in training; None: in the dtype."""
    full: bool = False
    """Whether all weights are trained."""
    graphs: str = ""
    """How rows run as CUDA graphs, where they do: found while it trains."""
    shared_prefix: bool = False
    """Whether a row has what its prompts begin with once: tried on a CPU, where nothing is drawn."""
    changes: tuple[str, ...] = ()
    dtype_reason: str = ""

    @property
    def shares(self) -> int:
        """The GPUs that share the base's weights."""
        return self.ranks if self.spread else 1

    @property
    def max_samples_per_row(self) -> int:
        return self.samples_per_row if self.packed else 1

    def rows(self, batch_size: int) -> int:
        """Rows of a rank an optimizer step (the accumulation)."""
        return -(-share_of(batch_size, self.ranks) // self.max_samples_per_row)

    def smaller(self, step: int) -> Plan | None:
        """The plan after an out-of-memory in a step: half the row, then recompute, then None."""
        if self.max_samples_per_row > 1:
            half = self.max_samples_per_row // 2
            change = f"step {step}: out of memory, {half} sample{'s' * (half > 1)} a row"
            return dataclasses.replace(self, samples_per_row=half, changes=(*self.changes, change))
        if not self.recompute:
            change = f"step {step}: out of memory, recompute activations"
            return dataclasses.replace(self, recompute=True, changes=(*self.changes, change))
        return None

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` reads again, for JSON."""
        return {**dataclasses.asdict(self), "changes": list(self.changes)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Plan | None:
        """The plan that a mapping holds; None if a part is missing, so that it is made anew."""
        own = fields(cls)
        if any(f.name not in values for f in own if f.default is f.default_factory is MISSING):
            return None
        known = {f.name: values[f.name] for f in own if f.name in values}
        return cls(**{**known, "changes": tuple(values.get("changes", ()))})


def make_plan(
    recipe: Recipe,
    hardware: Hardware,
    config: PreTrainedConfig,
    steps: Sequence[Sequence[Size]],
    prompts: Sequence[int],
    memory: int | None = None,
    ranks: int = 1,
) -> Plan:
    """Lay a recipe's work out.

    Args:
        recipe: the batch size, and what it fixes itself.
        hardware: the device.
        config: the model's configuration.
        steps: the samples' sizes, step by step.
        prompts: the evaluation prompts' lengths.
        memory: bytes of GPU memory to plan for; None asks the device.
        ranks: GPUs that share every step.

    Raises:
        UsageError: the device can't hold the model and what is trained, or not multiply it as is asked.
    """
    recipe, steps = _of_a_rank(recipe, steps, ranks)
    plan = bare_plan(recipe, hardware, ranks)
    if hardware.device.type != "cuda" and memory is None:
        return _on_cpu(plan, recipe, steps) if hardware.device.type == "cpu" else plan
    budget = (available(hardware) if memory is None else memory) * SPARE
    quantized = quantization_of(config, hardware.device, nf4=plan.quantization == "nf4")
    if quantized and not quantized.dequantized:
        _require_plain_products(recipe, quantized)
        plan = dataclasses.replace(plan, quantization=quantized.kind)
    base = dataclasses.replace(estimate_of(recipe, hardware, config), memory=budget)
    question = max(prompts, default=0) + recipe.evaluate.max_new_tokens
    estimate, samples = choose_rows(recipe, base, steps, question, budget, ranks)
    tokens, trained = row_size(steps, samples)
    batch, cache_tokens, used, answering = _answers(recipe, estimate, prompts, budget)
    peaks = {
        "available": budget / SPARE,
        "weights": estimate.weights,
        "adapter": estimate.adapter + estimate.rounded,
        "gradients": estimate.gradients,
        "optimizer": estimate.moments,
        "activations": estimate.activations(tokens),
        "working": estimate.working(tokens, trained),
        "training": estimate.training(tokens, trained, -(-recipe.train.batch_size // samples)),
        "cache": used * estimate.cached_token,
        "evaluation": answering,
        **_between_steps(recipe, estimate, prompts, budget),
    }
    return dataclasses.replace(
        plan,
        samples_per_row=samples,
        recompute=estimate.recompute,
        dequantized=estimate.dequantized,
        spread=estimate.shares > 1,
        evaluation_batch=batch,
        cache_tokens=cache_tokens,
        memory={name: round(value / _GIB, 2) for name, value in peaks.items()},
    )


def _on_cpu(plan: Plan, recipe: Recipe, steps: Sequence[Sequence[Size]]) -> Plan:
    """The plan with rows as long as is good for a CPU, in as many as then are needed."""
    batch, least = recipe.train.batch_size, plan.samples_per_row
    if recipe.train.samples_per_row != "auto" or not steps:
        return plan
    even = {-(-batch // rows) for rows in range(1, batch + 1)}
    fit = [n for n in even if n > least and row_size(steps, n)[0] <= CPU_ROW_TOKENS]
    return dataclasses.replace(plan, samples_per_row=max(fit, default=least))


def _require_plain_products(recipe: Recipe, quantized: Quantized) -> None:
    """Refuse products in 8 bits of a base that is trained as it came, quantised."""
    if recipe.in_8_bits:
        raise UsageError(
            f"{recipe.in_8_bits}: fp8: the base is quantised ({quantized.kind}) and trained as it is: "
            "its weights are no numbers that 8 bits could hold.",
            f"Set {recipe.in_8_bits}=null, or name the model as it was before it was quantised.",
        )


def _of_a_rank(
    recipe: Recipe, steps: Sequence[Sequence[Size]], ranks: int
) -> tuple[Recipe, list[list[Size]]]:
    """What one of several GPUs sees: a recipe with its share of the batch, and every share of every step."""
    share = share_of(recipe.train.batch_size, ranks)
    train = recipe.train.model_copy(update={"batch_size": share})
    dealt = [one for step in steps for one in share_out(step, ranks, lambda size: size[0])]
    return recipe.model_copy(update={"train": train}), dealt


def bare_plan(recipe: Recipe, hardware: Hardware, ranks: int) -> Plan:
    """The plan that follows from the recipe alone: on a CPU, and where nothing is trained."""
    train = recipe.train
    per_row = CPU_SAMPLES_PER_ROW if train.samples_per_row == "auto" else train.samples_per_row
    return Plan(
        device=hardware.name,
        dtype=hardware.dtype_name,
        dtype_reason=hardware.reason,
        quantization=recipe.model.quantization,
        samples_per_row=min(per_row, train.batch_size),
        recompute=train.recompute is True,
        optimizer=train.optimizer,
        evaluation_batch=_batch(recipe, EVALUATION_BATCH[hardware.device.type]),
        ranks=ranks,
        products=train.products,
        full=recipe.full,
    )


def plan_answers(
    recipe: Recipe,
    hardware: Hardware,
    config: PreTrainedConfig,
    prompts: Sequence[int],
    *,
    dequantized: bool,
    shares: int = 1,
    training: bool = False,
) -> tuple[int, int | None]:
    """Questions, and tokens of them in the cache, at a time, for other prompts than the run's own.

    Args:
        recipe: the batch, if it sets it.
        hardware: the device.
        config: the model's configuration.
        prompts: the tokens of each.
        dequantized: whether NF4 weights are kept dequantised.
        shares: GPUs that the weights are spread over.
        training: whether they are asked between two steps, beside the optimizer's moments.
    """
    if hardware.device.type != "cuda":
        return _batch(recipe, EVALUATION_BATCH[hardware.device.type]), None
    budget = available(hardware) * SPARE
    estimate = estimate_of(recipe if training else answering_alone(recipe), hardware, config)
    whole = dequantized or recipe.evaluate.products == "fp8"
    estimate = dataclasses.replace(estimate, dequantized=whole, shares=shares, memory=budget)
    beside = estimate.moments if training else 0
    return _answers(recipe, estimate, prompts, budget - beside)[:2]


def _batch(recipe: Recipe, automatic: int) -> int:
    asked = recipe.evaluate.batch_size
    return automatic if asked == "auto" else asked


def estimate_of(recipe: Recipe, hardware: Hardware, config: PreTrainedConfig) -> Estimate:
    """What a recipe takes with NF4 weights that are not kept dequantised.

    A base that is trained quantised counts as in NF4, with its own bytes a weight; where these aren't
    known, with those of the dtype, which is a bound.
    """
    nf4 = recipe.model.quantization == "nf4"
    quantized = quantization_of(config, hardware.device, nf4=nf4)
    own = quantized.linear_bytes if quantized else None
    return Estimate(
        shape=Shape.of(config, recipe),
        width=hardware.dtype.itemsize,
        nf4=nf4 or own is not None,
        nf4_bytes=NF4_BYTES if own is None else own,
        dequantized=False,
        recompute=recipe.train.recompute is True,
        dropout=recipe.lora.dropout > 0 and not recipe.full,
        optimizer=recipe.train.optimizer,
        fp8=recipe.in_8_bits is not None,
        averaged=recipe.train.average_last > 0,
        fused_kernels=has_liger(config),
    )


def _answers(
    recipe: Recipe, estimate: Estimate, prompts: Sequence[int], budget: float
) -> tuple[int, int, int, float]:
    """Questions at a time, cache positions at a time, those that the first batch takes, and its peak."""
    new = recipe.evaluate.max_new_tokens
    batch = _batch(recipe, GPU_EVALUATION_BATCH)
    longest = max(prompts, default=0) + new
    # The prompts of a row are read while the cache is there.
    row = prefill_tokens(estimate.shape.parameters)
    reading = estimate.evaluation(row, batch) - row * estimate.cached_token
    positions = max(longest, int((budget - reading) // estimate.cached_token))
    asked = min(batch, len(prompts) * recipe.evaluate.orders)
    used = min(asked, max(1, positions // longest)) * longest
    return batch, positions, used, estimate.evaluation(used, asked)


def _between_steps(
    recipe: Recipe, estimate: Estimate, prompts: Sequence[int], budget: float
) -> dict[str, float]:
    """The peak of the answers to `train.eval_answers`, beside the optimizer's moments; {} without any."""
    if recipe.train.eval_answers is None:
        return {}
    asked = sorted(prompts, reverse=True)[: recipe.train.eval_answers]
    # A whole model's weights are in float32 meanwhile.
    beside = estimate.moments + (estimate.adapter if recipe.full else 0)
    return {"asking": beside + _answers(recipe, estimate, asked, budget - beside)[-1]}


def describe(plan: Plan, batch_size: int) -> list[str]:
    """The plan for steps of so many samples in words, a line each; nothing about memory on a CPU."""
    samples, count = plan.max_samples_per_row, plan.rows(batch_size)
    rows = (
        f"Plan: {samples} sample{'s' * (samples > 1)} a row, {count} row{'s' * (count > 1)} a step, "
        f"activations {'recomputed' if plan.recompute else 'kept'}"
        + (", what its prompts begin with once" if plan.shared_prefix else "")
        + (f", on each of {plan.ranks} ranks" if plan.ranks > 1 else "")
    )
    m, batch = plan.memory, plan.evaluation_batch
    if plan.cache_tokens is None or not m:
        return [f"{rows}; {batch} question{'s' * (batch > 1)} at a time"]
    form = f" ({plan.quantization})" if plan.quantization else ""
    if plan.quantization == "nf4":
        form = " in NF4, kept dequantised" if plan.dequantized else " in NF4"
    if plan.products == "fp8":
        of_nf4 = f"in two layouts{' of what NF4 makes of them' if plan.quantization else ''}"
        packed = plan.quantization == "nf4" and not plan.dequantized
        form = " in NF4, rounded to FP8 at every use," if packed else f" in FP8, {of_nf4},"
    if plan.full:
        form = f" in {plan.dtype}, for the products,"
    if plan.spread:
        form += f", spread over {plan.ranks} GPUs,"
    return [
        f"{rows}; questions of {plan.cache_tokens:,} tokens in all at a time",
        (
            f"Memory to train: {m['training']:.1f} of {m['available']:.1f} GiB: weights{form} "
            f"{m['weights']:.1f}, {'weights in float32' if plan.full else 'adapter'} "
            f"{m['adapter']:.1f}, gradients {m['gradients']:.1f}, "
            f"optimizer {m['optimizer']:.1f}, activations of the longest row {m['activations']:.1f}, "
            f"working memory {m['working']:.1f}"
        ),
        f"Memory to answer: {m['evaluation']:.1f} GiB, keys and values {m['cache']:.1f} of it"
        + (f"; between steps {m['asking']:.1f} GiB" if "asking" in m else ""),
        *(["This may be too much: what does not fit is halved then."] if is_tight(plan) else []),
    ]


def is_tight(plan: Plan) -> bool:
    """Whether more memory is predicted than should be taken."""
    m = plan.memory
    needed = max(m.get(name, 0.0) for name in ("training", "evaluation", "asking"))
    return bool(m) and needed > m["available"] * SPARE
