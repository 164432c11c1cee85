"""What a run needs of this machine, against what there is: memory, host memory for merging, disk."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from ragtune.base.errors import UsageError
from ragtune.base.files import existing_parent, size_of

if TYPE_CHECKING:
    from ragtune.stages.check.findings import Look


def memory(look: Look) -> None:
    """What memory the run will need; before the data are prepared the first records stand for all."""
    from ragtune.model.plan import describe, is_tight, make_plan
    from ragtune.model.quantized import see_quantized

    run, train, questions = look.run, look.examples.get("train"), look.examples.get("eval")
    if (run.dir.data / "report.json").exists():
        plan = run.plan
    elif not train or not questions:
        look.say(
            "memory", "not known yet: no record that would be selected was read", "warning",
            "`ragtune prepare` reads them all; then this check knows.",
        )  # fmt: skip
        return
    else:
        size = run.recipe.train.batch_size
        pairs = zip(look.prompts["train"], run.encoder.targets(train), strict=True)
        sizes = [(len(p.ids) + len(target), len(target)) for p, target in pairs if p is not None]
        prompts = [len(p.ids) for p in look.prompts["eval"] if p is not None]
        steps = [(sizes * size)[i : i + size] for i in range(0, len(sizes), size)]
        plan = make_plan(run.recipe, run.hardware, run.config, steps, prompts)
    base = see_quantized(run.config, run.hardware.device)
    if plan.memory and base and not base.dequantized and base.linear_bytes is None:
        look.say(
            "memory", f"what {base.kind} takes is not known: the weights are counted as if they were in "
            f"{plan.dtype}, which is more",
        )  # fmt: skip
    for line in describe(plan, run.recipe.train.batch_size):
        look.say("memory", line.rstrip("."), "warning" if is_tight(plan) else "ok")


def merging(look: Look) -> None:
    from ragtune.model.merge import available_memory, memory_needed
    from ragtune.model.quantized import refuse_merging, see_quantized
    from ragtune.model.targets import find_targets

    run = look.run
    if run.recipe.publish.format != "merged" or run.dir.merged.exists():
        return
    refuse_merging(see_quantized(run.config, run.hardware.device))
    experts = find_targets(run.config, run.recipe.lora).experts
    needed, available = memory_needed(run.config, experts), available_memory()
    if available is not None and needed > available:
        raise UsageError(
            f"Merging needs about {size_of(needed)} of memory; {size_of(available)} are available here.",
            "Set publish.format=adapter: the adapter alone can be published from here, and merged on "
            "another machine with `ragtune merge`.",
        )
    look.say("merging", f"needs about {size_of(needed)} of memory")


def disk(look: Look) -> None:
    """Checkpoints, adapter and merged model against the space that is free."""
    from ragtune.model.plan import estimate_of

    run = look.run
    estimate = estimate_of(run.recipe, run.hardware, run.config)
    moments = {"adamw": 2.0}.get(run.recipe.train.optimizer, 0.5)
    parts: dict[str, float] = {}
    if not run.dir.adapter.exists():
        # One more than is kept: a checkpoint is whole before an older one goes.
        kept = run.recipe.train.keep_checkpoints + 1
        there = sum(f.stat().st_size for f in run.dir.checkpoints.rglob("*") if f.is_file())
        parts = {
            "checkpoints": max(0.0, estimate.adapter * (1 + moments) * kept - there),
            "adapter": estimate.adapter,
        }
    if run.recipe.publish.format == "merged" and not run.dir.merged.exists():
        parts["merged model"] = 2.0 * (estimate.shape.linear + estimate.shape.other)  # in bf16
    needed, free = sum(parts.values()), shutil.disk_usage(existing_parent(run.dir.path)).free
    if not parts:
        look.say("disk", "everything large is there already")
        return
    words = ", ".join(f"{name} {size_of(size)}" for name, size in parts.items())
    if needed > free:
        raise UsageError(
            f"The run needs about {size_of(needed)} of disk ({words}); {size_of(free)} are free at "
            f"{run.dir.path}.",
            "Choose another place with --run-dir, set publish.format=adapter, or lower "
            "train.keep_checkpoints.",
        )
    look.say("disk", f"about {size_of(needed)} of {size_of(free)} that are free: {words}")
