"""What a stage takes of a GPU; nothing where torch or a GPU is not in use."""

from __future__ import annotations

import sys
from typing import Any


def _torch() -> Any:
    torch = sys.modules.get("torch")  # importing it only to ask would cost seconds
    return torch if torch is not None and torch.cuda.is_initialized() else None


def reset_gpu_peak() -> None:
    """Count the peak from here on."""
    torch = _torch()
    if torch:
        torch.cuda.reset_peak_memory_stats()


def gpu_peak() -> int | None:
    """The most bytes that were allocated at a time, or None without a GPU in use."""
    torch = _torch()
    return torch.cuda.max_memory_allocated() if torch else None
