"""Versions of what a result may depend on."""

from __future__ import annotations

import importlib.metadata
import platform

_LIBRARIES = ("ragtune", "torch", "transformers", "peft", "accelerate", "datasets", "huggingface_hub",
              "bitsandbytes", "liger-kernel", "triton")  # fmt: skip


def versions(*more: str) -> dict[str, str]:
    """The versions that a result may depend on; of `more` packages, if they are there."""
    found = {"python": platform.python_version()}
    for name in (*_LIBRARIES, *more):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
