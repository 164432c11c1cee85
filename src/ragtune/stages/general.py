"""What was forgotten: general tasks, asked before and after tuning, and paired document by document."""

from __future__ import annotations

from pathlib import Path

from ragtune.answering.harness import TASKS, ask_tasks
from ragtune.base.errors import UsageError
from ragtune.base.files import read_json
from ragtune.scoring.paired import General, paired
from ragtune.stages.answer import Which
from ragtune.stages.context import Context
from ragtune.stages.logs import read_log, require_same
from ragtune.stages.twins import answered_on
from ragtune.store.proof import Facts


def before(context: Context, out: Path) -> Facts:
    """eval/NAME/general-before/: a log for each task, and tasks.json."""
    return _asked(context, "before", out)


def after(context: Context, out: Path) -> Facts:
    """eval/NAME/general-after/: the same after tuning."""
    return _asked(context, "after", out)


def _asked(context: Context, which: Which, out: Path) -> Facts:
    require_whole_weights(spread=context.plan.spread)
    with context.answering(which) as model:
        ask_tasks(
            context.recipe.evaluate, model, context.encoder.tokenizer, context.day.isoformat(), out
        )
    return {"answered_on": answered_on(context)}


def require_whole_weights(*, spread: bool) -> None:
    """Raise UsageError where no process has all weights: only ragtune's own asking knows that."""
    if spread:
        raise UsageError(
            "evaluate.general can't be asked of a model whose weights are spread over several GPUs.",
            "Leave it out, or set model.quantization=nf4, with which one GPU may hold the model.",
        )


def figures(context: Context) -> General | None:
    """What the tasks' logs come to, task by task as the recipe names them; None without both sides.

    Raises:
        RagtuneError: the two sides were asked different documents.
    """
    sides = [context.folder.answers(f"general-{which}") for which in ("before", "after")]
    if not all((side / TASKS).is_file() for side in sides):
        return None
    old, new = (read_json(side / TASKS) for side in sides)
    return {
        "lm_eval": sorted({old["lm_eval"], new["lm_eval"]}),
        "limit": old["limit"],
        "tasks": [
            {
                "task": name,
                "parts": len(files),
                "metrics": paired(*_pooled(sides, files, new["tasks"][name])),
            }
            for name, files in old["tasks"].items()
        ],
    }


def _pooled(sides: list[Path], *files: dict[str, str]) -> list[dict[str, dict[str, float]]]:
    """The values of both sides, metric by metric, of the documents of all parts of a task."""
    pooled: list[dict[str, dict[str, float]]] = [{} for _ in sides]
    for part in files[0]:
        logs = [
            read_log(side / names[part], part) for side, names in zip(sides, files, strict=True)
        ]
        require_same(*logs)
        for values, log in zip(pooled, logs, strict=True):
            for metric, column in log.values.items():
                name = metric.removesuffix(",none")
                values.setdefault(name, {}).update({f"{part} {q}": v for q, v in column.items()})
    return pooled
