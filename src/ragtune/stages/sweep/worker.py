"""A process that takes one run of a sweep a part of its way: it trains so far, and asks the held questions.

It ends as a command does, and also when the process that started it is gone: its standard input then ends.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from ragtune.base import stopping
from ragtune.base.ending import code_of
from ragtune.base.files import write_json
from ragtune.base.leaving import leaving_threads
from ragtune.stages.answer import require_checkpoint
from ragtune.stages.context import Context
from ragtune.stages.order import checkpoints_of, place_of, stage_named
from ragtune.stages.road import make, working
from ragtune.store.seal import is_whole
from ragtune.training.modes import Paused


def advance(recipe: Path, run: Path, share: float, reached: Path) -> None:
    """Take a run so far, and write down where its answers lie.

    Args:
        recipe: of the run.
        run: its directory.
        share: of its steps; 1: to the end.
        reached: is written last.
    """
    context = Context(recipe, (), run)
    with working(context):
        for name in ("data", "questions"):
            make(context, name)
        step = max(1, round(share * len(context.steps)))
        if step < len(context.steps) and share < 1:
            _train_to(context, step)
            stage = stage_named("checkpoint", step)
        else:
            stage = stage_named("after")
        make(context, stage)
        place = place_of(context.folder, stage).relative_to(run)
        questions = context.folder.questions.relative_to(run)
        write_json(reached, {"answers": str(place), "questions": str(questions), "step": step})


def _train_to(context: Context, step: int) -> None:
    """Have a checkpoint of a step."""
    if context.folder.adapter.is_dir() or is_whole(
        checkpoints_of(context.folder, context.recipe) / f"checkpoint-{step}"
    ):
        return
    context.pause = step
    try:
        make(context, "adapter")
    except Paused:
        stopping.stop_if_asked()  # by a signal, in that very step
    context.release()
    require_checkpoint(context, step)


def look(recipe: Path, run: Path, questions: Path, reached: Path) -> None:
    """Ask a finished run other questions, as `evaluate` does.

    Args:
        recipe: of the run.
        run: its directory.
        questions: a file of them.
        reached: is written last.
    """
    context = Context(recipe, [f"data.eval={questions}"], run)
    with working(context, keeping=False):
        for name in ("questions", "before", "after"):
            make(context, name)
        places = {
            "answers": context.folder.answers("after"),
            "before": context.folder.answers("before"),
            "questions": context.folder.questions,
        }
        write_json(reached, {name: str(place.relative_to(run)) for name, place in places.items()})


def _end_with_parent() -> None:
    """Stop as on SIGTERM, with a checkpoint, when nobody holds the other end of standard input."""

    def wait() -> None:
        while os.read(
            0, 1
        ):  # nothing is written there; sys.stdin would be locked when this process ends
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def do(words: list[str]) -> int:
    """RECIPE RUN SHARE|QUESTIONS REACHED."""
    recipe, run, what, reached = words
    if what.endswith(".jsonl"):
        look(Path(recipe), Path(run), Path(what), Path(reached))
    else:
        advance(Path(recipe), Path(run), float(what), Path(reached))
    return 0


@leaving_threads()
def main() -> None:
    """Do what the arguments say: RECIPE RUN SHARE|QUESTIONS REACHED."""
    stopping.install()
    _end_with_parent()
    sys.exit(code_of(do, sys.argv[1:]))


if __name__ == "__main__":
    main()
