"""A million passages of 400 characters: time, memory and disk of the lexical index, against its size.

Passages are real clauses of Japanese in new order, in part with new words (`bench/passages.py`). They are
indexed in slices, as `ragtune build` does it. At each size some questions are searched at top 100, at
the last size all of them, streamed to a file. Then 1 % more passages are added. Memory is the process's
largest, with the parts of the index that the system keeps mapped.

python bench/million.py --data jaquad_rag.train.jsonl.gz jaquad_rag.dev.jsonl.gz --folder FOLDER \
    --out bench/results/million.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from machine import made_with
from passages import crossed, made, passages_of, questions_of
from ragtune.base.files import json_line, remove, writing
from ragtune.building.retrieval.lexical import LexicalIndex

SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000)
SLICE = 20_000
"""Passages given to the index at a time."""
QUESTIONS = 22_335
"""As many as the notebook's training data have."""
TOP = 100
SAMPLE = 300
"""Questions by which each size is timed."""
BATCH = 128
"""Questions that are searched at a time, as `ragtune build` does it."""
SEED = 1


@dataclass
class Cost:
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def rounded(self, digits: int = 1) -> dict[str, float]:
        return {
            "seconds": round(self.seconds, digits),
            "cpu_seconds": round(self.cpu_seconds, digits),
        }


@contextmanager
def timed(cost: Cost) -> Iterator[None]:
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    cost.seconds += time.perf_counter() - wall
    cost.cpu_seconds += time.process_time() - cpu


def memory_gb() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2)


def disk_gb(folder: Path) -> float:
    return round(sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e9, 2)


def retrieve(index: LexicalIndex, questions: list[str], path: Path) -> None:
    """Write a line for each question."""
    with writing(path) as file:
        for start in range(0, len(questions), BATCH):
            found = index.search(questions[start : start + BATCH], TOP)
            file.writelines(
                json_line({"hits": [[hit.passage_id, hit.score] for hit in hits]}) for hits in found
            )


def measure(args: argparse.Namespace) -> dict[str, object]:
    entries = list(passages_of(args.data).values())
    questions = list(
        crossed([q for path in args.data for q in questions_of(path)], QUESTIONS, SEED)
    )
    more = made(entries, max(args.sizes), SEED)
    index = LexicalIndex.open(args.folder / "index", "ja")
    indexing, table, size = Cost(), [], 0
    for wanted in args.sizes:
        while size < wanted:
            # The same ones each time, made before the clock starts.
            part = list(itertools.islice(more, min(SLICE, wanted - size)))
            size += len(part)
            with timed(indexing):
                index.index(part)
        searching = Cost()
        with timed(searching):
            index.search(questions[-SAMPLE:], TOP)
        table.append({
            "passages": size,
            "indexing": indexing.rounded(),
            "milliseconds_a_question": round(1000 * searching.seconds / SAMPLE, 1),
            "cpu_milliseconds_a_question": round(1000 * searching.cpu_seconds / SAMPLE, 1),
            "disk_gb": disk_gb(args.folder / "index"),
            "peak_memory_gb": memory_gb(),
        })  # fmt: skip
        print(json.dumps(table[-1]), flush=True)
    retrieving = Cost()
    with timed(retrieving):
        retrieve(index, questions, args.folder / "retrieved.jsonl")
    print(json.dumps(retrieving.rounded()), flush=True)
    added, adding = list(made(entries, size // 100, SEED + 1)), Cost()
    with timed(adding):
        index.index(added)
    assert len(index) == size + len(added)
    return {
        "table": table,
        "retrieval_of_all": {
            "questions": len(questions),
            "passages_each": TOP,
            **retrieving.rounded(),
        },
        "adding_one_percent": {
            **adding.rounded(2),
            "share_of_indexing_seconds": round(adding.seconds / indexing.seconds, 4),
            "share_of_indexing_cpu_seconds": round(adding.cpu_seconds / indexing.cpu_seconds, 4),
        },
        "peak_memory_gb": memory_gb(),
        "disk_gb": disk_gb(args.folder / "index"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="records of JaQuAD")
    parser.add_argument("--folder", type=Path, required=True, help="for the index; needs 2 GB")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    remove(args.folder / "index")
    result = {
        **made_with("tantivy"),
        **measure(args),
        "load_after": round(os.getloadavg()[0], 1),
    }
    args.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
