"""Processes that run ragtune's commands one after the other, so that torch is loaded once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.ready import Ready

ROOT = Path(__file__).parents[2]

SCRIPT = """
import gc, json, os, sys
from pathlib import Path
{before}
from ragtune.cli import main
codes = []
for change, arguments in json.loads(Path(sys.argv[1]).read_text("utf-8")):
    for name, value in change.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    print("ragtune", len(codes), flush=True)
    print("ragtune", len(codes), file=sys.stderr, flush=True)
    try:
        main(arguments)
        codes.append(0)
    except SystemExit as stop:
        codes.append(stop.code or 0)
    gc.freeze()  # what is imported by now: a run's collections need not look through it
Path(sys.argv[1]).with_suffix(".codes").write_text(json.dumps(codes))
"""


def run_all(
    folder: Path,
    commands: list[tuple[dict[str, str | None], list[str]]],
    environment: dict[str, str],
    before: str = "",
    ready: Ready | None = None,
) -> tuple[list[int], list[str], list[str]]:
    """Exit codes, outputs and error outputs of commands, each with changes to the environment.

    With `ready` their process is a fork; without, `before` comes before anything is imported.
    """
    folder.mkdir(exist_ok=True)
    listed = folder / "commands.json"
    listed.write_text(json.dumps(commands), "utf-8")
    code = ["-c", SCRIPT.replace("{before}", before), str(listed)]
    ours = [name for name in os.environ if name.startswith(("HF_", "OPENAI_", "RAGTUNE_"))]
    if ready:
        known = {**dict.fromkeys(ours), **environment}
        done = ready.run(code, folder, program="python", **known)
    else:
        clean = {k: v for k, v in os.environ.items() if k not in ours}
        done = subprocess.run(
            [sys.executable, *code], check=False, capture_output=True, text=True, cwd=folder,
            env={**clean, **environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    codes: list[int] = json.loads(listed.with_suffix(".codes").read_text("utf-8"))
    listed.unlink()
    listed.with_suffix(".codes").unlink()
    return codes, _cut(done.stdout, len(codes)), _cut(done.stderr, len(codes))


def _cut(text: str, count: int) -> list[str]:
    """What was written by each command."""
    parts = []
    for number in range(count):
        text = text.partition(f"ragtune {number}\n")[2]
        parts.append(text.partition(f"ragtune {number + 1}\n")[0])
    return parts


def write_recipe(path: Path, recipe: dict[str, Any], **changes: Any) -> str:
    """Write a recipe as a file (JSON is YAML, too) and return its path."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**recipe, **changes}), "utf-8")
    return str(path)
