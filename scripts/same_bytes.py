"""Proof that a change changes no result: the same runs by two versions of the code, compared.

    python scripts/same_bytes.py make old.json --src OLD/src [--quickstarts]
    python scripts/same_bytes.py make new.json [--quickstarts]
    python scripts/same_bytes.py compare old.json new.json

`make` uses the ragtune below --src, or else the one that Python finds. It tunes a tiny model (refusals,
checkpoints, controls, merging), does the same again with a kill after a checkpoint, and with --quickstarts
both recipes of `recipes/`. It notes of each the digests of data, adapter and merged model, the predictions,
the content of comparison and controls, and the report without times, versions and paths. `compare` says
what differs; exit code 1 if anything does. Sums depend on the number of threads: the tiny runs have one, and
OMP_NUM_THREADS must be the same for both quickstarts. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
QUICKSTARTS = ("quickstart", "quickstart-ja")
CUT_AT = "checkpoint-12"
"""The tiny run is killed when it begins this checkpoint; the one before is whole."""
UNTIMELY = re.compile(r"second|time|peak|version|format|date|path|tokens_a_")
"""Keys of JSON whose values belong to one machine, one moment or one version."""
FILES = {
    "data/train": ("data/train.jsonl",),
    "data/eval": ("eval/*/questions/eval.jsonl", "data/eval.jsonl"),
    "before": ("eval/*/before/predictions.jsonl", "before/predictions.jsonl"),
    "after": ("eval/*/after/predictions.jsonl", "after/predictions.jsonl"),
    "controls/before": (
        "eval/*/controls-before/predictions.jsonl",
        "controls/before/predictions.jsonl",
    ),
    "controls/after": (
        "eval/*/controls-after/predictions.jsonl",
        "controls/after/predictions.jsonl",
    ),
    "adapter": ("adapter/adapter_model.safetensors",),
    "merged": ("merged/model.safetensors",),
    "comparison": ("eval/*/comparison.json", "comparison.json"),
    "controls": ("eval/*/controls.json", "controls.json"),
    "report": ("report.html",),
}
"""What is compared, and where it may lie in a run directory."""

Results = dict[str, Any]
"""By name: a digest, or what a digest would not explain (JSON, the report's lines)."""


def make(output: Path, *, quickstarts: bool) -> None:
    """Do the runs with the ragtune that Python finds, and write down what came out."""
    found = python(["-c", "import ragtune; print(ragtune.__file__)"], {})
    print(f"ragtune: {found.stdout or found.stderr}", end="")
    made: dict[str, Results] = {}
    with tempfile.TemporaryDirectory(prefix="same-bytes-") as name:
        folder = Path(name)
        recipe = write_inputs(folder)
        made["inputs"] = {
            str(p.relative_to(folder)): digest(p.read_bytes())
            for p in sorted(folder.rglob("*"))
            if p.is_file() and p != recipe
        }
        one = {"OMP_NUM_THREADS": "1"}
        made["tiny"] = whole_run(recipe, folder / "tiny-run", one)
        made["tiny, resumed"] = resumed_run(recipe, folder / "tiny-resumed", one)
        for quickstart in QUICKSTARTS if quickstarts else ():
            recipe = ROOT / "recipes" / f"{quickstart}.yaml"
            made[quickstart] = whole_run(recipe, folder / quickstart, {}, controls=False)
    threads = os.environ.get("OMP_NUM_THREADS", f"{os.cpu_count()} cores")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(
        json.dumps({"threads": threads, "runs": made}, ensure_ascii=False, indent=1), "utf-8"
    )
    print(f"Wrote {output}: {', '.join(made)}")


def write_inputs(folder: Path) -> Path:
    """Make a tiny model, questions of which some have no answer, and a recipe; returns the recipe."""
    sys.path.insert(0, str(ROOT))
    from tests.conftest import (  # noqa: PLC0415 - `compare` needs neither torch nor the tests
        CHATML,
        build_tokenizer,
        make_records,
        tiny_model,
        write_records,
    )

    specials = {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>", "start": "<|im_start|>"}
    tokenizer = build_tokenizer(specials=specials, template=CHATML)
    model = tiny_model("llama", eos_token_id=tokenizer.eos_token_id, initializer_range=0.2)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    trained, asked = make_records(40), make_records(16, "e")
    for record in (*trained, *asked):
        # Two of three houses have a colour that so small a model can learn to say: something is then right.
        if int(record["qid"].strip("qe")) % 3:
            colour, *_ = record["answers"]
            record["answers"] = ["a"]
            record["passages"][0]["text"] = record["passages"][0]["text"].replace(colour, "a")
    for record in asked[12:]:
        record |= {"answers": [], "positive_passage_indices": []}
    recipe = {
        "name": "tiny",
        "seed": 7,
        "model": {"id": str(folder / "model"), "dtype": "float32"},
        "data": {
            "train": str(write_records(folder / "train.jsonl", trained)),
            "eval": str(write_records(folder / "eval.jsonl", asked)),
            "max_passages": 2,
            "shuffle_passages": True,
            "refusal": "e",
            "unanswerable": 0.2,
        },
        "prompt": {"preset": "english"},
        "lora": {"rank": 8, "alpha": 32, "dropout": 0.1},
        "train": {
            "epochs": 3,
            "batch_size": 4,
            "learning_rate": 0.01,
            "max_grad_norm": 1.0,
            "log_every": 2,
            "eval_every": 4,
            "save_every": 4,
        },
        "evaluate": {"max_new_tokens": 6, "metric": "squad_em"},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), "utf-8")
    return path


def whole_run(
    recipe: Path, run: Path, environment: dict[str, str], *, controls: bool = True
) -> Results:
    """Run a recipe in one go, then its controls and the report with them."""
    ragtune(["run", str(recipe), "--run-dir", str(run)], environment)
    return views(recipe, run, environment, controls=controls)


def resumed_run(recipe: Path, run: Path, environment: dict[str, str]) -> Results:
    """Run a recipe that is killed while it writes a checkpoint, and goes on from the one before."""
    command = ["cut", str(run), "run", str(recipe), "--run-dir", str(run)]
    killed = python([__file__, *command], environment)
    if killed.returncode != -signal.SIGKILL:
        sys.exit(f"The run was not killed at {CUT_AT}:\n{killed.stdout[-3000:]}")
    ragtune(["run", str(recipe), "--run-dir", str(run)], environment)
    return views(recipe, run, environment, controls=False)


def cut(run: Path, arguments: list[str]) -> None:
    """Be the run that is killed."""

    def see(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in ("os.mkdir", "open", "os.rename"):
            return
        path = str(arguments[0])
        if path.startswith(str(run)) and CUT_AT in path:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(see)
    from ragtune.cli import main  # noqa: PLC0415 - the hook comes first

    main(arguments)


def views(recipe: Path, run: Path, environment: dict[str, str], *, controls: bool) -> Results:
    """What lies in a run directory, and what the commands print of it."""
    results: Results = {}
    if controls:
        printed = ragtune(
            ["evaluate", str(recipe), "--run-dir", str(run), "--controls", "--json"], environment
        )
        results["printed controls"] = timeless(json.loads(printed.splitlines()[-1]))
        ragtune(["report", str(recipe), "--run-dir", str(run)], environment)
    printed = ragtune(["compare", str(run), "--json"], environment)
    results["printed comparison"] = timeless(json.loads(printed.splitlines()[-1]))
    for name, patterns in FILES.items():
        found = [path for pattern in patterns for path in sorted(run.glob(pattern))]
        if found:
            results[name] = content(found[0], run)
    return results


def content(path: Path, run: Path) -> Any:
    """A file as it is compared."""
    if path.suffix == ".html":
        return report_lines(path.read_text("utf-8"), run)
    if path.suffix == ".json":
        return timeless(json.loads(path.read_text("utf-8")))
    if path.name == "predictions.jsonl":
        rows = [timeless(json.loads(line)) for line in path.read_text("utf-8").splitlines()]
        return [json.dumps(row, ensure_ascii=False, sort_keys=True) for row in rows]
    return digest(path.read_bytes())


def timeless(value: Any) -> Any:
    """JSON without what belongs to one machine, one moment or one version."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in sorted(value.items()) if not UNTIMELY.search(k)}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def report_lines(html: str, run: Path) -> list[str]:
    """The report without times, versions and paths."""
    text = (
        html.replace(str(run), "RUN").replace(str(run.parent), "FOLDER").replace(str(ROOT), "ROOT")
    )
    text = re.sub(r"<h3>(Times|Versions).*?</(table|dl)>", r"<h3>\1</h3>", text, flags=re.DOTALL)
    text = re.sub(r"(<dt>(?:Time|Tokens a second)</dt><dd>)[^<]*", r"\1…", text)
    text = re.sub(r"(Made by ragtune)[^<]*", r"\1 …", text)
    return [line for line in text.splitlines() if line.strip()]


def ragtune(arguments: list[str], environment: dict[str, str]) -> str:
    """Run a command and return what it printed."""
    print("ragtune", *arguments, flush=True)
    done = python(["-m", "ragtune", *arguments], environment)
    if done.returncode:
        sys.exit(
            f"ragtune {' '.join(arguments)} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )
    return done.stdout


def python(arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONHASHSEED": "0"}
    return subprocess.run(  # noqa: S603 - ourselves
        [sys.executable, *arguments],
        env=os.environ | offline | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def compare(old: Path, new: Path) -> bool:
    """Say what differs between two records; returns whether nothing does."""
    one, other = (json.loads(path.read_text("utf-8")) for path in (old, new))
    if one["threads"] != other["threads"]:
        print(
            f"! Other threads: {one['threads']}, {other['threads']}; sums may differ by that alone."
        )
    same, compared = True, 0
    for run in sorted(one["runs"].keys() & other["runs"].keys()):
        names = one["runs"][run].keys() | other["runs"][run].keys()
        for name in sorted(names):
            lines = [side["runs"][run].get(name) for side in (one, other)]
            compared += 1
            if lines[0] != lines[1]:
                same = False
                print(f"{run}: {name} differs" + "".join(f"\n  {d}" for d in differences(*lines)))
    for run in sorted(one["runs"].keys() ^ other["runs"].keys()):
        print(f"! Only one of them has {run}.")
    print(f"{compared} results: {'all the same' if same else 'not all the same'}.")
    return same


def differences(old: Any, new: Any) -> Iterator[str]:
    """The first lines that differ."""
    if old is None or new is None:
        yield f"only in the {'second' if old is None else 'first'}"
        return
    sides = [
        side
        if isinstance(side, list)
        else json.dumps(side, indent=1, ensure_ascii=False).splitlines()
        for side in (old, new)
    ]
    changed = [
        line
        for line in difflib.unified_diff(*sides, n=0, lineterm="")
        if not line.startswith(("---", "+++", "@@"))
    ]
    for line in changed[:20]:
        yield line[:300]
    if len(changed) > 20:  # noqa: PLR2004 - as above
        yield f"… {len(changed)} lines in all"


def main() -> None:
    if sys.argv[1:2] == ["cut"]:
        cut(Path(sys.argv[2]), sys.argv[3:])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make", help="run, and write down what came out")
    making.add_argument("output", type=Path)
    making.add_argument("--src", type=Path, help="the folder that holds the package ragtune")
    making.add_argument("--quickstarts", action="store_true", help="both recipes, too: minutes")
    comparing = commands.add_parser("compare", help="say what differs")
    comparing.add_argument("old", type=Path)
    comparing.add_argument("new", type=Path)
    given = parser.parse_args()
    if given.command == "make":
        if given.src:
            os.environ["PYTHONPATH"] = str(given.src.resolve())
        make(given.output, quickstarts=given.quickstarts)
    elif not compare(given.old, given.new):
        sys.exit(1)


if __name__ == "__main__":
    main()
