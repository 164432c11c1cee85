"""ragtune's own samples as token ids, for the others: the steps' and the questions' prompts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

KEPT_STEPS = 16


def write_samples(run: Any, path: Path, count: int) -> float:
    """Write the first steps and every prompt of a prepared run; returns the mean sample length.

    Args:
        run: a ragtune.stages.context.Context.
        path: appears when it is whole.
        count: the steps over which the mean is taken.
    """
    from ragtune.training.rows import steps_of

    train = run.recipe.train.model_copy(update={"steps": count})
    recipe = run.recipe.model_copy(update={"train": train})
    steps = steps_of(recipe, run.encoder, run.training_examples)
    lengths = [len(s) for step in steps for s in step]
    prompts = [run.encoder.prompt(e).ids for e in run.asked]
    mean = sum(lengths) / len(lengths)
    made = {
        "steps": [[s.features() for s in step] for step in steps[:KEPT_STEPS]],
        "prompts": prompts,
        "tokens_per_sample": round(mean, 1),
        "tokens_per_prompt": round(sum(map(len, prompts)) / len(prompts), 1),
    }
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(made), "utf-8")
    partial.rename(path)
    return mean


def main() -> None:
    """Prepare the data of a recipe and write its samples: for a run without ragtune's rows."""
    from ragtune.stages.context import Context
    from ragtune.stages.road import make, working

    recipe, run_dir, path = map(Path, sys.argv[1:4])
    run = Context(recipe, run_dir=run_dir)
    with working(run):
        make(run, "questions")
    write_samples(run, path, run.recipe.train.steps)


if __name__ == "__main__":
    main()
