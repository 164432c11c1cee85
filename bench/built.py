"""JaQuAD through `ragtune build` against the records whose passages another retriever found.

    python bench/built.py --data FOLDER --out bench/results/NAME.json [--model ID] [--seeds N] [--at-once N]
        [--most N] [--work FOLDER] [SECTION.KEY=VALUE ...]

FOLDER holds jaquad_rag.train.jsonl.gz and jaquad_rag.dev.jsonl.gz. Their paragraphs become documents, their
questions two tables; what was retrieved for them, and what is positive, is forgotten, and found again by
`ragtune build`, ten passages a question. Paragraphs stay whole, as they are in the records:
`passages.size=400` cuts them as a build does by default.

The same model is tuned for 100 steps on both, by recipes/quickstart-ja.yaml with the notebook's
hyperparameters, once a seed, and compared question by question over those that the records' passages answer:
of each question counts the mean of the seeds. Each model is asked with its own passages, which is the whole
road (a question whose passage `build` does not find counts against it), and then both with those of the
records.

Several runs go on at a time, each a process of its own with its log in the folder of --work. What is known is
written at once; with --work, a second call goes on. Changes under `passages.` and `retrieval.` are the
corpus's, all others the recipe's.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ragtune
from machine import made_with
from ragtune.answering.prediction import read_predictions
from ragtune.base.files import write_json
from ragtune.scoring.score import Answers, Scored, score_answers
from ragtune.scoring.statistics import DIFFERENCE, Columns, figures, grouped, less
from ragtune.stages.context import Context
from ragtune.store.proof import read_proof

RECIPE = Path(__file__).parents[1] / "recipes/quickstart-ja.yaml"
SPLITS = ("train", "dev")
NOTEBOOK = ("train.steps=100", "train.batch_size=16", "train.learning_rate=1e-4", "lora.rank=128",
            "lora.alpha=128", "lora.dropout=0.05", "train.max_grad_norm=0.3", "train.save_every=50",
            "train.samples_per_row=auto", "evaluate.limit=null", "evaluate.questions=all",
            "evaluate.metric=strict_em", "evaluate.batch_size=auto", "data.max_passages=3")  # fmt: skip
SIDES = ("given", "built")
ALIKE = ("train.samples_per_row=8", "evaluate.batch_size=128")
"""On both sides, whatever the other processes leave of the GPU's memory."""
OF_CORPUS = ("passages.", "retrieval.")
TUNE = """import sys, ragtune
recipe, run, *changes = sys.argv[1:]
ragtune.train(recipe, *changes, run_dir=run)
ragtune.evaluate(run)"""
ASK = "import sys, ragtune; ragtune.evaluate(*sys.argv[1:])"
FIRST_SEED = 42
"""The recipe's own."""


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


def main() -> None:
    options = _options()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(options, options.work or Path(name))
        bench.build()
        bench.tune()
        bench.ask_the_same()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", help="the base; default: the recipe's")
    parser.add_argument("--seeds", type=int, default=4, help="runs of each side")
    parser.add_argument("--at-once", type=int, default=4, help="runs at a time, on one GPU")
    parser.add_argument("--most", type=int, help="records of each split, to try it out")
    parser.add_argument("--work", type=Path, help="keeps what is made, and the logs")
    parser.add_argument("changes", nargs="*", help="changes to the corpus or the recipe")
    return parser.parse_args()


class Bench:
    """The corpus, the runs of both sides, and what is found."""

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        self.options, self.work = options, work.absolute()
        self.work.mkdir(parents=True, exist_ok=True)
        self.given = given(options.data, self.work, options.most)
        self.seeds = range(FIRST_SEED, FIRST_SEED + options.seeds)
        base = [f"model.id={options.model}"] if options.model else []
        changes = [one for one in options.changes if not one.startswith(OF_CORPUS)]
        self.more = [*NOTEBOOK, *ALIKE, *base, *changes]
        built = self.work / "corpus"
        self.sets = {
            "given": (self.given["train"], self.given["dev"]),
            "built": (built / "train.jsonl", built / "eval.jsonl"),
        }
        self.result: dict[str, Any] = {**made_with("tantivy", device=device())}
        self.seconds: dict[str, list[float]] = {}

    def keep(self, **values: object) -> None:
        self.result.update(values)
        # A copy, as the threads go on to write there.
        write_json(self.options.out, {**self.result, "seconds": dict(self.seconds)})

    def build(self) -> None:
        """Make documents and questions of the records, without what was retrieved, and examples of these."""
        start = time.monotonic()
        every: list[dict[str, Any]] = []
        for split, path in self.given.items():
            found = list(records(path))
            asked = [{key: one[key] for key in ("qid", "question", "answers")} for one in found]
            write(self.work / f"questions.{split}.jsonl", asked)
            every += found
        write_documents(self.work / "documents.jsonl", every)
        changes = [one for one in self.options.changes if one.startswith(OF_CORPUS)]
        whole = not any(one.startswith("passages.") for one in changes)
        if whole:
            longest = max(len(passage["text"]) for one in every for passage in one["passages"])
            changes += [f"passages.size={longest}", "passages.overlap=0"]
        built = ragtune.build(
            {
                "name": "jaquad",
                "documents": {"files": [str(self.work / "documents.jsonl")]},
                "questions": {
                    "files": [str(self.work / "questions.train.jsonl")],
                    "eval": [str(self.work / "questions.dev.jsonl")],
                },
                "retrieval": {"passages": 10},
            },
            *changes,
            folder=self.work / "corpus",
        )
        self.seconds["build"] = [round(time.monotonic() - start, 1)]
        self.keep(
            documents=built.figures.documents.read,
            passages={"n": built.figures.passages.n, "whole_paragraphs": whole, "changes": changes},
            recall=[asdict(one) for one in built.figures.recall],
        )

    def tune(self) -> None:
        """Tune both sides once a seed, and ask each with its own passages."""
        self.each(
            [(side, seed) for seed in self.seeds for side in SIDES],
            self.tune_one,
            lambda: self.keep(each_on_its_own_passages=self.compared()),
        )

    def tune_one(self, side: str, seed: int) -> None:
        train, held = self.sets[side]
        run = self.run(side, seed)
        sets = (f"name={run.name}", f"seed={seed}", f"data.train={train}", f"data.eval={held}")
        self.call(run, TUNE, RECIPE, run, *sets, *self.more)

    def ask_the_same(self) -> None:
        """Ask the models of the built side, too, with the passages of the records."""
        held = f"data.eval={self.given['dev']}"
        self.each(
            [("built", seed) for seed in self.seeds],
            lambda side, seed: self.call(self.run(side, seed), ASK, self.run(side, seed), held),
            lambda: self.keep(both_on_the_given_passages=self.compared(held)),
        )

    def run(self, side: str, seed: int) -> Path:
        return self.work / f"{side}-{seed}"

    def each(
        self,
        jobs: list[tuple[str, int]],
        work: Callable[[str, int], None],
        keep: Callable[[], None],
    ) -> None:
        """Do the work of each job, some at a time, and keep what is known whenever one is done."""
        failed = []
        with ThreadPoolExecutor(self.options.at_once) as pool:
            for done in as_completed([pool.submit(work, *job) for job in jobs]):
                if error := done.exception():
                    failed.append(str(error))
                    print(error, flush=True)
                else:
                    keep()
        if failed:
            self.keep(failed=failed)
            raise SystemExit(f"{len(failed)} of {len(jobs)} runs failed.")

    def call(self, run: Path, code: str, *arguments: object) -> None:
        """Let ragtune work in a process of its own, whose words go into the run's log."""
        threads = max(1, (os.cpu_count() or 1) // self.options.at_once)
        start, log = time.monotonic(), run.with_name(f"{run.name}.log")
        with log.open("ab") as out:
            done = subprocess.run(  # noqa: S603 - ragtune itself
                [sys.executable, "-c", code, *map(str, arguments)],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False,
                env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            )  # fmt: skip
        seconds = self.seconds.setdefault(run.name, [])
        seconds.append(round(time.monotonic() - start, 1))
        print(f"{run.name}: {seconds[-1]} s", flush=True)
        if done.returncode:
            told = log.read_text("utf-8", "replace").splitlines()[-20:]
            raise RuntimeError("\n".join([f"{run.name} failed ({done.returncode}):", *told]))

    def compared(self, *held: str) -> dict[str, Any] | None:
        """Both sides over the questions that are selected in the records, as far as both were asked.

        Args:
            held: the evaluation set of both; each one's own by default.
        """
        found: dict[int, dict[str, Scored]] = {}
        for seed in self.seeds:
            runs = {
                side: Context(self.run(side, seed), held)
                for side in SIDES
                if self.asked(side, seed, held)
            }
            if len(runs) == len(SIDES):
                first = runs["given"]
                found[seed] = {side: scored(first, run) for side, run in runs.items()}
        if not found:
            return None
        metric = next(iter(found.values()))["given"].recipe.evaluate.metric
        sides = {side: [one[side] for one in found.values()] for side in SIDES}
        mean = {side: mean_of([one.values for one in every]) for side, every in sides.items()}
        difference = less(mean["built"], mean["given"])
        return {
            "n": len(sides["given"][0].chosen),
            "metric": metric,
            "seeds": [*found],
            **grouped({**mean, "difference": difference}, FIRST_SEED, {"difference": DIFFERENCE}),
            "by_seed": [self.of_seed(seed, one, metric) for seed, one in found.items()],
            "spread": spread(sides, metric) if len(found) > 1 else None,
        }

    def asked(self, side: str, seed: int, held: tuple[str, ...]) -> bool:
        run = self.run(side, seed)
        if not (run / "adapter").is_dir():
            return False
        return (Context(run, held).folder.answers("after") / "predictions.jsonl").is_file()

    def of_seed(self, seed: int, one: dict[str, Scored], metric: str) -> dict[str, Any]:
        values = {side: one[side].values[metric] for side in SIDES}
        difference = less({metric: values["built"]}, {metric: values["given"]})
        proofs = {side: read_proof(self.run(side, seed) / "adapter") for side in SIDES}
        return {
            "seed": seed,
            **{side: statistics.fmean(column) for side, column in values.items()},
            "difference": figures(difference, FIRST_SEED, DIFFERENCE)[metric],
            "fixed": sum(d > 0 for d in difference[metric]),
            "broken": sum(d < 0 for d in difference[metric]),
            "trained_tokens": {
                side: proof and proof.facts["train"]["tokens"] for side, proof in proofs.items()
            },
        }


def scored(first: Context, run: Context) -> Scored:
    """A run's answers over the questions that are selected in the first."""
    found = read_predictions(run.folder.answers("after") / "predictions.jsonl")
    answers = Answers({p.qid: p.prediction for p in found})
    return score_answers(first.recipe, first.questions, answers)


def mean_of(seeds: list[Columns]) -> dict[str, list[float]]:
    """Of each question the mean of the seeds."""
    return {m: np.mean([one[m] for one in seeds], axis=0).tolist() for m in seeds[0]}


def spread(sides: dict[str, list[Scored]], metric: str) -> dict[str, Any]:
    """What another seed changes: the standard deviation of the figures, and the share of questions."""
    values = {side: [one.values[metric] for one in every] for side, every in sides.items()}
    rates = {side: [statistics.fmean(one) for one in every] for side, every in values.items()}
    rates |= less({"difference": rates["built"]}, {"difference": rates["given"]})
    pairs = {side: [*combinations(every, 2)] for side, every in values.items()}
    return {
        "standard_deviation": {name: statistics.stdev(every) for name, every in rates.items()},
        "questions_that_differ_between_two_seeds": {
            side: float(np.mean([np.not_equal(a, b) for a, b in every]))
            for side, every in pairs.items()
        },
    }


if __name__ == "__main__":
    main()
