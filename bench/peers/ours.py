"""ragtune's short trainings: without dropout, or with no more than so much memory.

    python -m peers.ours JOB.json RECIPE RUN_DIR WORK [GIB]

RUN_DIR holds the prepared data of the whole run. WORK is the row that is measured.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from peers.common import Job, device_name, emit, limit_memory, peak_gib, row
from peers.samples import write_samples
from ragtune.base.files import read_json, read_jsonl
from ragtune.stages.context import Context
from ragtune.stages.road import make, working


def main() -> None:
    job = Job.read()
    recipe, run_dir, work = Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    emit("device", name=device_name())
    if len(sys.argv) > 5:  # noqa: PLR2004 - the last argument
        limit_memory(float(sys.argv[5]))
    run = Context(recipe, run_dir=run_dir)
    with working(run):
        make(run, "questions")
        if not Path(job.samples).exists():
            write_samples(run, Path(job.samples), job.recipe["train"]["steps"])
        make(run, "adapter")
    emit("row", **step_row(read_json(run_dir / "run.json"), work, peak_gib()))
    losses = [e["loss"] for e in read_jsonl(run_dir / "adapter" / "train_log.jsonl") if "loss" in e]
    emit("losses", name=f"ragtune, {work}", values=losses)


def step_row(state: dict[str, Any], work: str, peak: float | None = None) -> dict[str, Any]:
    """The row of a training from its run.json.

    Args:
        state: run.json.
        work: the row's name.
        peak: taken if run.json says nothing of it.
    """
    train, plan = state["train"], state["plan"]
    peak = state.get("peak_gib", train.get("peak_gib", {})).get("train") or peak
    how = (
        f"{plan['samples_per_row']} samples a row, "
        f"activations {'recomputed' if plan['recompute'] else 'kept'}"
    )
    if plan.get("dequantized"):
        how += ", the base dequantized"
    if train.get("step_seconds"):
        counted = train["steps"] - 1  # the first has what is loaded and compiled in it
        return row("ragtune", work, train["step_seconds"], peak, median_of=counted, variant=how)
    return row("ragtune", work, train["seconds"] / train["steps"], peak, variant=f"{how}; mean")


if __name__ == "__main__":
    main()
