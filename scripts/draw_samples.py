"""Draw the samples that the package ships: seeded, nothing chosen by outcome.

    python scripts/draw_samples.py FOLDER

FOLDER holds squad2_rag.{train,dev}.jsonl.gz and jaquad_rag.{train,dev}.jsonl.gz (SQuAD 2.0 and JaQuAD
questions, each with its 5 best BM25 paragraphs). Taken are the records whose first paragraph is
positive and short: at most 130 words (English) or 400 characters (Japanese). They are shuffled by
the seed, and the first COUNTS of them kept, whole. squad2.refuse has REFUSE of these of squad2.dev,
and as many without any answer, whose first paragraph is as short.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import sys
from pathlib import Path
from typing import Any

SEED = 20
OUT = Path(__file__).parents[1] / "src/ragtune/data/samples"
MAX_WORDS = 130
MAX_CHARACTERS = 400
COUNTS = {"squad2.train": 1160, "squad2.dev": 318, "jaquad.train": 1000, "jaquad.dev": 200}
REFUSE = 60


def is_short(text: str, corpus: str) -> bool:
    return len(text.split()) <= MAX_WORDS if corpus == "squad2" else len(text) <= MAX_CHARACTERS


def main(folder: Path) -> None:
    for name, count in COUNTS.items():
        corpus, split = name.split(".")
        with gzip.open(folder / f"{corpus}_rag.{split}.jsonl.gz", "rt", encoding="utf-8") as file:
            records = [json.loads(line) for line in file]
        chosen = [
            r
            for r in records
            if 0 in r["positive_passage_indices"] and is_short(r["passages"][0]["text"], corpus)
        ]
        found = len(chosen)
        random.Random(f"{SEED}:{name}").shuffle(chosen)
        chosen = chosen[:count]
        write(name, chosen, found)
        if name == "squad2.dev":
            without = [
                r
                for r in records
                if not r["answers"] and is_short(r["passages"][0]["text"], corpus)
            ]
            found = len(without)
            rng = random.Random(f"{SEED}:squad2.refuse")
            rng.shuffle(without)
            both = chosen[:REFUSE] + without[:REFUSE]
            rng.shuffle(both)
            write("squad2.refuse", both, found)


def write(name: str, records: list[dict[str, Any]], found: int) -> None:
    text = io.BytesIO()
    # No time stamp and no name: the same bytes on any day.
    with gzip.GzipFile(fileobj=text, mode="wb", filename="", mtime=0) as out:
        for record in records:
            line = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
            out.write(line.encode() + b"\n")
    path = OUT / f"{name}.jsonl.gz"
    path.write_bytes(text.getvalue())
    print(f"{path.name}: {len(records)} of {found} that fit, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
