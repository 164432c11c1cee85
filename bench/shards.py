"""One index against shards of it, merged by score: does it hurt that each shard counts words by itself?

    python bench/shards.py --data jaquad_rag.dev.jsonl.gz jaquad_rag.train.jsonl.gz --language ja --out FILE

Passages are those of the records (each once), questions those with a positive among their own passages.
Each shard counts words in its own passages, or the counts of all are shared (`shard.py`).

Shards are cut as `distributed.py` cuts them, by a hash of the id; and, for contrast, in the order of the
records, where neighbours are of one article: a cut by topic.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from machine import made_with
from ragtune.base.files import write_json
from ragtune.building.retrieval.compare import compare
from ragtune.building.retrieval.distributed import merge, shard_of
from ragtune.building.retrieval.retriever import Entry, Hit
from ragtune.building.retrieval.shard import Counts, LexicalShard
from ragtune.data.read import read_examples

K = 10


def read(paths: list[Path]) -> tuple[list[Entry], list[str], list[set[str]]]:
    """Passages, questions, and which passages are right."""
    entries: dict[tuple[str, str], Entry] = {}
    questions, positives = [], []
    for path in paths:
        for example in read_examples(str(path), "eval"):
            ids = []
            for p in example.passages:
                known = entries.setdefault(
                    (p.title, p.text), Entry(f"p{len(entries):06d}", p.title, p.text)
                )
                ids.append(known.passage_id)
            if example.positive_passage_indices:
                questions.append(example.question)
                positives.append({ids[i] for i in example.positive_passage_indices})
    return list(entries.values()), questions, positives


def overlap(found: list[list[Hit]], other: list[list[Hit]]) -> float:
    """The mean share of the first ten that two have in common."""
    shares = [
        len({h.passage_id for h in a} & {h.passage_id for h in b}) / max(1, len(a))
        for a, b in zip(found, other, strict=True)
    ]
    return sum(shares) / len(shares)


def same_first(found: list[list[Hit]], other: list[list[Hit]]) -> float:
    pairs = zip(found, other, strict=True)
    return sum(a[:1] and b[:1] and a[0].passage_id == b[0].passage_id for a, b in pairs) / len(
        found
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--language", required=True)
    parser.add_argument("--shards", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    made = made_with("tantivy")
    entries, questions, positives = read(arguments.data)
    row = {entry.passage_id: n for n, entry in enumerate(entries)}
    print(f"{len(entries):,} passages, {len(questions):,} questions")

    with tempfile.TemporaryDirectory() as folder:

        def searched(name: str, chosen: Callable[[Entry], int], count: int) -> None:
            shards = []
            for n in range(count):
                shards.append(LexicalShard.open(Path(folder) / f"{name}-{n}", arguments.language))
                shards[-1].index(entry for entry in entries if chosen(entry) == n)
            found[name] = merge([shard.search(questions, K) for shard in shards], K)
            if count > 1:
                counts = Counts.sum([shard.counts(questions) for shard in shards])
                every = [shard.search_with(questions, K, counts) for shard in shards]
                found[f"{name}, counts shared"] = merge(every, K)

        found: dict[str, list[list[Hit]]] = {}
        searched("one", lambda _: 0, 1)
        for count in arguments.shards:
            searched(f"{count} by hash", lambda e, c=count: shard_of(e.passage_id, c), count)
            searched(
                f"{count} by topic",
                lambda e, c=count: row[e.passage_id] * c // len(entries),
                count,
            )
    result = {
        **made,
        "data": [path.name for path in arguments.data],
        "passages": len(entries),
        "overlap_at_10": {n: overlap(found["one"], f) for n, f in found.items()},
        "same_first": {n: same_first(found["one"], f) for n, f in found.items()},
        **compare(found, positives, seed=42).to_dict(),
    }
    # Against one index only: how shards differ from each other is nobody's question.
    differences = {n: f for n, f in result["differences"].items() if n.endswith(" - one")}
    result["differences"] = differences
    print(json.dumps({k: v for k, v in result.items() if k not in made}, indent=1))
    if arguments.out:
        write_json(arguments.out, result)


if __name__ == "__main__":
    main()
