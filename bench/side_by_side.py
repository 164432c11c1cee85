"""ragtune against its peers: the same model, samples, steps and questions on one machine.

    python bench/build_model.py --data FOLDER --out MODEL
    python bench/side_by_side.py --model MODEL --data FOLDER --out bench/results/NAME.json

FOLDER holds jaquad_rag.train.jsonl.gz and jaquad_rag.dev.jsonl.gz. Every system runs in its own
process, one after the other; one that fails is noted, and the others go on. What is known is
printed and written at once, so that a run that is cut off keeps it. `--tiny` is for tests on a CPU
with a model of build_model.py --tiny.

Rows (`work`): seconds of an optimizer step as in the recipe (train_step), without dropout
(train_step_dropout0) and within 12 GiB (train_step_12gib); of all questions before and after tuning
(evaluate_before, evaluate_after); and of the whole (run). `projected` rows were not run to their end.
`equal_memory` has ragtune's step within the memory that a peer's step took.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from peers.common import MARK, Job, row
from peers.ours import step_row
from peers.results import EQUAL, Results, table
from ragtune.recipe.load import load_recipe, save
from ragtune.store.folder import RunFolder
from ragtune.store.sets import set_name

BENCH = Path(__file__).resolve().parent
RECIPE = BENCH.parent / "recipes" / "aio-swallow-7b.yaml"
MODULES = {"notebook": "peers.notebook", "trl": "peers.trl_sft", "unsloth": "peers.unsloth_sft"}
SYSTEMS = ("ragtune", "trl", "notebook", "unsloth")
RESERVED = {"ragtune": 280, "trl": 260, "notebook": 280, "unsloth": 300}
"""Seconds that the systems before one leave to it."""
EQUAL_SECONDS = 60
"""What a peer leaves to ragtune's step within its memory."""
ASKED, SHORT_STEPS, MEMORY_GIB = 637, 12, 12.0

TINY = [
    "model.quantization=null", "model.dtype=float32", "train.optimizer=adamw", "lora.rank=8", "lora.alpha=8",
    "train.steps=6", "train.batch_size=4", "train.learning_rate=0.01", "evaluate.max_new_tokens=4",
]  # fmt: skip
TINY_ASKED, TINY_SHORT_STEPS = 6, 5


class Harness:
    """The systems one after the other, within the time that there is."""

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        self.options = options
        self.work = work
        self.results = Results(options.out, add=options.add)
        self.start = time.monotonic()
        self.now = ""  # the system that is on
        self.samples = work / "samples.json"
        self.full = work / "run"
        self.environment = {
            "CUDA_VISIBLE_DEVICES": "0",
            "HF_HUB_OFFLINE": "1",
            # So small a model gains nothing from threads that wait for each other.
            **({"OMP_NUM_THREADS": "1"} if options.tiny else {}),
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                [str(BENCH), *filter(None, [os.environ.get("PYTHONPATH")])]
            ),
        }

    def left(self) -> float:
        """Seconds of the budget for the system that is on, less what the later ones need."""
        later = self.options.systems[self.options.systems.index(self.now) + 1 :]
        reserved = min(sum(RESERVED[s] for s in later), self.options.budget / 2)
        return self.options.budget - (time.monotonic() - self.start) - reserved

    def recipe(self, name: str, *overrides: str) -> Path:
        """A recipe file: aio-swallow-7b's, with this model and data."""
        data, tiny = self.options.data.resolve(), self.options.tiny
        path = self.work / f"{name}.yaml"
        recipe = load_recipe(
            RECIPE,
            [
                f"name={name}",
                f"model.id={self.options.model.resolve()}",
                "data.source=null",
                f"data.train={data / 'jaquad_rag.train.jsonl.gz'}",
                f"data.eval={data / 'jaquad_rag.dev.jsonl.gz'}",
                f"evaluate.limit={TINY_ASKED if tiny else ASKED}",
                "publish.format=adapter",
                *(TINY if tiny else []),
                *self.options.changes,
                *overrides,
            ],
        )
        save(recipe, path)
        return path

    def execute(
        self, name: str, command: list[str], limit: float, packages: str | None = None
    ) -> bool:
        """Run a command in its own process group, take what it reports; whether it succeeded.

        Args:
            name: of the log file.
            command: what is run.
            limit: seconds, after which it is killed.
            packages: a folder of packages that come before all others.
        """
        paths = [*filter(None, [packages]), self.environment["PYTHONPATH"]]
        log = self.work / f"{name}.log"
        with log.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(  # noqa: S603 - our own commands
                command,
                env={**self.environment, "PYTHONPATH": os.pathsep.join(paths)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
            timer = threading.Timer(max(limit, 1), os.killpg, (process.pid, signal.SIGKILL))
            timer.start()
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    if line.startswith(MARK):
                        self.results.take(json.loads(line[len(MARK) :]))
                    else:
                        file.write(line)
                        file.flush()
                code = process.wait()
            finally:
                timer.cancel()
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
        if code:
            lines = [x for x in log.read_text("utf-8").splitlines() if x.strip()]
            why = "stopped: out of time" if code == -signal.SIGKILL else f"failed ({code})"
            tail = " | ".join(lines[-3:])[-600:]
            self.results.take({"kind": "note", "system": self.now, "text": f"{name} {why}: {tail}"})
        return code == 0

    def run(self) -> None:
        for system in self.options.systems:
            self.now = system
            if system == "ragtune":
                self.ragtune()
            else:
                self.peer(system)
            if self.samples.exists():
                made = json.loads(self.samples.read_text("utf-8"))
                self.results.values["tokens_per_sample"] = made["tokens_per_sample"]
            self.results.write()
        if not self.options.keep:
            shutil.rmtree(self.work, ignore_errors=True)

    def job(self, name: str, less: float = 0) -> Path:
        """A worker's job file; its time is what is left, less some seconds."""
        tiny = self.options.tiny
        recipe = load_recipe(self.recipe("job"))
        path = self.work / f"{name}.json"
        Job(
            model=str(self.options.model.resolve()),
            samples=str(self.samples),
            work=str(self.work / "trainer"),
            recipe=recipe.model_dump(mode="json"),
            tiny=tiny,
            seconds=self.left() - less,
            warm=1 if tiny else 2,
            timed=TINY_SHORT_STEPS - 1 if tiny else self.options.steps,
            short_steps=TINY_SHORT_STEPS if tiny else SHORT_STEPS,
            questions=2 if tiny else self.options.questions,
            asked=TINY_ASKED if tiny else ASKED,
            memory_gib=MEMORY_GIB,
        ).write(path)
        return path

    def ragtune(self) -> None:
        recipe = self.recipe("side-by-side")
        start = time.monotonic()
        command = [sys.executable, "-m", "ragtune", "run", str(recipe), "--run-dir", str(self.full)]
        whole = self.execute("ragtune-run", command, self.left())
        self.read_run(time.monotonic() - start if whole else None)
        self.short("train_step_dropout0", None, "lora.dropout=0")
        self.short("train_step_12gib", MEMORY_GIB)

    def short(self, work: str, gib: float | None, *changes: str) -> None:
        """A short training of ragtune, with no more memory than `gib`."""
        steps = TINY_SHORT_STEPS if self.options.tiny else SHORT_STEPS
        folder = self.work / work
        full = run_folder(self.full)
        if full is not None and full.questions.is_dir():
            for made in (full.data, full.questions):
                place = folder / made.relative_to(self.full)
                shutil.copytree(made, place, dirs_exist_ok=True)
            shutil.copy(full.summary, folder / full.summary.name)  # without one it is no run
        path = self.recipe(work, f"train.steps={steps}", *changes)
        job = self.job(work)
        command = [sys.executable, "-m", "peers.ours", str(job), str(path), str(folder), work]
        limit = [] if gib is None else [str(gib)]
        self.execute(f"ragtune-{work}", [*command, *limit], self.left())
        shutil.rmtree(folder, ignore_errors=True)

    def equal_memory(self, system: str) -> None:
        """ragtune's step again, with no more memory than a peer's step took."""
        rows = {(r["system"], r["work"]): r for r in self.results.values["rows"]}
        theirs = rows.get((system, "train_step"))
        if theirs and (theirs["peak_gib"] is not None or self.options.tiny):
            self.short(EQUAL + system, theirs["peak_gib"])

    def read_run(self, seconds: float | None) -> None:
        """The rows of the whole run; of one that was cut off, those that are there."""
        path = self.full / "run.json"
        if not path.exists():
            return
        state = json.loads(path.read_text("utf-8"))
        peaks = state.get("peak_gib", {})
        times, rows = state.get("times", {}), []
        if seconds is not None:
            highest = max((p for p in peaks.values() if p is not None), default=None)
            rows.append(row("ragtune", "run", seconds, highest, times=times))
        for which in ("before", "after"):
            if which in times:
                # Without a stage of its own, loading belongs to the first that asks the model.
                first = which == "before" and "load" not in times
                loads = {"variant": "with loading"} if first else {}
                name, peak = f"evaluate_{which}", peaks.get(which)
                asked = self.answers(which)
                rows.append(row("ragtune", name, times[which], peak, measured=asked, **loads))
        if "train" in state:
            rows.append(step_row(state, "train_step"))
        for one in rows:
            self.results.take({"kind": "row", **one})
        log = self.full / "adapter" / "train_log.jsonl"
        if log.exists():
            entries = map(json.loads, log.read_text("utf-8").splitlines())
            losses = [e["loss"] for e in entries if "loss" in e]
            self.results.take({"kind": "losses", "name": "ragtune, train_step", "values": losses})

    def answers(self, which: str) -> int:
        """How many questions were answered; the mean length of the answers is noted."""
        full = run_folder(self.full)
        assert full is not None
        path = full.answers(which) / "predictions.jsonl"
        found = [json.loads(x) for x in path.read_text("utf-8").splitlines()]
        mean = sum(len(p["token_ids"]) for p in found) / len(found)
        text = f"{len(found)} answers {which} tuning, {mean:.1f} tokens on average"
        self.results.take({"kind": "note", "system": "ragtune", "text": text})
        return len(found)

    def peer(self, system: str) -> None:
        if not self.samples.exists():
            command = [sys.executable, "-m", "peers.samples", str(self.recipe("side-by-side"))]
            self.execute("samples", [*command, str(self.full), str(self.samples)], self.left())
        if not self.samples.exists():
            self.results.note(system, "no samples, so nothing was measured")
            return
        equal = system != "notebook"  # which takes less than the 12 GiB of a row of its own
        less = EQUAL_SECONDS if equal and not self.options.tiny else 0
        job = self.job(system, less)
        command = [sys.executable, "-m", MODULES[system], str(job)]
        self.execute(system, command, self.left() - less, self.options.path.get(system))
        if equal:
            self.equal_memory(system)


def run_folder(path: Path) -> RunFolder | None:
    """What lies where in a run that was begun; None if it was not."""
    recipe = path / "recipe.yaml"
    return RunFolder(path, set_name(load_recipe(recipe))) if recipe.exists() else None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="of bench/build_model.py")
    parser.add_argument("--data", type=Path, required=True, help="the folder of jaquad_rag")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file that is written")
    parser.add_argument("--tiny", action="store_true", help="for tests on a CPU")
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="which, in this order")
    parser.add_argument("--budget", type=float, default=540, help="seconds for all of them")
    parser.add_argument("--questions", type=int, default=16, help="asked of the notebook's way")
    parser.add_argument("--steps", type=int, default=8, help="timed steps of the peers")
    parser.add_argument(
        "--path",
        action="append",
        default=[],
        metavar="SYSTEM=FOLDER",
        help="packages that a system needs in other versions (pip install --target FOLDER)",
    )
    parser.add_argument("--add", action="store_true", help="to what --out holds, on one machine")
    parser.add_argument("--work", type=Path, help="for runs and logs; a temporary folder otherwise")
    parser.add_argument("--keep", action="store_true", help="keep that folder")
    parser.add_argument("changes", nargs="*", help="changes to the recipe: train.products=fp8, say")
    options = parser.parse_args()
    options.systems = options.systems.split(",")
    options.path = dict(pair.split("=", 1) for pair in options.path)
    unknown = set(options.systems) - set(SYSTEMS)
    if unknown:
        parser.error(f"--systems: no {', '.join(sorted(unknown))}; there are {', '.join(SYSTEMS)}")
    work = options.work or Path(tempfile.mkdtemp(prefix="side-by-side-"))
    work.mkdir(parents=True, exist_ok=True)
    harness = Harness(options, work)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what is open is ended, too
    try:
        harness.run()
    finally:
        harness.results.write()
        print("\n" + table(harness.results.values["rows"], options.systems), flush=True)


if __name__ == "__main__":
    main()
