"""What a run needs of this machine, against what there is: memory, host memory for merging, disk."""

from __future__ import annotations

import shutil

import torch

from ragtune.base.disk import existing_parent
from ragtune.base.errors import UsageError
from ragtune.base.memory import available_memory
from ragtune.base.text import one_or_many, size_of
from ragtune.model.cpu_dtype import is_measured
from ragtune.model.hardware import choose_hardware
from ragtune.model.memory import Estimate, smallest
from ragtune.model.merge import memory_needed
from ragtune.model.pissa import unlike
from ragtune.model.plan import Plan, describe, estimate_of, is_tight, make_plan
from ragtune.model.quantized import quantization_of, require_mergeable
from ragtune.model.skeleton import skeleton
from ragtune.model.targets import find_targets
from ragtune.recipe.schema import Recipe
from ragtune.stages.check.directory import (
    as_gguf,
    checkpoint_bytes,
    merged,
    place,
    prepared,
    trained,
)
from ragtune.stages.check.findings import Look
from ragtune.stages.context import Context
from ragtune.stages.ranks import devices_of


def hardware(look: Look) -> None:
    recipe = look.run.recipe
    chosen = choose_hardware(recipe)
    if is_measured(chosen, recipe):
        look.say(chosen.name)
    else:
        chosen = look.run.hardware
        words = f"{chosen.name}; {chosen.dtype_name} ({chosen.reason})"
        words += ", weights in NF4" if recipe.model.quantization else ""
        look.say(words + _in_8_bits(recipe))
    if (count := look.run.rank_count) > 1:
        look.say(
            f"{count} processes share the work" + (_gpus(look) if len(chosen.gpus) > 1 else "")
        )
    if len({gpu.name for gpu in chosen.gpus}) > 1:
        look.warn(
            f"the GPUs differ: {chosen.name}",
            "Each step waits for the slowest, and each has as much of it. To use those alone that are alike, "
            "set devices to a list of their numbers.",
        )
        if recipe.lora.init == "pissa" and not recipe.full:
            look.fail(unlike())


def _in_8_bits(recipe: Recipe) -> str:
    """What of a recipe's work has products in 8 bits, in words."""
    asked = {"training": recipe.train.products, "answers": recipe.evaluate.products}
    found = " and ".join(what for what, products in asked.items() if products)
    return f", products of the frozen ones in FP8 for {found}" if found else ""


def dtype(look: Look) -> None:
    """The dtype on a CPU, where it is measured with layers as wide as the model's."""
    recipe = look.run.recipe
    if is_measured(choose_hardware(recipe), recipe):
        chosen = look.run.hardware
        look.say(f"{chosen.dtype_name} ({chosen.reason})")


def _gpus(look: Look) -> str:
    """Which GPUs of this machine they have."""
    numbers, size = sorted(devices_of(look.run.recipe)), size_of(smallest(look.run.hardware))
    named = ", ".join(map(str, numbers))
    unused = torch.cuda.device_count() - len(numbers)
    more = f" ({unused} more not used)" if unused else ""
    return f", on the GPUs {named}{more}; planned for the smallest, {size}"


def memory(look: Look) -> None:
    """What memory the run will need; before the data are prepared the first records stand for all."""
    run = look.run
    plan = run.plan if prepared(run) else _plan_by_first_records(look)
    if plan is None:
        look.warn(
            "not known yet: no record that would be selected was read",
            "`ragtune prepare` reads them all; then this check knows.",
        )
        return
    base = quantization_of(run.config, run.hardware.device)
    if plan.memory and base and not base.dequantized and base.linear_bytes is None:
        look.say(
            f"what {base.kind} takes is not known: the weights are counted as if they were in "
            f"{plan.dtype}, which is more"
        )
    for line in describe(plan, run.recipe.train.batch_size):
        look.say(line.rstrip("."), "warning" if is_tight(plan) else "ok")


def _plan_by_first_records(look: Look) -> Plan | None:
    """The plan if all data were like the records that were read; None if none of these is selected."""
    run, train = look.run, look.examples.get("train")
    if not train or not look.examples.get("eval"):
        return None
    batch = run.recipe.train.batch_size
    pairs = zip(look.prompts["train"], run.encoder.targets(train), strict=True)
    sizes = [(len(p.ids) + len(target), len(target)) for p, target in pairs if p is not None]
    prompts = [len(p.ids) for p in look.prompts["eval"] if p is not None]
    steps = [(sizes * batch)[i : i + batch] for i in range(0, len(sizes), batch)]
    return make_plan(run.recipe, run.hardware, run.config, steps, prompts, ranks=run.rank_count)


def looks(look: Look) -> None:
    """What the answers to train.eval_answers cost beside the training, by the tokens that are computed."""
    train, found = look.run.recipe.train, _tokens(look)
    if train.eval_answers is None or train.eval_every is None or found is None:
        return
    steps, sample, questions, answer = found
    times = steps // train.eval_every
    if times == 0:
        look.warn(
            f"no question is asked: the {one_or_many(steps, 'step ends', 'steps end')} before "
            f"train.eval_every = {train.eval_every:,}",
            "Set train.eval_every lower.",
        )
        return
    count = min(train.eval_answers, questions)
    # A trained token is read once, and goes back through the model at twice the cost.
    answers = times * count * look.run.recipe.evaluate.orders
    share = answers * answer / (3 * steps * train.batch_size * sample)
    words = f"{one_or_many(count, 'question')} at each of {one_or_many(times, 'look')}"
    if share > 1:
        look.warn(
            f"{words}: answering them computes about {share:.1f} times what the training does",
            "Set train.eval_answers lower, or train.eval_every higher.",
        )
    else:
        look.say(f"{words}: about {100 * max(share, 0.01):.0f} % of what the training computes")


def _tokens(look: Look) -> tuple[int, float, int, float] | None:
    """Steps, tokens of a sample, questions, and tokens of one with its answer; None if none is known yet.

    Before the data are prepared the first records stand for all.
    """
    run, train = look.run, look.run.recipe.train
    if prepared(run):
        samples = [len(s) for step in run.steps for s in step]
        steps, prompts, questions = len(run.steps), run.prompt_lengths, len(run.selected)
    else:
        samples = [len(p.ids) for p in look.prompts.get("train", []) if p is not None]
        prompts = [len(p.ids) for p in look.prompts.get("eval", []) if p is not None]
        questions = look.chosen.get("eval", len(prompts))
        examples = look.chosen.get("train", len(samples))
        steps = train.steps or max(1, round((train.epochs or 0) * examples / train.batch_size))
    if not samples or not prompts:
        return None
    answer = sum(prompts) / len(prompts) + run.recipe.evaluate.max_new_tokens
    return steps, sum(samples) / len(samples), questions, answer


def merging(look: Look) -> None:
    run = look.run
    if run.recipe.publish.format == "adapter" or merged(run):
        return
    require_mergeable(quantization_of(run.config, run.hardware.device))
    if run.recipe.full:  # there is nothing to merge
        needed = 4 * skeleton(run.config).num_parameters()
    else:
        targets = find_targets(run.config, run.recipe.lora)
        whole = run.recipe.lora.dora or bool(targets.by_weight)
        adapter = estimate_of(run.recipe, run.hardware, run.config).adapter
        needed = memory_needed(run.config, targets.experts, whole=whole) + int(adapter)
    available = available_memory()
    if available is not None and needed > available:
        raise UsageError(
            f"Merging needs about {size_of(needed)} of memory; {size_of(available)} are available here.",
            "Let `ragtune merge` run on another machine."
            if run.recipe.full
            else "Set publish.format=adapter: the adapter alone can be published from here, and merged on "
            "another machine with `ragtune merge`.",
        )
    look.say(f"needs about {size_of(needed)} of memory")


def training_parts(run: Context, estimate: Estimate) -> dict[str, float]:
    """Bytes on disk that the training has yet to write, by what they are."""
    if trained(run):
        return {}
    moments = 2.0 if run.recipe.train.optimizer == "adamw" else 0.5
    mean = 1 if run.recipe.train.average_last else 0  # of the weights, beside them
    # One more than is kept: a checkpoint is whole before an older one goes.
    kept = run.recipe.train.keep_checkpoints + 1
    checkpoints = estimate.adapter * (1 + moments + mean) * kept - checkpoint_bytes(run)
    what = "tuned model" if run.recipe.full else "adapter"
    return {"checkpoints": max(0.0, checkpoints), what: estimate.adapter}


def disk(look: Look) -> None:
    """Checkpoints, adapter, merged model and GGUF files against the space that is free."""
    run = look.run
    estimate = estimate_of(run.recipe, run.hardware, run.config)
    parts = training_parts(run, estimate)
    weights = estimate.shape.linear + estimate.shape.other
    if run.recipe.publish.format != "adapter" and not merged(run):
        parts["merged model"] = 2.0 * weights  # in bf16
    if run.recipe.publish.format == "gguf" and not as_gguf(run):
        parts["GGUF files"] = (2.0 + 34 / 32) * weights  # in bf16, and in Q8_0
    if not parts:
        look.say("everything large is there already")
        return
    needed, free = sum(parts.values()), shutil.disk_usage(existing_parent(place(run))).free
    words = ", ".join(f"{name} {size_of(size)}" for name, size in parts.items())
    if needed > free:
        raise UsageError(
            f"The run needs about {size_of(needed)} of disk ({words}); {size_of(free)} are free at "
            f"{place(run)}.",
            "Choose another place with --run-dir, set "
            + ("tuning=lora" if run.recipe.full else "publish.format=adapter")
            + ", or lower train.keep_checkpoints.",
        )
    look.say(f"about {size_of(needed)} of {size_of(free)} that are free: {words}")
