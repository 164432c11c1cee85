"""The plan: how the recipe's work is laid out on this hardware, and what memory that takes.

The effective batch is the user's. How many samples share a row, whether activations are recomputed,
whether NF4 weights are kept dequantised and how many questions are answered at a time follow from
memory: predicted here before anything is loaded, corrected when it was wrong. On CPU the plan
depends on the recipe alone, so that a run is the same on any machine of a kind.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

from ragtune.base.errors import UsageError
from ragtune.data.rows import deal
from ragtune.model.load import Hardware, has_liger
from ragtune.model.memory import PREFILL_TOKENS, Estimate, Shape, available
from ragtune.model.quantized import see_quantized
from ragtune.recipe.schema import Recipe

CPU_SAMPLES_PER_ROW = 2
CPU_EVALUATION_BATCH = 25
GPU_EVALUATION_BATCH = 256
MAX_ROW_TOKENS = 16_000
"""Longer rows gain nothing: the matrix products fill the GPU long before."""
MIN_ROW_TOKENS = 4_000
"""With shorter rows than these a GPU waits for Python; recomputing in longer ones is faster."""

Size = tuple[int, int]
"""A sample's tokens, and how many of them are trained."""

_SPARE = 0.92
"""Of the memory; the allocator's fragments and the libraries' workspaces need the rest."""
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
    changes: tuple[str, ...] = ()

    @property
    def max_samples_per_row(self) -> int:
        return self.samples_per_row if self.packed else 1

    def rows(self, batch_size: int) -> int:
        """Rows an optimizer step (the accumulation)."""
        return -(-batch_size // self.max_samples_per_row)

    def smaller(self, step: int) -> Plan | None:
        """The plan after an out-of-memory in a step: half the row, then recompute, then None."""
        if self.max_samples_per_row > 1:
            half = self.max_samples_per_row // 2
            change = f"step {step}: out of memory, {half} samples a row"
            return dataclasses.replace(self, samples_per_row=half, changes=(*self.changes, change))
        if not self.recompute:
            change = f"step {step}: out of memory, recompute activations"
            return dataclasses.replace(self, recompute=True, changes=(*self.changes, change))
        return None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Plan | None:
        """The plan that a mapping holds; None if a part is missing, so that it is made anew."""
        known = {k: v for k, v in values.items() if k in {f.name for f in dataclasses.fields(cls)}}
        try:
            return cls(**{**known, "changes": tuple(values.get("changes", ()))})
        except TypeError:  # a field without a default is not there
            return None


def make_plan(
    recipe: Recipe,
    hardware: Hardware,
    config: Any,
    steps: Sequence[Sequence[Size]],
    prompts: Sequence[int],
    memory: int | None = None,
) -> Plan:
    """Lay a recipe's work out.

    Args:
        recipe: the batch size, and what it fixes itself.
        hardware: the device.
        config: the model's configuration.
        steps: the samples' sizes, step by step.
        prompts: the evaluation prompts' lengths.
        memory: bytes of GPU memory to plan for; None asks the device.

    Raises:
        UsageError: the device can't hold the model and its adapter.
    """
    train = recipe.train
    fixed: dict[str, Any] = {
        "device": hardware.name,
        "dtype": hardware.dtype_name,
        "quantization": recipe.model.quantization,
        "optimizer": train.optimizer,
    }
    if hardware.device.type != "cuda" and memory is None:
        per_row = train.samples_per_row
        return Plan(
            **fixed,
            samples_per_row=min(
                CPU_SAMPLES_PER_ROW if per_row == "auto" else per_row, train.batch_size
            ),
            recompute=train.recompute if train.recompute != "auto" else False,
            evaluation_batch=_batch(recipe, CPU_EVALUATION_BATCH),
        )
    budget = (available(hardware.device) if memory is None else memory) * _SPARE
    quantized = see_quantized(config, hardware.device, nf4=recipe.model.quantization == "nf4")
    if quantized and not quantized.dequantized:
        fixed["quantization"] = quantized.kind
    base = estimate_of(recipe, hardware, config)
    question = max(prompts, default=0) + recipe.evaluate.max_new_tokens
    estimate, per_row = _choose(recipe, base, steps, question, budget)
    tokens, trained = row_size(steps, per_row)
    batch, cache_tokens, used = _answers(recipe, estimate, prompts, budget)
    return Plan(
        **fixed,
        samples_per_row=per_row,
        recompute=estimate.recompute,
        dequantized=estimate.dequantized,
        evaluation_batch=batch,
        cache_tokens=cache_tokens,
        memory={
            name: round(value / _GIB, 2)
            for name, value in {
                "available": budget / _SPARE,
                "weights": estimate.weights,
                "adapter": estimate.adapter,
                "gradients": estimate.gradients,
                "optimizer": estimate.moments,
                "activations": estimate.activations(tokens),
                "working": estimate.working(tokens, trained),
                "training": estimate.training(tokens, trained, -(-train.batch_size // per_row)),
                "cache": used * estimate.cached_token,
                "evaluation": estimate.evaluation(used, min(batch, len(prompts))),
            }.items()
        },
    )


def plan_answers(
    recipe: Recipe, hardware: Hardware, config: Any, prompts: Sequence[int], *, dequantized: bool
) -> tuple[int, int | None]:
    """Questions, and tokens of them in the cache, at a time, for other prompts than the run's own.

    Args:
        recipe: of the run.
        hardware: where.
        config: the model's.
        prompts: tokens of each.
        dequantized: whether NF4 weights are kept dequantised.
    """
    if hardware.device.type != "cuda":
        return _batch(recipe, CPU_EVALUATION_BATCH), None
    budget = available(hardware.device) * _SPARE
    estimate = dataclasses.replace(estimate_of(recipe, hardware, config), dequantized=dequantized)
    return _answers(recipe, estimate, prompts, budget)[:2]


def _batch(recipe: Recipe, automatic: int) -> int:
    asked = recipe.evaluate.batch_size
    return automatic if asked == "auto" else asked


def estimate_of(recipe: Recipe, hardware: Hardware, config: Any) -> Estimate:
    """What a recipe takes with NF4 weights that are not kept dequantised.

    A base that is trained quantised counts as in NF4, with its own bytes a weight; where these aren't
    known, with those of the dtype, which is a bound.
    """
    nf4 = recipe.model.quantization == "nf4"
    quantized = see_quantized(config, hardware.device, nf4=nf4)
    own = quantized.linear_bytes if quantized else None
    known = {} if own is None else {"nf4_bytes": own}
    return Estimate(
        shape=Shape.of(config, recipe),
        width=torch.empty((), dtype=hardware.dtype).element_size(),
        nf4=nf4 or own is not None,
        **known,
        dequantized=False,
        recompute=recipe.train.recompute is True,
        dropout=recipe.lora.dropout > 0,
        optimizer=recipe.train.optimizer,
        fused_kernels=has_liger(config),
    )


def _answers(
    recipe: Recipe, estimate: Estimate, prompts: Sequence[int], budget: float
) -> tuple[int, int, int]:
    """Questions at a time, cache positions at a time, and those that the first batch takes."""
    new = recipe.evaluate.max_new_tokens
    batch = _batch(recipe, GPU_EVALUATION_BATCH)
    longest = max(prompts, default=0) + new
    # The prompts of a row are read while the cache is there.
    reading = estimate.evaluation(PREFILL_TOKENS, batch) - PREFILL_TOKENS * estimate.cached_token
    positions = max(longest, int((budget - reading) // estimate.cached_token))
    used = min(batch, len(prompts), max(1, positions // longest)) * longest
    return batch, positions, used


def _choose(
    recipe: Recipe, base: Estimate, steps: Sequence[Sequence[Size]], question: int, budget: float
) -> tuple[Estimate, int]:
    """The estimate and the samples a row.

    Kept activations are worth more than dequantised weights, and both more than long rows; but below
    MIN_ROW_TOKENS recomputing in longer rows is faster than keeping. The longest `question`, in
    tokens with its answer, must fit too.
    """
    train = recipe.train
    asked = None if train.samples_per_row == "auto" else train.samples_per_row
    whole = sum(tokens for tokens, _ in steps[0]) if steps else 0
    sizes = cache(lambda count: row_size(steps, count))

    def longest(count: int) -> int:
        return sizes(count)[0]

    def rows(estimate: Estimate) -> int:
        """Samples a row that fit; 0 if not even one does."""
        if asked is not None:
            counts = [min(asked, train.batch_size)]
        else:
            # Of every number of rows the fewest samples a row.
            numbers = range(1, train.batch_size + 1)
            counts = sorted({-(-train.batch_size // n) for n in numbers}, reverse=True)
        for count in counts:
            tokens, trained = sizes(count)
            fits = max(
                estimate.training(tokens, trained, -(-train.batch_size // count)),
                estimate.evaluation(question, 1),
            )
            short = asked is not None or tokens <= max(MAX_ROW_TOKENS, longest(1))
            if short and fits <= budget:
                return count
        return 0

    nf4 = recipe.model.quantization == "nf4"
    kinds = ((True,) if base.shape.by_weight else (True, False)) if nf4 else (False,)
    choices = [
        (dequantized, recompute)
        for recompute in ((False, True) if train.recompute == "auto" else (train.recompute,))
        for dequantized in kinds
    ]
    fallback: tuple[Estimate, int] | None = None
    for dequantized, recompute in choices:
        estimate = dataclasses.replace(base, dequantized=dequantized, recompute=recompute)
        count = rows(estimate)
        if not count:
            continue
        tokens = longest(count)
        if asked is not None or tokens >= min(MIN_ROW_TOKENS, 0.9 * whole):
            return estimate, count
        if fallback is None or tokens > longest(fallback[1]):
            fallback = (estimate, count)
    if fallback:
        return fallback
    smallest = dataclasses.replace(
        base, recompute=train.recompute is not False, dequantized=kinds[-1]
    )
    needed = smallest.training(*sizes(1), train.batch_size)
    if smallest.weights + smallest.adapter + smallest.gradients + smallest.moments > budget:
        raise UsageError(
            f"The run needs about {needed / _GIB:.1f} GiB of GPU memory; "
            f"{budget / _SPARE / _GIB:.1f} GiB are there.",
            ("" if base.nf4 else "Set model.quantization=nf4. ")
            + "Set train.optimizer=paged_adamw_8bit, a lower lora.rank or prompt.max_tokens, or "
            "choose a smaller model.",
        )
    # The formulas may be wrong by a little; what is too much is halved when it turns out to be.
    return smallest, min(asked or 1, train.batch_size)


def row_size(steps: Sequence[Sequence[Size]], per_row: int) -> Size:
    """Tokens of the longest row, and most trained ones of a row, when steps are dealt into rows."""
    rows = [
        row for step in steps for row in deal(step, -(-len(step) // per_row), lambda size: size[0])
    ]
    tokens, trained = ([sum(size[i] for size in row) for row in rows] for i in (0, 1))
    return max(tokens, default=0), max(trained, default=0)


def describe(plan: Plan, batch_size: int) -> list[str]:
    """The plan for steps of so many samples in words, a line each; nothing about memory on a CPU."""
    samples, count = plan.max_samples_per_row, plan.rows(batch_size)
    rows = (
        f"Plan: {samples} sample{'s' * (samples > 1)} a row, {count} row{'s' * (count > 1)} a step, "
        f"activations {'recomputed' if plan.recompute else 'kept'}"
    )
    m = plan.memory
    if plan.cache_tokens is None or not m:
        return [f"{rows}; {plan.evaluation_batch} questions at a time"]
    form = f" ({plan.quantization})" if plan.quantization else ""
    if plan.quantization == "nf4":
        form = " in NF4, kept dequantised" if plan.dequantized else " in NF4"
    return [
        f"{rows}; questions of {plan.cache_tokens:,} tokens in all at a time",
        (
            f"Memory to train: {m['training']:.1f} of {m['available']:.1f} GiB: weights{form} "
            f"{m['weights']:.1f}, adapter {m['adapter']:.1f}, gradients {m['gradients']:.1f}, "
            f"optimizer {m['optimizer']:.1f}, activations of the longest row {m['activations']:.1f}, "
            f"working memory {m['working']:.1f}"
        ),
        f"Memory to answer: {m['evaluation']:.1f} GiB, keys and values {m['cache']:.1f} of it",
        *(["This may be too much: what does not fit is halved then."] if is_tight(plan) else []),
    ]


def is_tight(plan: Plan) -> bool:
    """Whether more memory is predicted than should be taken."""
    m = plan.memory
    return bool(m) and max(m["training"], m["evaluation"]) > m["available"] * _SPARE
