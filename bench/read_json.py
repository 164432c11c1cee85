"""Time and memory of reading a JSON file in HotpotQA's format, as large as its training file.

The file is made on the spot: records of ten paragraphs, each of some sentences of random words.

python bench/read_json.py --megabytes 540 --out bench/results/read-json.json
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
from pathlib import Path

from machine import made_with
from ragtune.data.read import read_examples


def write(path: Path, size: int) -> int:
    """Write records until the file has so many bytes; how many there are."""
    rng = random.Random(1)
    words = [
        "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9)))
        for _ in range(20_000)
    ]
    count = 0
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < size:
            titles = [f"{rng.choice(words)} {count} {i}" for i in range(10)]
            context = [
                [t, [" " + " ".join(rng.choices(words, k=20)) for _ in range(4)]] for t in titles
            ]
            record = {
                "_id": f"{count:024x}", "question": f"{rng.choice(words)} {count}?", "answer": "yes",
                "supporting_facts": [[titles[0], 0], [titles[5], 1]], "context": context, "type": "bridge",
                "level": "hard",
            }  # fmt: skip
            file.write(("," if count else "[") + json.dumps(record))
            count += 1
        file.write("]")
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=540)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    made = made_with()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hotpot.json"
        written = write(path, chosen.megabytes * 1_000_000)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        read = sum(1 for _ in read_examples(str(path), "train"))
        seconds = time.perf_counter() - start
        assert read == written
        found = {
            **made,
            "bytes": path.stat().st_size,
            "records": read,
            "seconds": round(seconds, 1),
            "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            "peak_before_mib": round(before / 1024),
        }
    print(json.dumps(found, indent=2))
    if chosen.out:
        chosen.out.write_text(json.dumps(found, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
