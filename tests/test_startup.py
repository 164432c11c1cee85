"""`import ragtune`, `ragtune --help`, `init` and `schema` load nothing heavy: that keeps them quick."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HEAVY = {
    "accelerate", "bitsandbytes", "datasets", "gguf", "httpx", "huggingface_hub", "jinja2",
    "matplotlib", "numpy", "openai", "pandas", "peft", "pyarrow", "pydantic", "rich", "safetensors",
    "tokenizers", "torch", "transformers", "yaml",
}  # fmt: skip
"""What some stage needs, and neither the import nor the help."""


TYPER = {"pydantic"}
"""What Typer itself loads to read a command's values."""
RECIPE = TYPER | {"yaml", "rich"}
"""What reads and writes recipes, and says where something is wrong."""
TABULATOR = {
    "_RAGTUNE_COMPLETE": "complete_bash",
    "COMP_WORDS": "ragtune run x.yaml train.",
    "COMP_CWORD": "3",
}
"""What bash asks with."""
NOT_THERE = """
from ragtune.cli import main
names = ("run", "train", "evaluate", "merge", "prepare", "report", "push", "ask", "demo", "serve",
         "sweep", "build", "judge")
more = {"sweep": ["train.steps=1,2"], "judge": ["--endpoint", "http://127.0.0.1:9/v1", "--model", "x"]}
for name in names:
    try:
        main([name, "./none.yaml", *more.get(name, [])])
    except SystemExit as stop:
        assert stop.code == 2
    else:
        raise AssertionError(name)
"""
"""Commands of what isn't there: they say so."""
TABLES = """
from pathlib import Path
from ragtune.cli import main
for name in ("a.jsonl", "b.jsonl"):
    Path(name).write_text('{"lm_output": "x", "references": ["x"], "exact_match": 1}\\n')
commands = {("compare", "a.jsonl", "b.jsonl"): 0, ("check", "./none.yaml"): 1,
            ("compare", "./none"): 2, ("compare", "./none", "./none"): 2}
for words, code in commands.items():
    try:
        main([*words])
    except SystemExit as stop:
        assert stop.code == code
    else:
        raise AssertionError(words)
"""
"""Those that load what prints their tables; and logs are compared without a model."""

NAMED = """
import contextlib, io
from pathlib import Path
from ragtune.cli import main

def ended(*words):
    error = io.StringIO()
    try:
        with contextlib.redirect_stderr(error):
            main([*words])
    except SystemExit as stop:
        return stop.code or 0, error.getvalue()
    return 0, error.getvalue()

assert ended("init", "run/recipe.yaml")[0] == ended("init", "r.yaml")[0] == 0
judge = ("judge", "r.yaml", "--endpoint", "http://127.0.0.1:9/v1", "--model", "x")
commands = {
    ("ask", "run", "Where?", "--passages", "none.md"): "none.md does not exist.",
    ("ask", "run", "Where?", "--passages", "none/*.md"): "none/*.md matches nothing.",
    ("ask", "run", "Where?", "--corpus", "none"): "none does not exist.",
    ("demo", "run", "--corpus", "none"): "none does not exist.",
    ("demo", "none", "--forget-feedback"): "none does not exist, and there is no",
    ("evaluate", "run", "--predictions", "none.jsonl"): "none.jsonl does not exist.",
    ("compare", "r.yaml", "--run-dir", "none"): "none does not exist: there is no such run",
    ("report", "r.yaml", "--run-dir", "none"): "none does not exist: there is no such run",
    judge: "my-run does not exist: there is no such run",
}
for words, said in commands.items():
    code, error = ended(*words)
    assert code == 2 and said in error, (words, code, error)
assert ended("demo", "run", "--forget-feedback")[0] == 0
"""
"""Files and folders behind a run or a recipe that is there; and what a page kept is forgotten without a model."""


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import ragtune; ragtune.__version__; ragtune.UsageError", set()),
        ("import ragtune.cli", set()),
        ("from ragtune.cli import main; main(['--help'])", set()),
        ("from ragtune.cli import main; main(['--version'])", TYPER),
        ("from ragtune.cli import main; main(['run', '--help'])", TYPER),
        # What isn't there; and what looks which ranks may begin has read the recipe by then.
        (NOT_THERE, RECIPE | {"jinja2"}),  # what `ask` sees of a question
        (TABLES, RECIPE | {"httpx", "huggingface_hub", "jinja2", "numpy", "pyarrow"}),
        (NAMED, RECIPE | {"httpx", "huggingface_hub", "jinja2", "numpy", "pyarrow"}),
        ("from ragtune.cli import main; main(['schema'])", RECIPE),
        ("from ragtune.cli import main; main(['init'])", RECIPE),
        ("from ragtune.cli import main; main(['init', '--recipe', 'quickstart'])", RECIPE),
        (
            f"import os; os.environ.update({TABULATOR}); from ragtune.cli import main; main([])",
            RECIPE,
        ),
        (
            "from ragtune.cli import main\ntry:\n    main(['init', '.'])\nexcept SystemExit: pass",
            RECIPE,
        ),
    ],
)
def test_nothing_heavy_is_loaded(code: str, allowed: set[str], tmp_path: Path) -> None:
    script = (
        "import json, sys\n"
        f"try:\n    exec({code!r})\n"
        "except SystemExit as stop:\n    assert not stop.code\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert "ragtune" in loaded
    assert loaded & HEAVY <= allowed


TUNING = """
import sys
from importlib.util import find_spec
from pathlib import Path
import ragtune.asking.reader, ragtune.asking.session, peft
from ragtune.model.hardware import Hardware
from ragtune.model.load import load_model
from ragtune.model.lora import attach, load_adapter, save_adapter
from ragtune.model.source import ModelSource
from ragtune.recipe.lora import Lora
import torch

SPARED = {"bitsandbytes", "datasets", "gradio", "matplotlib", "sklearn", "tensorboard"}
source = ModelSource(sys.argv[1], None)
cpu = Hardware(torch.device("cpu"), torch.float32, "test", "CPU")
tuned = attach(load_model(source, cpu, nf4=False), Lora(rank=4, alpha=8), 0)
Path("adapter").mkdir()
save_adapter(tuned, Path("adapter"), None)
load_adapter(load_model(source, cpu, nf4=False), Path("adapter"))
print(*SPARED & sys.modules.keys())
import ragtune.api, ragtune.stages.train
print(*{"bitsandbytes", "matplotlib"} & sys.modules.keys())  # Trainer imports datasets
print(*{"ragtune.building.build"} & sys.modules.keys())
import bitsandbytes, peft.import_utils
assert bitsandbytes.nn.Linear4bit and peft.import_utils.is_bnb_available()
"""


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_what_tuning_and_asking_leave_alone(tiny_folder: Path, tmp_path: Path) -> None:
    """And afterwards bitsandbytes is there for whoever wants it."""
    done = subprocess.run(
        [sys.executable, "-c", TUNING, tiny_folder],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
