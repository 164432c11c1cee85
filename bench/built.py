"""JaQuAD through `ragtune build` against the records whose passages another retriever found.

    python bench/built.py --data FOLDER --out bench/results/NAME.json [--model ID] [SECTION.KEY=VALUE ...]

FOLDER holds jaquad_rag.train.jsonl.gz and jaquad_rag.dev.jsonl.gz. Their paragraphs become documents, their
questions two tables; what was retrieved for them, and what is positive, is forgotten, and found again by
`ragtune build`: documents cut into 400 characters with an overlap of 100, ten passages a question. The same
model is tuned for 100 steps on both, by recipes/quickstart-ja.yaml with the notebook's hyperparameters, and
compared question by question: each on its own passages, and both on those of the records.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import ragtune
from machine import made_with

ROOT = Path(__file__).parents[1]
SPLITS = ("train", "dev")
NOTEBOOK = ("train.steps=100", "train.batch_size=16", "train.learning_rate=1e-4", "lora.rank=128",
            "lora.alpha=128", "train.save_every=50", "train.samples_per_row=auto", "evaluate.limit=null",
            "evaluate.metric=strict_em", "evaluate.batch_size=auto", "data.max_passages=3")  # fmt: skip


def records(path: Path, most: int | None) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for number, line in enumerate(file):
            if most is not None and number >= most:
                return
            yield json.loads(line)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )


def corpus(data: Path, folder: Path, most: int | None) -> dict[str, Any]:
    """Write documents and questions without what was retrieved, and say how they are built."""
    paragraphs: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        questions = []
        for record in records(data / f"jaquad_rag.{split}.jsonl.gz", most):
            keep = ("qid", "question", "answers")
            questions.append({key: record[key] for key in keep})
            for passage in record["passages"]:
                text = {"title": passage["title"], "text": passage["text"]}
                paragraphs.setdefault(passage["text"], {"id": f"p{len(paragraphs)}", **text})
        write(folder / f"questions.{split}.jsonl", questions)
    write(folder / "documents.jsonl", list(paragraphs.values()))
    return {
        "name": "jaquad",
        "documents": {"files": [str(folder / "documents.jsonl")]},
        "questions": {
            "files": [str(folder / "questions.train.jsonl")],
            "eval": [str(folder / "questions.dev.jsonl")],
        },
        "retrieval": {"passages": 10},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model")
    parser.add_argument("--most", type=int, help="records of each split, to try it out")
    parser.add_argument("changes", nargs="*")
    options = parser.parse_args()
    more = [*NOTEBOOK, *([f"model.id={options.model}"] if options.model else []), *options.changes]
    data = options.data.absolute()
    given = {side: str(data / f"jaquad_rag.{side}.jsonl.gz") for side in SPLITS}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        if options.most is not None:  # the same records for both
            for split in SPLITS:
                given[split] = str(work / f"given.{split}.jsonl")
                found = records(data / f"jaquad_rag.{split}.jsonl.gz", options.most)
                write(Path(given[split]), list(found))
        start = time.monotonic()
        built = ragtune.build(corpus(data, work, options.most), folder=work / "corpus")
        seconds = time.monotonic() - start
        sets = {
            "given": (given["train"], given["dev"]),
            "built": (str(work / "corpus/train.jsonl"), str(work / "corpus/eval.jsonl")),
        }
        recipe = ROOT / "recipes/quickstart-ja.yaml"
        for which, (train, held) in sets.items():
            run = (f"name={which}", f"data.train={train}", f"data.eval={held}")
            ragtune.train(recipe, *run, *more, run_dir=work / which)
            ragtune.evaluate(recipe, *run, *more, run_dir=work / which)
        own = ragtune.compare_runs(work / "given", work / "built")
        ragtune.evaluate(work / "built", f"data.eval={given['dev']}")
        same = ragtune.compare_runs(work / "given", work / "built", data_eval=given["dev"])
    result = {
        **made_with(
            "tantivy", device=torch.cuda.get_device_name() if torch.cuda.is_available() else ""
        ),
        "build_seconds": round(seconds, 1),
        "recall": [asdict(one) for one in built.figures.recall],
        "each_on_its_own_passages": own,
        "both_on_the_given_passages": same,
    }
    options.out.write_text(json.dumps(result, ensure_ascii=False, indent=2) + "\n", "utf-8")
    for title, runs in (("own passages", own), ("given passages", same)):
        for one in runs["comparisons"]:
            print(title, runs["n"], one["difference"][runs["metric"]])


if __name__ == "__main__":
    main()
