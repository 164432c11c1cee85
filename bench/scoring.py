"""Scoring 1,000 answers: every metric, 10,000 bootstrap samples, the whole comparison, on one core.

    python bench/scoring.py --out bench/results/scoring-cpu.json

The questions are JaQuAD's of the shipped sample, repeated; the answers are theirs, changed by a seed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import random
import shlex
import sys
import time
from pathlib import Path

from machine import processor
from ragtune.base.files import write_json
from ragtune.base.versions import versions
from ragtune.data.read import read_examples
from ragtune.recipe.load import load_recipe
from ragtune.scoring.compare import compare
from ragtune.scoring.metrics import METRICS
from ragtune.scoring.score import Answers, score_answers
from ragtune.scoring.statistics import SAMPLES

QUESTIONS = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    os.sched_setaffinity(0, {0})  # one core
    recipe = load_recipe(Path(__file__).parent.parent / "recipes" / "quickstart-ja.yaml")
    sample = list(read_examples("sample:jaquad.dev", ""))
    examples = [
        dataclasses.replace(
            sample[i % len(sample)], qid=str(i), extra={"selected": i % 10 > 0}
        )
        for i in range(QUESTIONS)
    ]  # fmt: skip
    rng = random.Random(0)

    def answers(right: float) -> dict[str, str]:
        texts = {e.qid: e.answers[0] for e in examples}
        return {q: t if rng.random() < right else f"{t}です。" for q, t in texts.items()}

    before, after = answers(0.3), answers(0.8)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        found = compare(*(score_answers(recipe, examples, Answers(one)) for one in (before, after)))
        seconds.append(round(time.perf_counter() - start, 3))
    result = {
        "device": processor(),
        "python": platform.python_version(),
        "versions": versions("numpy", "scipy"),
        "command": shlex.join(["python", "bench/scoring.py", *sys.argv[1:]]),
        "questions": QUESTIONS,
        "metrics": list(METRICS),
        "bootstrap_samples": SAMPLES,
        "answers_sets": 2,
        "seconds": {"first": seconds[0], "again": seconds[1:]},
        "check": {"n": found["n"], "aio_em": found["after"]["aio_em"]},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, result)
    print(
        json.dumps({k: result[k] for k in ("questions", "bootstrap_samples", "seconds", "check")})
    )


if __name__ == "__main__":
    main()
