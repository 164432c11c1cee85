"""JaQuAD through `ragtune build` against the records whose passages another retriever found.

    python bench/built.py --data FOLDER --out bench/results/NAME.json [--model ID] [SECTION.KEY=VALUE ...]

FOLDER holds jaquad_rag.train.jsonl.gz and jaquad_rag.dev.jsonl.gz. Their paragraphs become documents, their
questions two tables; what was retrieved for them, and what is positive, is forgotten, and found again by
`ragtune build`: documents cut into 400 characters with an overlap of 100, ten passages a question. The same
model is tuned for 100 steps on both, by recipes/quickstart-ja.yaml with the notebook's hyperparameters, and
compared question by question over those that the records' passages answer: each model asked with its own
passages, which is the whole road (a question whose passage `build` does not find counts against it), and
both asked with those of the records.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch

import ragtune
from machine import made_with
from ragtune.answering.prediction import read_predictions
from ragtune.base.files import write_json
from ragtune.scoring.compare import Comparison, compare
from ragtune.scoring.score import Answers, score_answers
from ragtune.stages.context import Context

RECIPE = Path(__file__).parents[1] / "recipes/quickstart-ja.yaml"
SPLITS = ("train", "dev")
NOTEBOOK = ("train.steps=100", "train.batch_size=16", "train.learning_rate=1e-4", "lora.rank=128",
            "lora.alpha=128", "lora.dropout=0.05", "train.max_grad_norm=0.3", "train.save_every=50",
            "train.samples_per_row=auto", "evaluate.limit=null", "evaluate.questions=all",
            "evaluate.metric=strict_em", "evaluate.batch_size=auto", "data.max_passages=3")  # fmt: skip


def records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file, which may be packed."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rb") as file:
        yield from map(json.loads, file)


def given(data: Path, folder: Path, most: int | None) -> dict[str, Path]:
    """The file of each split; if only the first records are wanted, in a folder."""
    paths = {split: data.absolute() / f"jaquad_rag.{split}.jsonl.gz" for split in SPLITS}
    if most is None:
        return paths
    for split, path in paths.items():
        paths[split] = folder / f"given.{split}.jsonl"
        write(paths[split], [*islice(records(path), most)])
    return paths


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )


def write_documents(path: Path, found: Iterable[dict[str, Any]]) -> None:
    """Write the paragraphs of records, each once, as documents."""
    texts = {passage["text"]: passage["title"] for one in found for passage in one["passages"]}
    rows = enumerate(texts.items())
    write(path, [{"id": f"p{i}", "title": title, "text": text} for i, (text, title) in rows])


def device() -> str:
    """The GPU, if there is one."""
    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else ""


def corpus(given: dict[str, Path], folder: Path) -> dict[str, Any]:
    """Write documents and questions without what was retrieved, and say how they are built."""
    every: list[dict[str, Any]] = []
    for split, path in given.items():
        found = list(records(path))
        keep = ("qid", "question", "answers")
        asked = [{key: one[key] for key in keep} for one in found]
        write(folder / f"questions.{split}.jsonl", asked)
        every += found
    write_documents(folder / "documents.jsonl", every)
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
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        paths = given(options.data, work, options.most)
        start = time.monotonic()
        built = ragtune.build(corpus(paths, work), folder=work / "corpus")
        seconds["build"] = round(time.monotonic() - start, 1)
        sets = {
            "given": (paths["train"], paths["dev"]),
            "built": (work / "corpus/train.jsonl", work / "corpus/eval.jsonl"),
        }
        for which, (train, held) in sets.items():
            run = (f"name={which}", f"data.train={train}", f"data.eval={held}")
            start = time.monotonic()
            ragtune.train(RECIPE, *run, *more, run_dir=work / which)
            ragtune.evaluate(work / which)
            seconds[which] = round(time.monotonic() - start, 1)
        result: dict[str, Any] = {
            **made_with("tantivy", device=device()),
            "seconds": seconds,
            "recall": [asdict(one) for one in built.figures.recall],
            "each_on_its_own_passages": by_the_first(
                Context(work / "given"), Context(work / "built")
            ),
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.out, result)
        ragtune.evaluate(work / "built", f"data.eval={paths['dev']}")
        runs = ragtune.compare_runs(work / "given", work / "built", data_eval=str(paths["dev"]))
    (compared,) = runs["comparisons"]
    result["both_on_the_given_passages"] = {**compared, "name": "built", "against": "given"}
    write_json(options.out, result)
    for which in ("each_on_its_own_passages", "both_on_the_given_passages"):
        one = result[which]
        print(which.replace("_", " "), one["n"], one["difference"][one["metric"]])


def by_the_first(first: Context, second: Context) -> Comparison:
    """Two runs over the questions that are selected in the first, each with the answers of its own set."""
    scored = []
    for run in (first, second):
        found = read_predictions(run.folder.answers("after") / "predictions.jsonl")
        answers = Answers({p.qid: p.prediction for p in found})
        scored.append(score_answers(first.recipe, first.questions, answers))
    return compare(*scored)


if __name__ == "__main__":
    main()
