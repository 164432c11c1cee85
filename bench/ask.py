"""How long the first answer of `ragtune ask` takes, and how many answers a second follow.

    python bench/ask.py RUN --out bench/results/NAME.json [--questions 100]

RUN is a run whose data `ragtune build` made. The first answer is that of the command, in a process of its own,
from its start to its end. Then the same questions, which are the run's own, are asked through the run's
evaluation code and through `Reader.ask`, all at once and one after the other: with their own passages, so
that the three do the same work. `cpu` is the processor time of it, which other programs disturb less.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from machine import made_with, processor
from ragtune.asking.reader import Reader
from ragtune.base.files import write_json
from ragtune.stages.answer import ask
from ragtune.stages.context import Context


def measured(act: Callable[[], object], count: int) -> dict[str, float]:
    start, cpu = time.monotonic(), time.process_time()
    act()
    seconds, used = time.monotonic() - start, time.process_time() - cpu
    return {
        "seconds": round(seconds, 2),
        "cpu": round(used, 2),
        "a_second": round(count / seconds, 3),
    }


def first_answer(run: str, question: str) -> dict[str, float]:
    """Of the command as a user gives it."""
    command = [sys.executable, "-m", "ragtune", "ask", run, question]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - our own command
    seconds, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(seconds, 2), "cpu": round(cpu, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=100)
    options = parser.parse_args()
    context = Context(options.run)
    examples = context.questions[: options.questions]
    count = len(examples)
    first = [first_answer(options.run, examples[0].question) for _ in range(2)]
    with tempfile.TemporaryDirectory() as folder:
        context.tuned()
        out = Path(folder) / "answers"
        out.mkdir()
        evaluation = measured(lambda: ask(context, "after", context.encoder, examples, out), count)
        context.release()
    reader = Reader.load(options.run)
    together = measured(lambda: reader.answer(examples), count)
    singly = measured(lambda: [reader.answer([example]) for example in examples], count)
    result = {
        **made_with(),
        "command": f"python bench/ask.py {options.run} --questions {options.questions}",
        "device": f"{processor()}, {os.cpu_count()} cores",
        "model": context.recipe.model.id,
        "questions": count,
        "first_answer": {"cold": first[0], "again": first[1]},
        "evaluation": evaluation,
        "asked_together": together,
        "asked_singly": singly,
    }
    write_json(options.out, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
