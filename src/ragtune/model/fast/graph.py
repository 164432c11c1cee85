"""CUDA graphs: what the GPU is told once it repeats by itself, without Python between its kernels."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeVar

import torch

from ragtune.base.errors import is_out_of_memory
from ragtune.model.hardware import gpu_memory

T = TypeVar("T")


def capture(
    work: Callable[[], T],
    device: torch.device,
    beside: torch.cuda.CUDAGraph | None = None,
    *,
    needs: int | None = None,
) -> tuple[torch.cuda.CUDAGraph, T]:
    """A graph of what `work` tells the GPU, which does nothing of it yet, and what `work` returns.

    torch keeps memory that nothing uses, and can't give it back while a graph is captured. So it does before,
    for which the GPU has to be waited, unless there is enough beside.

    Args:
        work: its kernels are there, as it was run before, or one like it. What it reads and writes stays
            where it is.
        device: the GPU.
        beside: a graph that is replayed before or after this one, never meanwhile: they share its memory.
        needs: bytes that are probably enough; None if that isn't known.

    Raises:
        RuntimeError: it can't be captured: it asks the host, or memory ran out.
    """
    if needs is not None and free(device) >= needs:
        try:
            return _captured(work, device, beside)
        except RuntimeError as error:
            if not is_out_of_memory(why_not(error)):
                raise
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    return _captured(work, device, beside)


def _captured(
    work: Callable[[], T], device: torch.device, beside: torch.cuda.CUDAGraph | None
) -> tuple[torch.cuda.CUDAGraph, T]:
    graph = torch.cuda.CUDAGraph()
    random = torch.cuda.default_generators[device.index or 0]
    state, stream = random.clone_state(), torch.cuda.current_stream(device)
    pool = beside.pool() if beside else None
    _stream(device).wait_stream(stream)  # memory goes from one to the other, though nothing is run
    try:
        with torch.cuda.stream(_stream(device)):
            # Other threads may use the GPU meanwhile.
            graph.capture_begin(pool, "thread_local")
            try:
                result = work()
            finally:
                graph.capture_end()
    except BaseException:
        # A capture that is cut off leaves the generator waiting for its end.
        random.graphsafe_set_state(state)
        raise
    stream.wait_stream(_stream(device))
    return graph, result


def free(device: torch.device) -> int:
    """Bytes that torch may take and has not taken yet."""
    return gpu_memory(device) - torch.cuda.memory_reserved(device)


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """The one for captures: torch's own is of the first GPU that this process captured on."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def why_not(error: BaseException) -> BaseException:
    """Of what a cut-off capture raises the first thing: the end of the capture fails then, too."""
    return why_not(error.__context__) if error.__context__ else error
