"""LoRA on a base that one GPU can't hold: Llama 3 70B's shape, spread over the GPUs of one machine.

    python bench/sharded.py --model MODEL --data FOLDER --out bench/results/sharded-NAME.json --gpus 4

The notebook's recipe with rank 16 and the base in bfloat16, for 8 steps. FOLDER holds jaquad_rag.train.jsonl.gz
and jaquad_rag.dev.jsonl.gz; a MODEL that isn't there is made first, by bench/build_model.py with random
weights: 138 GB with 80 layers, which then lie in this machine's memory as well, once. In calls of
at most `--budget` seconds each on one machine:

    python bench/sharded.py --model MODEL --data FOLDER --out FILE --work WORK --parts model train
    python bench/sharded.py --model MODEL --data FOLDER --out FILE --work WORK --parts resume probe nf4

A call adds to what FILE holds, and refuses a FILE of another device or commit. Parts:
    model   the folder is made
    train   `ragtune train` for 8 steps, unbroken
    resume  the same, told to end (SIGTERM) once the checkpoint of step 4 is there; then the same command again.
            `loss_differs` is how far the losses of all steps are from those of `train`, at most
    probe   whether a layer in NF4 computes the same where it is spread, with this bitsandbytes: what is
            otherwise, or nothing
    nf4     `train` with the base in NF4; the plan says whether that is spread, or whole on each GPU

A row has the median `seconds` of a step (the first doesn't count), `load_seconds`, `peak_gib`, which rank 0
allocated, `used_gib`, which nvidia-smi saw on the GPU of every rank, and `predicted`, the plan's GiB for it.
`private_gib` is this machine's memory that all processes of the run had together, without the files' pages, of
which there is one copy; `left_gib` the least that the machine had to give meanwhile. `train` must have
been measured in the same WORK before `resume`. `--memory` lets each process have less of its GPU, so that what
would fit is spread as well: 20 layers within 24 GiB on 4 GPUs, or 80 layers in NF4 within 36. `--tiny` is for
tests on a CPU, where GPUs are processes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
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

import psutil

from ragtune.base.files import read_json, read_jsonl, write_json
from scaling import QUIET, Scaling, smi, used

BENCH = Path(__file__).resolve().parent
PARTS = ("model", "train", "resume", "probe", "nf4")
STEPS, STOP = 8, 4
GIVEN = ["model.quantization=null", "lora.rank=16", "lora.alpha=16", f"train.steps={STEPS}",
         f"train.save_every={STOP}", "train.log_every=1"]  # fmt: skip
GIB = 2**30


def start(command: list[str], log: Path, environment: Mapping[str, str]) -> Any:
    """Begin a command with its words in a file."""
    with log.open("w", encoding="utf-8") as file:
        return subprocess.Popen(  # noqa: S603 - our own commands
            command, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )


def end(process: Any, patience: float) -> None:
    """End a command in order, and its ranks with it; it is killed if that takes more seconds."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    until = time.monotonic() + max(patience, QUIET)
    while process.poll() is None and time.monotonic() < until:
        time.sleep(0.1)
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)


@contextlib.contextmanager
def host(pid: int) -> Iterator[dict[str, float]]:
    """The most memory that a process and its children have of their own, and the least that is left, in GiB."""
    found = {"private_gib": 0.0, "left_gib": psutil.virtual_memory().available / GIB}
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.5):
            with contextlib.suppress(psutil.Error):
                one = psutil.Process(pid)
                family = [one, *one.children(recursive=True)]
                private = sum(p.memory_info().rss - p.memory_info().shared for p in family) / GIB
                found["private_gib"] = round(max(found["private_gib"], private), 2)
            left = psutil.virtual_memory().available / GIB
            found["left_gib"] = round(min(found["left_gib"], left), 2)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()


class Sharded(Scaling):
    """The parts one after the other, within the time that there is; what is known is written at once."""

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        super().__init__(options, work)
        if options.memory:
            share = options.memory * 1024 / min(float(mib) for _, mib in smi("memory.total"))
            self.environment["PYTORCH_CUDA_ALLOC_CONF"] = (
                f"expandable_segments:True,per_process_memory_fraction:{share:.4f}"
            )

    def measure(self) -> None:
        for part in self.options.parts:
            getattr(self, part)()

    def execute(self, name: str, command: list[str], stop: str = "") -> dict[str, Any] | None:
        """Run a command, until a file of its run directory is there if one is named (a pattern).

        Returns:
            Its seconds, and what memory was used; None if it failed, which is noted.
        """
        log, begun = self.work / f"{name}.log", time.monotonic()
        if self.left() <= 0:
            self.note(f"{name}: no time was left")
            return None
        process = start(command, log, self.environment)
        with used(self.options.gpus) as most, host(process.pid) as memory:
            try:
                while process.poll() is None and self.left() > 0:
                    if stop and any(self.work.glob(stop)):
                        break
                    time.sleep(0.1)
            finally:
                late = process.poll() is None and self.left() <= 0
                end(process, self.left() if stop else 0)
        code = process.poll()
        if late or (code and not stop):
            lines = [x for x in log.read_text("utf-8").splitlines() if x.strip()]
            why = "out of time" if late else f"failed ({code})"
            self.note(f"{name} {why}: {' | '.join(lines[-3:])[-600:]}")
            return None
        return {
            "whole_seconds": round(time.monotonic() - begun, 1), "used_gib": list(most), **memory,
            "said": log.read_text("utf-8"),
        }  # fmt: skip

    def model(self) -> None:
        """Make the model's folder, unless it is there.

        Raises:
            SystemExit: it is there with other layers.
        """
        made, layers = self.options.model / "build.json", self.options.layers
        if not made.is_file():
            size = ["--tiny"] if self.options.tiny else ["--large", str(layers)]
            command = [sys.executable, str(BENCH / "build_model.py")]
            data = ["--data", str(self.options.data), "--out", str(self.options.model)]
            if self.execute("model", [*command, *data, *size]) is None:
                return
        built = read_json(made)
        found = built["shape"]["num_hidden_layers"]
        if found != layers and not self.options.tiny:
            sys.exit(f"{self.options.model} has {found} layers, and --layers is {layers}")
        seconds = built["seconds"]["all"]
        self.values["model"] = {
            "layers": found,
            "parameters": built["parameters"],
            "seconds": seconds,
        }
        self.write()

    def tune(
        self, part: str, *overrides: str, stop: str = "", again: str = ""
    ) -> dict[str, Any] | None:
        """`ragtune train` in the folder of a part, perhaps once more; what was used."""
        tiny = ["lora.rank=8", "lora.alpha=8", "lora.dropout=0"] if self.options.tiny else []
        recipe = self.recipe(part, *GIVEN, *tiny, *overrides)
        command = [sys.executable, "-m", "ragtune", "train", str(recipe)]
        run = ["--run-dir", str(self.work / part / "run")]
        return self.execute(part + again, [*command, f"devices={self.options.gpus}", *run], stop)

    def losses(self, part: str) -> list[float]:
        log = self.work / part / "run/adapter/train_log.jsonl"
        return [one["loss"] for one in read_jsonl(log) if "loss" in one] if log.exists() else []

    def take_training(self, part: str, done: dict[str, Any]) -> None:
        """Take the row of a training that was whole."""
        state = read_json(self.work / part / "run/run.json")
        train, plan = state["train"], state["plan"]
        seconds = train["step_seconds"]
        self.values["tokens_per_sample"] = round(train["tokens"] / train["samples"], 1)
        self.put(part, {
            "seconds": round(seconds, 3),
            "tokens_a_second": round(train["tokens"] / train["steps"] / seconds),
            "load_seconds": state["times"].get("load"),
            "peak_gib": state["peak_gib"].get("train"),
            "predicted": {key: plan["memory"].get(key) for key in ("training", "weights", "available")},
            "spread": plan["spread"], "quantization": plan["quantization"],
            "dequantized": plan["dequantized"], "recompute": plan["recompute"],
            "samples_per_row": plan["samples_per_row"], "changes": plan["changes"],
            "losses": self.losses(part), **done,
        })  # fmt: skip

    def train(self) -> None:
        done = self.tune("train")
        if done is not None:
            self.take_training("train", done)

    def nf4(self) -> None:
        done = self.tune("nf4", "model.quantization=nf4")
        if done is not None:
            self.take_training("nf4", done)

    def resume(self) -> None:
        expected = self.losses("train")
        if not expected:
            self.note("resume: `train` was not measured in this --work")
            return
        stop = f"resume/run/work/*/checkpoint-{STOP}"
        first = self.tune("resume", stop=stop)
        if first is None:
            return
        steps = [int(path.name.rpartition("-")[2]) for path in self.work.glob(stop[:-1] + "*")]
        if not steps:
            self.note(f"resume: it ended by itself: {first['said'][-600:]}")
            return
        second = self.tune("resume", again="-again")
        if second is None:
            return
        found = self.losses("resume")
        if len(found) != len(expected):
            self.note(f"resume: losses of {len(found)} steps, and {len(expected)} without a break")
            return
        differ = [abs(a - b) for a, b in zip(found, expected, strict=True)]
        self.put("resume", {
            "stopped_at": max(steps), "steps": len(found), "seconds_before": first["whole_seconds"],
            "seconds_after": second["whole_seconds"], "equal": found == expected,
            "loss_differs": max(differ), "losses": found,
        })  # fmt: skip

    def probe(self) -> None:
        """In processes of its own, with the ranks' own backend."""
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
        command = [sys.executable, *torchrun, str(self.options.gpus), str(BENCH / "peers/probe.py")]
        done = self.execute("probe", command)
        if done is not None:
            found = [line for line in done["said"].splitlines() if line.startswith("{")]
            self.put("probe", json.loads(found[-1]))

    def put(self, part: str, row: dict[str, Any]) -> None:
        """Put a row in, in the place of one of the same."""
        asked = {key: getattr(self.options, key) for key in ("gpus", "memory")}
        row = {"part": part, **asked, "call": len(self.values["calls"]), **row}
        row.pop("said", None)
        same = ("part", "gpus", "memory")
        rows = [r for r in self.values["rows"] if any(r[key] != row[key] for key in same)]
        self.values["rows"] = [*rows, row]
        print(json.dumps(row), flush=True)
        self.write()

    def write(self) -> None:
        self.options.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.options.out, self.values)


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="it is made if it isn't there")
    parser.add_argument("--data", type=Path, required=True, help="the folder of jaquad_rag")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file that is written")
    parser.add_argument("--gpus", type=int, default=4)
    parser.add_argument(
        "--layers", type=int, default=80, help="of the model; fewer are quicker made"
    )
    parser.add_argument("--memory", type=float, help="GiB that each process may have")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--budget", type=float, default=560, help="seconds for all of them")
    parser.add_argument("--tiny", action="store_true", help="for tests on a CPU")
    parser.add_argument(
        "--work", type=Path, help="for runs and logs, kept; a temporary folder otherwise"
    )
    parser.set_defaults(changes=[])  # which only bench/scaling.py takes
    options = parser.parse_args(arguments)
    there = len(smi("name"))
    if not options.tiny and there < options.gpus:
        parser.error(f"--gpus {options.gpus}: there are {there}")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = read_options(arguments)
    work = options.work or Path(tempfile.mkdtemp(prefix="sharded-"))
    work.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what is open is ended, too
    sharded = Sharded(options, work)
    try:
        sharded.measure()
    finally:
        sharded.write()
        if options.work is None:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
