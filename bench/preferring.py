"""A reader that refuses, by preference tuning (DPO) and by the same data alone: CRAG's score.

    python bench/preferring.py RECIPE --data FOLDER --work FOLDER --out bench/results/NAME.json [KEY=VALUE ...]

RECIPE refuses, such as the best one that bench/search.py found; FOLDER of `--data` holds
squad2_rag.train.jsonl.gz and squad2_rag.dev.jsonl.gz. A tenth of the training questions is held apart by
article, and the rest is cut in two halves, by article too. For each of three seeds

- `data`: the recipe, on both halves;
- `reader`: the recipe, on the first half; it is asked the second, and what it answers wrongly there makes the
  pairs on which it is trained on, at one of `--rates`: `preference`.

Rate and threshold are chosen on the held questions: CRAG's score where at least half of what has an answer is
answered. Then all answer the evaluation set, without the threshold and with it. The same command goes on after
a break. `--tiny` is for a look at the script itself.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from commands import Words, require_all
from grids import ITSELF, SEEDS, TINY
from machine import made_with
from ragtune.base.files import read_jsonl, write_json, write_jsonl
from ragtune.data.apart import hold_apart
from ragtune.recipe.data import Data
from search import careful, over_seeds, scored_of, worth

Record = Mapping[str, Any]


def article(record: Record) -> str:
    """What a question is of: its first positive's article, without an answer that of its first passage."""
    place = next(iter(record["positive_passage_indices"]), 0)
    return str(record["passages"][place]["title"])


def halves(records: Sequence[Record], seed: int) -> tuple[list[Record], list[Record]]:
    """Whole articles, drawn until they have half of the questions; and the others."""
    sizes = Counter(map(article, records))
    order = sorted(sizes)
    random.Random(f"halves:{seed}").shuffle(order)
    first, count = set[str](), 0
    for name in order:
        if count < len(records) / 2:
            first.add(name)
            count += sizes[name]
    return [r for r in records if article(r) in first], [
        r for r in records if article(r) not in first
    ]


class Preferring:
    """The runs, in a folder.

    Args:
        options: of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.folder: Path = options.work.resolve()
        self.dev: Path = options.data.resolve() / "squad2_rag.dev.jsonl.gz"
        self.changes = [
            *options.changes,
            "devices=1",
            "publish.format=merged",
            "data.format=records",
            "evaluate.refuse_below=0",  # the threshold is chosen among all answers
        ]
        self.changes += TINY if options.tiny else []

    def part(self, name: str) -> Path:
        return self.folder / f"{name}.jsonl"

    def cut(self) -> dict[str, int]:
        """Cut the training data into the held questions and two halves; returns how many there are."""
        whole = self.options.data.resolve() / "squad2_rag.train.jsonl.gz"
        self.folder.mkdir(parents=True, exist_ok=True)
        hold_apart(
            Data(train=str(whole), eval="unused"), SEEDS[0], self.part("both"), self.part("held")
        )
        both = [*read_jsonl(self.part("both"))]
        for name, records in zip(("first", "second"), halves(both, SEEDS[0]), strict=True):
            write_jsonl(self.part(name), records)
        names = ("held", "first", "second")
        return {name: sum(1 for _ in read_jsonl(self.part(name))) for name in names}

    def run(self, name: str, seed: int) -> Path:
        return self.folder / f"{name}-{seed}"

    def words(self, command: str, name: str, seed: int, train: str, *more: str) -> Words:
        """A command of ragtune's on a run that trains a part, and is asked the held questions."""
        sets = [f"data.train={self.part(train)}", f"data.eval={self.part('held')}"]
        own = [f"name={name}", f"seed={seed}", "--run-dir", self.run(name, seed)]
        return ["-m", "ragtune", command, self.options.recipe, *self.changes, *sets, *more, *own]

    def every(self, seeds: Sequence[int], words: Callable[[int], Mapping[str, Words]]) -> None:
        """Let commands of all seeds work side by side."""
        commands = {f"{name}-{seed}": one for seed in seeds for name, one in words(seed).items()}
        require_all({name: (one, self.folder / f"{name}.log") for name, one in commands.items()})

    def readers(self) -> None:
        """Train by data alone, and the readers of the first half, and ask these the second half."""
        self.every(SEEDS, lambda seed: {
            "data": self.words("run", "data", seed, "both"),
            "reader": self.words("run", "reader", seed, "first"),
        })  # fmt: skip
        self.every(SEEDS, lambda seed: {
            "second": self.words("prepare", "second", seed, "second", self.from_reader(seed)),
        })  # fmt: skip
        self.every(SEEDS, lambda seed: {"reader": [
            "-m", "ragtune", "evaluate", self.run("reader", seed), f"data.eval={self.asked(seed)}", ITSELF,
        ]})  # fmt: skip

    def from_reader(self, seed: int) -> str:
        """The change that lets a run begin with a reader."""
        return f"model.id={self.run('reader', seed) / 'merged'}"

    def asked(self, seed: int) -> Path:
        """The second half as it is trained, which a reader is asked."""
        return self.run("second", seed) / "data" / "train.jsonl"

    def prefer(self, seeds: Sequence[int], rates: Sequence[str]) -> None:
        """Train readers on what they answered wrongly."""

        def preferred(seed: int, rate: str) -> Words:
            asked = self.run("reader", seed) / "eval" / self.asked(seed).stem
            answers = asked / "after" / "predictions.jsonl"
            more = [self.from_reader(seed), f"train.preference={answers}", "train.epochs=1"]
            more += [f"train.learning_rate={rate}", *(TINY[:1] if self.options.tiny else [])]
            return self.words("run", f"preference-{rate}", seed, "second", *more)

        self.every(seeds, lambda s: {f"preference-{rate}": preferred(s, rate) for rate in rates})

    def look(self, names: Sequence[str]) -> dict[str, Any]:
        """What runs say to the evaluation set, without their threshold and with it, over all seeds."""
        every = {name: {seed: self.run(name, seed) for seed in SEEDS} for name in names}
        chosen = {run: careful(scored_of(run)) for runs in every.values() for run in runs.values()}
        ways = {
            run: {
                "plain": ITSELF,
                "careful": f"evaluate.refuse_below={held['refuse_below']}" if held else ITSELF,
            }
            for run, held in chosen.items()
        }
        found: dict[str, Any] = {name: {} for name in names}
        for way in ("plain", "careful"):
            questions = self.folder / f"{way}.jsonl.gz"
            questions.write_bytes(self.dev.read_bytes())
            changes = {run: [f"data.eval={questions}", below[way]] for run, below in ways.items()}
            require_all({
                run.name: (["-m", "ragtune", "evaluate", run, *more], run.with_suffix(".log"))
                for run, more in changes.items()
            })  # fmt: skip
            for name, runs in every.items():
                scored = {seed: scored_of(run, *changes[run]) for seed, run in runs.items()}
                found[name][way] = over_seeds(scored)
        return {
            name: {**one, "held": {seed: chosen[run] for seed, run in every[name].items()}}
            for name, one in found.items()
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("recipe")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="where the runs lie")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rates", nargs="+", default=["5e-6", "2e-5", "5e-5"])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("changes", nargs="*", help="changes to the recipe")
    options = parser.parse_intermixed_args()
    one = Preferring(options)
    counts = one.cut()
    one.readers()
    one.prefer(SEEDS[:1], options.rates)
    tried = {r: careful(scored_of(one.run(f"preference-{r}", SEEDS[0]))) for r in options.rates}
    best = max(
        options.rates, key=lambda rate: worth({"worth": tried[rate] and tried[rate]["crag"]})
    )
    one.prefer(SEEDS[1:], [best])
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    found = {
        **made_with(device=device),
        "records": counts,
        "rates": tried,
        "rate": best,
        "dev": one.look(["data", "reader", f"preference-{best}"]),
    }
    write_json(options.out, found)
    print(json.dumps(found["rates"], indent=1))


if __name__ == "__main__":
    main()
