"""What exact search by vectors costs: random vectors, added and searched.

    python bench/vectors.py --passages 200000 --dimension 384 --questions 1000 --out FILE

The model's own time is not in it: that is the larger part by far (bench/dense.py).
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from machine import made_with
from ragtune.base.files import write_json
from ragtune.building.retrieval.vectors import ROWS, Matrix, Vectors


def drawn(count: int, dimension: int, seed: int) -> Matrix:
    found = np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--passages", type=int, default=200_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    made = made_with()
    asked = drawn(arguments.questions, arguments.dimension, seed=-1 % 2**32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        index = Vectors(Path(folder))
        begun = time.perf_counter()
        for start in range(0, arguments.passages, ROWS):
            count = min(ROWS, arguments.passages - start)
            ids = [f"document-{n}" for n in range(start, start + count)]
            index.add(ids, ids, drawn(count, arguments.dimension, seed=start))
        added = time.perf_counter() - begun
        begun = time.perf_counter()
        index.nearest(asked, 100)
        searched = time.perf_counter() - begun
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
    result = {
        **made,
        "passages": arguments.passages,
        "dimension": arguments.dimension,
        "questions": arguments.questions,
        "seconds_to_add": round(added, 1),
        "ms_a_question": round(1000 * searched / arguments.questions, 2),
        "bytes_on_disk": size,
        "peak_mib_above_start": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        // 1024,
    }
    print(result)
    if arguments.out:
        write_json(arguments.out, result)


if __name__ == "__main__":
    main()
