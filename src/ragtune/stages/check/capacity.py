"""What a run needs of this machine, against what there is: memory, host memory for merging, disk."""

from __future__ import annotations

import shutil

from ragtune.base.disk import existing_parent
from ragtune.base.errors import UsageError
from ragtune.base.text import size_of
from ragtune.model.merge import available_memory, memory_needed
from ragtune.model.plan import Plan, describe, estimate_of, is_tight, make_plan
from ragtune.model.quantized import quantization_of, require_mergeable
from ragtune.model.targets import find_targets
from ragtune.stages.check.directory import checkpoint_bytes, merged, place, prepared, trained
from ragtune.stages.check.findings import Look


def hardware(look: Look) -> None:
    chosen, recipe = look.run.hardware, look.run.recipe
    words = f"{chosen.name}; {chosen.dtype_name} ({chosen.reason})"
    look.say(words + (", weights in NF4" if recipe.model.quantization else ""))


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
    return make_plan(run.recipe, run.hardware, run.config, steps, prompts)


def merging(look: Look) -> None:
    run = look.run
    if run.recipe.publish.format != "merged" or merged(run):
        return
    require_mergeable(quantization_of(run.config, run.hardware.device))
    experts = find_targets(run.config, run.recipe.lora).experts
    needed, available = memory_needed(run.config, experts), available_memory()
    if available is not None and needed > available:
        raise UsageError(
            f"Merging needs about {size_of(needed)} of memory; {size_of(available)} are available here.",
            "Set publish.format=adapter: the adapter alone can be published from here, and merged on "
            "another machine with `ragtune merge`.",
        )
    look.say(f"needs about {size_of(needed)} of memory")


def disk(look: Look) -> None:
    """Checkpoints, adapter and merged model against the space that is free."""
    run = look.run
    estimate = estimate_of(run.recipe, run.hardware, run.config)
    parts: dict[str, float] = {}
    if not trained(run):
        moments = 2.0 if run.recipe.train.optimizer == "adamw" else 0.5
        # One more than is kept: a checkpoint is whole before an older one goes.
        kept = run.recipe.train.keep_checkpoints + 1
        checkpoints = estimate.adapter * (1 + moments) * kept - checkpoint_bytes(run)
        parts = {"checkpoints": max(0.0, checkpoints), "adapter": estimate.adapter}
    if run.recipe.publish.format == "merged" and not merged(run):
        parts["merged model"] = 2.0 * (estimate.shape.linear + estimate.shape.other)  # in bf16
    if not parts:
        look.say("everything large is there already")
        return
    needed, free = sum(parts.values()), shutil.disk_usage(existing_parent(place(run))).free
    words = ", ".join(f"{name} {size_of(size)}" for name, size in parts.items())
    if needed > free:
        raise UsageError(
            f"The run needs about {size_of(needed)} of disk ({words}); {size_of(free)} are free at "
            f"{place(run)}.",
            "Choose another place with --run-dir, set publish.format=adapter, or lower "
            "train.keep_checkpoints.",
        )
    look.say(f"about {size_of(needed)} of {size_of(free)} that are free: {words}")
