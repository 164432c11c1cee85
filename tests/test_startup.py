"""`import ragtune` and `ragtune --help` load nothing heavy: that is what keeps them quick."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {
    "accelerate", "bitsandbytes", "datasets", "gguf", "httpx", "huggingface_hub", "jinja2",
    "matplotlib", "numpy", "openai", "pandas", "peft", "pyarrow", "pydantic", "rich", "safetensors",
    "tokenizers", "torch", "transformers", "yaml",
}  # fmt: skip
"""What some stage needs, and neither the import nor the help."""


TYPER = {"pydantic"}
"""What Typer itself loads to read a command's values."""


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import ragtune; ragtune.__version__; ragtune.UsageError", set()),
        ("import ragtune.cli", set()),
        ("from ragtune.cli import main; main(['--help'])", set()),
        ("from ragtune.cli import main; main(['--version'])", TYPER),
        ("from ragtune.cli import main; main(['run', '--help'])", TYPER),
    ],
)
def test_nothing_heavy_is_loaded(code: str, allowed: set[str]) -> None:
    script = (
        "import json, sys\n"
        f"try:\n    exec({code!r})\n"
        "except SystemExit as stop:\n    assert not stop.code\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert "ragtune" in loaded
    assert loaded & HEAVY <= allowed
