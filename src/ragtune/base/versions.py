"""Versions of what a result may depend on."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

_LIBRARIES = ("ragtune", "torch", "transformers", "peft", "accelerate", "datasets", "huggingface_hub",
              "bitsandbytes", "liger-kernel", "triton")  # fmt: skip
_BESIDE = ("tokenizers", "safetensors", "numpy", "pydantic", "typer", "tantivy", "sentence-transformers",
           "gguf", "openai", "vllm", "ray")  # fmt: skip
"""What a bug report should name besides."""
_PATIENCE = 10.0
"""Seconds for the driver's program, which wakes the GPUs up."""
_found: dict[str, str | None] = {}
"""By package, None for one that isn't there: reading them takes half a second on a slow disk."""


def versions(*more: str) -> dict[str, str]:
    """The versions that a result may depend on; of `more` packages, if they are there."""
    found = {"python": platform.python_version()}
    for name in (*_LIBRARIES, *more):
        try:
            version = _found[name]
        except KeyError:  # in one step: another thread may let it be read again
            version = _found[name] = _installed(name)
        if version:
            found[name] = version
    return found


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def read_again() -> None:
    """Let the versions be read anew, but for what is imported: a notebook may have installed another one."""
    for name in [*_found]:
        if name.replace("-", "_") not in sys.modules:
            _found.pop(name, None)


def told(version: str) -> str:
    """What a bug report needs, without importing torch: `ragtune VERSION`, then a line for each of the rest."""
    found = versions(*_BESIDE)
    rows = {
        "python": f"{found['python']} ({platform.python_implementation()})",
        "system": f"{platform.platform()}, {platform.machine()}",
        "gpu": _gpus(),
        "torch": f"{found['torch']} ({_cuda_of_torch()})" if "torch" in found else "not installed",
    }
    for name in (*_LIBRARIES[2:], *_BESIDE):
        rows[name] = found.get(name, "not installed")
    width = max(map(len, rows)) + 2
    return "\n".join(
        [f"ragtune {version}", *(f"{name:{width}}{text}" for name, text in rows.items())]
    )


def _cuda_of_torch() -> str:
    """For which CUDA torch was built, as its version.py says; importing it would take seconds."""
    file = importlib.metadata.distribution("torch").locate_file("torch/version.py")
    try:
        text = Path(str(file)).read_text("utf-8")
    except OSError:
        return "no torch/version.py"
    cuda = re.search(r"^cuda\b[^=\n]*= *['\"]([\d.]+)", text, re.MULTILINE)
    hip = re.search(r"^hip\b[^=\n]*= *['\"]([\d.]+)", text, re.MULTILINE)
    return f"CUDA {cuda[1]}" if cuda else f"ROCm {hip[1]}" if hip else "without CUDA"


def _gpus() -> str:
    """The NVIDIA GPUs, their memory and their driver, as nvidia-smi names them."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return "none found (no nvidia-smi)"
    asked = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(  # noqa: S603 - the driver's own program
            asked, capture_output=True, text=True, check=False, timeout=_PATIENCE
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nvidia-smi didn't answer ({type(error).__name__})"
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    return "; ".join(lines) if not done.returncode and lines else "nvidia-smi names none"
