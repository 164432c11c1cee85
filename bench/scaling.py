"""The notebook's recipe on 1, 2, 4 and 8 GPUs of one machine, and TRL's DDP on as many.

    python bench/scaling.py --model MODEL --data FOLDER --out bench/results/scaling-NAME.json --gpus 1 2

That is the whole run on one GPU and on two, and TRL's step on two: by what is predicted, within the ten minutes
of `--budget` on H100s. FOLDER holds jaquad_rag.train.jsonl.gz and jaquad_rag.dev.jsonl.gz; a MODEL that isn't
there is made first, by bench/build_model.py. For eight GPUs, in calls of at most `--budget` seconds
each on one machine:

    python bench/build_model.py --data FOLDER --out MODEL
    python bench/scaling.py --model MODEL --data FOLDER --out FILE --gpus 1 2 4 8 --parts run
    python bench/scaling.py --model MODEL --data FOLDER --out FILE --gpus 1 2 4 8 --parts step trl

A call adds to what FILE holds, and refuses a FILE of another device or commit. Parts:
    run      `ragtune run`: the whole, of which the median step and the answers are taken as well
    step     `ragtune train` for 12 steps: the median step alone
    answers  `ragtune run` with a single step: the answers alone
    trl      TRL's step on the largest number of GPUs, by the quickest of its settings (peers/trl_sft.py)

`scaling` has how many times as fast as one GPU `train_step`, `evaluate` (after tuning; `evaluate_before` loads
kernels, too) and `run` are, taken from whole runs where those are there; `efficiency` divides that by the GPUs,
`against_trl` has TRL's time by ragtune's, `predicted` what bench/gpus.py says by link (`links`: what nvidia-smi
finds between the GPUs). `peak_gib` of a row is what rank 0 allocated, `used_gib` what nvidia-smi saw on the GPU
of every rank, by rank. `changed` counts the answers that are others than with the fewest GPUs, as in
bfloat16 some may be. `--tiny` is for tests on a CPU, where GPUs are processes.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from machine import made_with
from peers.common import MARK, Job, row
from peers.ours import step_row
from ragtune.answering.prediction import read_predictions
from ragtune.base.files import read_json, write_json
from ragtune.recipe.load import load_recipe, save
from side_by_side import ASKED, RECIPE, TINY, TINY_ASKED

BENCH = Path(__file__).resolve().parent
PARTS = ("run", "trl", "step", "answers")
SHORT_STEPS, TINY_SHORT_STEPS = 12, 4
VARIANTS = 3
"""Settings of TRL that are tried: those of peers.trl_sft.variants."""
WORKS = {"train_step": "step", "evaluate_before": "before", "evaluate": "after", "run": "run"}
"""What is measured, and what bench/gpus.py calls it."""
WORDS = {
    "train_step": "a step",
    "evaluate_before": "the questions before tuning",
    "evaluate": "the questions after tuning",
    "run": "the whole run",
}
NVLINK, PCIE = "NVLink 4 (H100 SXM), 450 GB/s", "PCIe 5 x16, 64 GB/s"
QUIET = 30.0
"""Seconds in which who is told to end ends."""
LEAST = 20.0
"""Seconds below which nothing is begun,"""
SHARE = 0.7
"""and this share of the longest of its kind: on more GPUs it takes less."""


def smi(query: str) -> list[list[str]]:
    """What nvidia-smi says of the GPUs that a process sees, a row each; nothing where there is none."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-gpu=index,uuid,{query}", "--format=csv,noheader,nounits"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603
    found = [[cell.strip() for cell in line.split(",")] for line in said.splitlines()]
    asked = os.environ.get("CUDA_VISIBLE_DEVICES")
    if asked is None:
        return [cells[1:] for cells in found]
    wanted = [name.strip() for name in asked.split(",") if name.strip()]
    return [cells[1:] for name in wanted for cells in found if name in cells[:2]]


def links() -> list[str]:
    """What lies between the GPUs, as nvidia-smi names it: NV18, PIX, SYS."""
    if shutil.which("nvidia-smi") is None:
        return []
    said = subprocess.run(["nvidia-smi", "topo", "-m"], capture_output=True, text=True, check=False)  # noqa: S607
    rows = [line.split() for line in said.stdout.splitlines() if line.startswith("GPU")]
    return sorted({cell for cells in rows for cell in cells[1 : 1 + len(rows)]} - {"X"})


@contextlib.contextmanager
def used(count: int) -> Iterator[list[float]]:
    """The most GiB that are used of each of the first GPUs, while something runs; nothing on a CPU."""
    most: list[float] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.25):
            now = [float(mib) / 1024 for _, mib in smi("memory.used")[:count]]
            most[:] = [round(max(a, b), 2) for a, b in zip(most or now, now, strict=False)]

    watcher = threading.Thread(target=look)
    if smi("name"):
        watcher.start()
    try:
        yield most
    finally:
        over.set()
        if watcher.is_alive():
            watcher.join()


def execute(command: list[str], log: Path, limit: float, environment: Mapping[str, str]) -> int:
    """Run a command with its words in a file, so long at most; returns its exit code."""
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(  # noqa: S603 - our own commands
            command, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            return process.wait(max(limit, 1))
        except subprocess.TimeoutExpired:
            file.write("out of time\n")
            return -signal.SIGKILL
        finally:
            # The ranks have sessions of their own, and end when who started them does so in order.
            process.terminate()
            try:
                process.wait(QUIET)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


class Scaling:
    """Measurements one after the other, within the time that there is; what is known is written at once."""

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        self.options, self.work = options, work
        self.start = time.monotonic()
        self.taken: dict[str, float] = {}
        """Seconds of the longest measurement of each part."""
        self.environment = {
            "HF_HUB_OFFLINE": "1",
            **({"OMP_NUM_THREADS": "1"} if options.tiny else {}),
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                [str(BENCH), *filter(None, [os.environ.get("PYTHONPATH")])]
            ),
        }
        self.values = self._begun()

    def _begun(self) -> dict[str, Any]:
        """The file's content: what is there of this device and commit, with this call.

        Raises:
            SystemExit: it is of another.
        """
        found = smi("name")
        devices = f"{len(found)} × {found[0][1]}" if found else ""
        made = made_with("trl", "bitsandbytes", "liger-kernel", device=devices)
        call = {"command": made.pop("command"), "load_before": made.pop("load_before")}
        values: dict[str, Any] = {
            **made, "links": links(), "tokens_per_sample": None, "calls": [], "rows": [], "notes": [],
        }  # fmt: skip
        if self.options.out.exists():
            old = read_json(self.options.out)
            for key in ("device", "commit"):
                if old[key] != values[key]:
                    sys.exit(
                        f"{self.options.out} was measured with {key} {old[key]}, and this is {values[key]}: "
                        "name another --out"
                    )
            values = old
        values["calls"].append(call)
        return values

    def measure(self) -> None:
        if not (self.options.model / "config.json").is_file():
            made = [sys.executable, str(BENCH / "build_model.py"), "--data", str(self.options.data)]
            tiny = ["--tiny"] if self.options.tiny else []
            self.act("model", [*made, "--out", str(self.options.model), *tiny])
        for part in self.options.parts:
            if part == "trl":
                self.trl(max(self.options.gpus))
                continue
            for gpus in self.options.gpus:
                getattr(self, part)(gpus)

    def left(self) -> float:
        return float(self.options.budget) - (time.monotonic() - self.start)

    def act(self, name: str, command: list[str], gpus: int = 0) -> tuple[float, list[float]] | None:
        """Run a command; returns its seconds and the memory used by rank, or notes why it failed."""
        part = name.partition("-")[0]
        if self.left() < max(LEAST, SHARE * self.taken.get(part, 0.0)):
            self.note(f"{name}: no time was left")
            return None
        log = self.work / f"{name}.log"
        begun = time.monotonic()
        with used(gpus) as most:
            code = execute(command, log, self.left(), self.environment)
        seconds = time.monotonic() - begun
        if code:
            lines = [x for x in log.read_text("utf-8").splitlines() if x.strip()]
            self.note(f"{name} failed ({code}): {' | '.join(lines[-3:])[-600:]}")
            return None
        self.taken[part] = max(self.taken.get(part, 0.0), seconds)
        return seconds, list(most)

    def recipe(self, name: str, *overrides: str) -> Path:
        """A recipe file: the notebook's, with this model and data."""
        data, tiny = self.options.data.resolve(), self.options.tiny
        given = (
            f"name={name}", f"model.id={self.options.model.resolve()}", "data.source=null",
            f"data.train={data / 'jaquad_rag.train.jsonl.gz'}",
            f"data.eval={data / 'jaquad_rag.dev.jsonl.gz'}",
            f"evaluate.limit={TINY_ASKED if tiny else ASKED}", "publish.format=adapter",
        )  # fmt: skip
        path = self.work / f"{name}.yaml"
        changes = [*(TINY if tiny else []), *self.options.changes, *overrides]
        save(load_recipe(RECIPE, [*given, *changes]), path)
        return path

    def ragtune(self, what: str, part: str, gpus: int, *overrides: str) -> dict[str, Any] | None:
        """Do a command of ragtune on so many GPUs; what run.json says, with seconds and memory."""
        name = f"{part}-{gpus}"
        folder = self.work / name / "run"  # beside another it would take that one's answers
        recipe = self.recipe(name, *overrides)
        command = [sys.executable, "-m", "ragtune", what, str(recipe), f"devices={gpus}"]
        done = self.act(name, [*command, "--run-dir", str(folder)], gpus)
        if done is None:
            return None
        seconds, most = done
        return {**read_json(folder / "run.json"), "seconds": seconds, "used": most}

    def run(self, gpus: int) -> None:
        state = self.ragtune("run", "run", gpus)
        if state is None:
            return
        peak = max(state["peak_gib"].values(), default=None)
        whole = row("ragtune", "run", state["seconds"], peak, times=state["times"])
        self.take(whole, "run", gpus, state["used"])
        self.trained(state, "run", gpus)
        self.asked(state, "run", gpus)

    def step(self, gpus: int) -> None:
        steps = TINY_SHORT_STEPS if self.options.tiny else SHORT_STEPS
        state = self.ragtune("train", "step", gpus, f"train.steps={steps}")
        if state is not None:
            self.trained(state, "step", gpus)

    def answers(self, gpus: int) -> None:
        state = self.ragtune("run", "answers", gpus, "train.steps=1")
        if state is not None:
            self.asked(state, "answers", gpus)

    def trained(self, state: dict[str, Any], part: str, gpus: int) -> None:
        one, train = step_row(state, "train_step"), state["train"]
        one["tokens_a_second"] = round(train["tokens"] / train["steps"] / one["seconds"])
        one["final_loss"] = round(train["final_loss"], 4)
        self.values["tokens_per_sample"] = round(train["tokens"] / train["samples"], 1)
        one["changes"] = state["plan"]["changes"]
        self.take(one, part, gpus, state["used"])

    def asked(self, state: dict[str, Any], part: str, gpus: int) -> None:
        for which, work in (("before", "evaluate_before"), ("after", "evaluate")):
            peak = state["peak_gib"].get(which)
            one = row("ragtune", work, state["times"][which], peak)
            one["changed"] = self.changed(which, part, gpus)
            self.take(one, part, gpus, state["used"])

    def changed(self, which: str, part: str, gpus: int) -> int | None:
        """Answers that are others than with the fewest GPUs; None where those aren't of this call."""
        runs = (self.work / f"{part}-{count}/run" for count in (min(self.options.gpus), gpus))
        files = [*(file for run in runs for file in run.glob(f"eval/*/{which}/predictions.jsonl"))]
        if len(files) < 2:  # noqa: PLR2004 - that run failed
            return None
        first, found = ({p.qid: p.prediction for p in read_predictions(file)} for file in files)
        return sum(found[qid] != text for qid, text in first.items())

    def trl(self, gpus: int) -> None:
        """TRL's step; every one of its settings in processes of its own, as one may run out of memory."""
        if importlib.util.find_spec("trl") is None:
            self.note("trl is not installed, so it was not measured")
            return
        samples, tiny, base = self.work / "samples.json", self.options.tiny, self.recipe("samples")
        prepare = [sys.executable, "-m", "peers.samples", str(base), str(self.work / "samples")]
        if self.act("samples", [*prepare, str(samples)]) is None:
            return
        job, recipe = self.work / "trl.json", load_recipe(base).model_dump(mode="json")
        Job(
            model=str(self.options.model.resolve()), samples=str(samples),
            work=str(self.work / "trainer"), recipe=recipe, tiny=tiny,
            seconds=1e9,  # the ranks must end at the same step: who ends them early is `execute`
            warm=1 if tiny else 2, timed=3 if tiny else 8, short_steps=0, questions=0, asked=0,
            memory_gib=0,
        ).write(job)  # fmt: skip
        for variant in range(VARIANTS):
            micro = recipe["train"]["batch_size"] // max(2, gpus)
            while micro:
                name = f"trl-{gpus}-{variant}-{micro}"
                torchrun = [
                    "-m",
                    "torch.distributed.run",
                    "--standalone",
                    "--nproc-per-node",
                    str(gpus),
                ]
                rank = ["-m", "peers.trl_ddp", str(job), str(variant), str(micro)]
                done = self.act(name, [sys.executable, *torchrun, *rank], gpus)
                if done is not None:
                    self.read_trl(self.work / f"{name}.log", gpus, done[1])
                log = self.work / f"{name}.log"
                if done or not log.exists() or "OutOfMemoryError" not in log.read_text("utf-8"):
                    break
                micro //= 2

    def read_trl(self, log: Path, gpus: int, most: list[float]) -> None:
        """Take TRL's row if none of its settings was quicker before."""
        said = [x for x in log.read_text("utf-8").splitlines() if x.startswith(MARK)]
        for event in (json.loads(line[len(MARK) :]) for line in said):
            if event.pop("kind") != "row":
                continue
            self.note(
                f"trl on {gpus}, {event['variant']}: {event['seconds']} s, {event['peak_gib']} GiB"
            )
            best = find(self.values["rows"], "trl", "train_step", gpus)
            if best is None or event["seconds"] < best["seconds"]:
                self.take(event, "trl", gpus, most)

    def take(self, one: dict[str, Any], part: str, gpus: int, most: list[float]) -> None:
        """Put a row in, in the place of one of the same."""
        one |= {"gpus": gpus, "part": part, "used_gib": most, "call": len(self.values["calls"])}
        same = ("system", "work", "gpus", "part")
        rows = [r for r in self.values["rows"] if any(r[key] != one[key] for key in same)]
        self.values["rows"] = [*rows, one]
        print(f"{one['system']} on {gpus}: {one['work']} {one['seconds']} s ({part})", flush=True)
        self.write()

    def note(self, text: str) -> None:
        self.values["notes"].append(text)
        print(text, flush=True)
        self.write()

    def write(self) -> None:
        self.values |= ratios(self.values["rows"])
        self.options.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.options.out, self.values)


def find(
    rows: Sequence[dict[str, Any]], system: str, work: str, gpus: int
) -> dict[str, Any] | None:
    """A row: of a whole run rather than of a part of it."""
    found = [r for r in rows if (r["system"], r["work"], r["gpus"]) == (system, work, gpus)]
    return min(found, key=lambda r: PARTS.index(r["part"]), default=None)


def ratios(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """How much faster than one GPU, than that by GPU, than TRL; and what was predicted, by link."""
    predicted = read_json(BENCH / "results/gpus-predicted.json")["links"]
    near = {name: counts for name, counts in predicted.items() if "between nodes" not in name}
    found: dict[str, dict[str, Any]] = {
        "scaling": {}, "efficiency": {}, "against_trl": {}, "predicted": {name: {} for name in near},
    }  # fmt: skip
    for work in WORKS:
        for gpus in sorted({r["gpus"] for r in rows}):
            key = f"{work}_{gpus}"
            here, alone = (find(rows, "ragtune", work, count) for count in (gpus, 1))
            theirs = find(rows, "trl", work, gpus)
            if here and theirs:
                found["against_trl"][key] = round(theirs["seconds"] / here["seconds"], 2)
            if not here or not alone or gpus == 1:
                continue
            times = alone["seconds"] / here["seconds"]
            found["scaling"][key] = round(times, 2)
            found["efficiency"][key] = round(times / gpus, 3)
            for name, counts in near.items():
                if str(gpus) in counts:
                    one, several = (counts[str(n)][WORKS[work]] for n in (1, gpus))
                    found["predicted"][name][key] = round(one / several, 2)
    return found


def table(values: Mapping[str, Any]) -> list[str]:
    """Seconds, how many times as fast as one GPU, and what was predicted, as Markdown."""
    rows = values["rows"]
    counts = sorted({r["gpus"] for r in rows})
    heads = [f"{n} GPU{'s' * (n > 1)}" for n in counts]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    nvlink = any(link.startswith("NV") for link in values["links"])
    predicted = values["predicted"][NVLINK if nvlink else PCIE]
    for work, words in WORDS.items():
        cells = []
        for gpus in counts:
            one, key = find(rows, "ragtune", work, gpus), f"{work}_{gpus}"
            cell = f"{one['seconds']:.{2 if work == 'train_step' else 1}f} s" if one else "–"
            if key in values["scaling"]:
                cell += f", {values['scaling'][key]:.2f} ×"
            if key in values["scaling"] and key in predicted:
                cell += f" (predicted: {predicted[key]:.2f})"
            cells.append(cell)
        if any(cell != "–" for cell in cells):
            lines.append(f"| {words} | {' | '.join(cells)} |")
    theirs = [find(rows, "trl", "train_step", gpus) for gpus in counts]
    if any(theirs):
        lines.append(f"| TRL, a step | {' | '.join(map(_of_trl, theirs))} |")
    return lines


def _of_trl(one: dict[str, Any] | None) -> str:
    return f"{one['seconds']:.2f} s" if one else "–"


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="of bench/build_model.py")
    parser.add_argument("--data", type=Path, required=True, help="the folder of jaquad_rag")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file that is written")
    parser.add_argument("--gpus", type=int, nargs="+", choices=[1, 2, 4, 8], default=[1, 2])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=["run", "trl"])
    parser.add_argument(
        "--changes", nargs="+", default=[], help="to the recipe: train.products=fp8, say"
    )
    parser.add_argument("--budget", type=float, default=560, help="seconds for all of them")
    parser.add_argument("--tiny", action="store_true", help="for tests on a CPU")
    parser.add_argument("--work", type=Path, help="for runs and logs; a temporary folder otherwise")
    parser.add_argument("--keep", action="store_true", help="keep that folder")
    options = parser.parse_args(arguments)
    there = len(smi("name"))
    if not options.tiny and there < max(options.gpus):
        parser.error(f"--gpus {max(options.gpus)}: there are {there}")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = read_options(arguments)
    options.work = options.work or Path(tempfile.mkdtemp(prefix="scaling-"))
    options.work.mkdir(parents=True, exist_ok=True)
    scaling = Scaling(options, options.work)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what is open is ended, too
    try:
        scaling.measure()
    finally:
        scaling.write()
        print("\n" + "\n".join(table(scaling.values)), flush=True)
        if not options.keep:
            shutil.rmtree(options.work, ignore_errors=True)


if __name__ == "__main__":
    main()
