"""What there is for a GPU, and what a stage takes of it."""

from __future__ import annotations

import gc
import importlib.util
import sys
from functools import cache
from typing import Any


@cache
def has_triton() -> bool:
    """Whether kernels written in Triton can be compiled; it comes with torch's CUDA builds."""
    return importlib.util.find_spec("triton") is not None


def _torch() -> Any:
    torch = sys.modules.get("torch")  # importing it only to ask would cost seconds
    return torch if torch is not None and torch.cuda.is_initialized() else None


def free_gpu() -> None:
    """Give back what is no longer used: a trainer is a cycle, and a graph's memory a pool of its own."""
    gc.collect()
    torch = _torch()
    if torch:
        torch.cuda.empty_cache()


def reset_gpu_peak() -> None:
    """Count the peak from here on."""
    torch = _torch()
    if torch:
        torch.cuda.reset_peak_memory_stats()


def gpu_peak() -> int | None:
    """The most bytes that were allocated at a time, or None without a GPU in use."""
    torch = _torch()
    return torch.cuda.max_memory_allocated() if torch else None


def autocast(model: Any) -> Any:
    """Adapters are float32: on a GPU their products run in the base's dtype, as in training."""
    import torch

    kind = model.get_input_embeddings().weight.device.type
    half = model.dtype in (torch.bfloat16, torch.float16) and kind == "cuda"
    # A captured graph may not keep casts in a cache that is gone when it is replayed.
    return torch.autocast(kind, model.dtype if half else None, enabled=half, cache_enabled=False)
