"""CUDA graphs: what the GPU is told once it repeats by itself, without Python between its kernels."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeVar

import torch

T = TypeVar("T")


def capture(
    work: Callable[[], T], device: torch.device, beside: torch.cuda.CUDAGraph | None = None
) -> tuple[torch.cuda.CUDAGraph, T]:
    """A graph of what `work` tells the GPU, which does nothing of it yet, and what `work` returns.

    Args:
        work: run once before, so that all kernels are there. What it reads and writes stays where it is.
        device: the GPU.
        beside: a graph that is replayed before or after this one, never meanwhile: they share its memory.

    Raises:
        RuntimeError: it can't be captured: it asks the host, or memory ran out.
    """
    graph = torch.cuda.CUDAGraph()
    random = torch.cuda.default_generators[device.index or 0]
    state, stream = random.clone_state(), torch.cuda.current_stream(device)
    try:
        # Other threads may use the GPU meanwhile.
        pool = beside.pool() if beside else None
        with torch.cuda.graph(graph, pool, _stream(device), "thread_local"):
            result = work()
    except BaseException:
        # A capture that is cut off leaves the generator waiting for its end, and its own stream current.
        random.graphsafe_set_state(state)
        torch.cuda.set_stream(stream)
        raise
    return graph, result


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """The one for captures: torch's own is of the first GPU that this process captured on."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def why_not(error: BaseException) -> BaseException:
    """Of what a cut-off capture raises the first thing: the end of the capture fails then, too."""
    return why_not(error.__context__) if error.__context__ else error
