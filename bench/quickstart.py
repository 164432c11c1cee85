"""Run a quickstart as a user would, in its own process, and record figures, time and memory.

python bench/quickstart.py recipes/quickstart.yaml --out bench/results/quickstart-cpu.json
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "ragtune", "run", options.recipe, "--run-dir", str(run)]
        # With an empty cache: converting the GGUF file is part of a first run.
        environment = {**os.environ, "RAGTUNE_CACHE": f"{folder}/cache", "HF_HUB_OFFLINE": "1"}
        start = time.monotonic()
        subprocess.run(command, check=True, env=environment)  # noqa: S603 - our own command
        seconds = time.monotonic() - start
        state = json.loads((run / "run.json").read_text("utf-8"))
        (compared,) = run.glob("eval/*/comparison.json")
        comparison = json.loads(compared.read_text("utf-8"))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    result = {
        "format": 1,
        "command": f"python bench/quickstart.py {options.recipe}",
        "device": f"{processor()}, {os.cpu_count()} cores",
        "versions": state["versions"],
        "seconds": round(seconds, 1),
        "peak_memory_gib": round(peak / 2**30, 2),
        "times": state["times"],
        "plan": state["plan"],
        "train": state["train"],
        "merge": state["merge"],
        "comparison": comparison,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(json.dumps({k: result[k] for k in ("seconds", "peak_memory_gib", "times")}, indent=1))


if __name__ == "__main__":
    main()
