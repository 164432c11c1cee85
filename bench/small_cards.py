"""The notebook's recipe within the memory of smaller cards: does it run to the end, and in what plan?

    python bench/small_cards.py --model MODEL --data FOLDER --out FILE.json [--gib 15,22,38]
        [--steps 100] [--questions 637] [--together]

MODEL is that of bench/build_model.py, FOLDER holds jaquad_rag. Each size is a process of its own,
limited by torch.cuda.set_per_process_memory_fraction before anything is loaded, and then one
`ragtune.run`: the plan, what it predicted, and the peaks of every stage are written. With --together
all run at once on one large card: its memory is shared out, so plans and peaks stay what they are,
but times say nothing.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import ragtune
from peers.common import device_name, limit_memory
from ragtune.base.files import read_json
from ragtune.base.versions import versions

RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "aio-swallow-7b.yaml"


def one(options: argparse.Namespace, gib: float) -> None:
    """Run the recipe in this process, limited."""
    limit_memory(gib)
    data = options.data
    ragtune.run(
        str(RECIPE),
        f"name=gib{gib:g}",
        f"model.id={options.model}",
        "data.source=null",
        f"data.train={data / 'jaquad_rag.train.jsonl.gz'}",
        f"data.eval={data / 'jaquad_rag.dev.jsonl.gz'}",
        f"evaluate.limit={options.questions}",
        f"train.steps={options.steps}",
        "publish.format=adapter",
        "devices=1",  # others would not be limited
        run_dir=options.work / f"gib{gib:g}",
    )
    if torch.cuda.is_available():
        print("reserved", round(torch.cuda.max_memory_reserved() / 2**30, 2), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--gib", default="15,22,38")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--questions", type=int, default=637)
    parser.add_argument("--together", action="store_true", help="all at once")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--one", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options, options.one)
        return
    work = options.work or Path(tempfile.mkdtemp(prefix="small-cards-"))
    work.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        "format": 1,
        "device": device_name(),
        "versions": versions(),
        "command": shlex.join(["python", "bench/small_cards.py", *sys.argv[1:]]),
        "cards": [],
    }
    sizes = [float(size) for size in options.gib.split(",")]
    waves = [sizes] if options.together else [[size] for size in sizes]
    for wave in waves:
        start = time.monotonic()
        for gib, process in [(gib, begin(work, gib)) for gib in wave]:
            process.wait()
            card = read(work, gib, process.returncode, time.monotonic() - start)
            result["cards"].append(card)
            options.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def begin(work: Path, gib: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, *sys.argv[1:], "--work", str(work), "--one", str(gib)]
    with (work / f"gib{gib:g}.log").open("w") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)  # noqa: S603


def read(work: Path, gib: float, code: int, seconds: float) -> dict[str, Any]:
    """What a run on a card of this size left; a line of it is printed."""
    path = work / f"gib{gib:g}" / "run.json"
    state = read_json(path) if path.exists() else {}
    output = (work / f"gib{gib:g}.log").read_text("utf-8")
    card = {
        "gib": gib,
        "finished": code == 0,
        "seconds": round(seconds, 1),
        **{k: state.get(k) for k in ("plan", "peak_gib", "times", "train")},
    }
    if code:
        card["output"] = output[-2000:]
    plan, memory = card["plan"] or {}, (card["plan"] or {}).get("memory", {})
    print(
        f"{gib:g} GiB: {'FAILED' if code else 'finished'} in {card['seconds']} s;",
        f"{plan.get('samples_per_row')} a row, recompute {plan.get('recompute')}, dequantized",
        f"{plan.get('dequantized')}, predicted {memory.get('training')}/{memory.get('evaluation')},",
        f"peaks {card['peak_gib']}, changes {plan.get('changes')},",
        f"step {(card['train'] or {}).get('step_seconds')} s, {output[-20:].strip()}",
        card.get("output", ""),
        flush=True,
    )
    return card


if __name__ == "__main__":
    main()
