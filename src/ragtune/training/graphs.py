"""Rows as CUDA graphs, where a GPU would wait for Python: small models' kernels are faster than they are told.

The first rows run as they are, and two of them are timed. A row's forward and backward pass is captured, for a
few sizes of rows, and replayed from then on, if the GPU is finished as soon as Python is, needs much less time
for a row that Python began to tell it in a pause, and a row of a few tokens, as much work for Python, takes as
long. That is measured, too, and a graph's loss and gradients must be those of the same row without it. There
are none where weights are gathered as they are needed, or where a training is to be the same bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ragtune.base.errors import is_out_of_memory
from ragtune.base.screen.console import note
from ragtune.base.text import first_line, one_or_many, shortened
from ragtune.data.encode import Sample
from ragtune.model.fast.graph import capture, free, why_not
from ragtune.model.fast.lora import drop_waiting
from ragtune.model.hardware import free_gpu
from ragtune.training.sizes import RowSize, choose_sizes, fill_up, size_for

_UNTIMED = 2
"""Rows in which kernels are compiled and memory is taken."""
_TIMED = 2
"""As they are, and as many behind a pause."""
_CAUGHT_UP = 0.25
"""Of a row's time: if the GPU needs less than Python and so much, it was waiting for Python."""
_BUSY = 0.95
"""Of a row's time: a GPU that works longer itself has nothing to gain. Its short rests between kernels count as
work here, and a graph shortens them: so this is more than the time that a row may take with one."""
_PAUSE = 1e9
"""Cycles of a GPU for a second of a row: at 2 GHz half of its time, in which Python gets ahead."""
_BRIEF, _FEW = 2, (5, 4)
"""Samples of a brief row, and tokens of each one's prompt and completion: of sizes that are no multiple of 16,
as most rows', so that no kernel is compiled for it."""
_FASTER = 0.8
"""Of the time that a row took, at most, with a graph."""
_MOST_SIZES = 6
_ROWS_A_SIZE = 8
"""To come, at least: capturing takes the time of about four."""
_ALLOWED = 0.05
"""Relative difference of a parameter's gradient: where sums run in no order, bfloat16 rounds otherwise."""
_TINY = 0.01
"""Share of all gradients' norm below which a parameter's isn't looked at as closely."""

Row = dict[str, Any]
"""What the collator makes, on the GPU."""
Run = Callable[[Row], Tensor]
"""One row forward and backward; gives its loss."""
Collate = Callable[[int, Sequence[Sample]], Row]
"""Makes a row of the index that it is to have and of samples."""


@dataclass(frozen=True)
class _Captured:
    graph: torch.cuda.CUDAGraph
    reads: Row
    """What is replayed reads these tensors,"""
    loss: Tensor
    """writes this one, and adds to the gradients."""


class Graphs:
    """Runs rows, as graphs when that is found to be faster.

    Args:
        model: of which some parameters are trained.
        rows: all packed rows of the training, in their order.
        device: the GPU.
        collate: makes a row of samples.
        announce: puts into the GPU's memory what else differs from row to row.
        told: is given words when graphs are used, and none when they no longer are.
    """

    def __init__(
        self,
        model: nn.Module,
        rows: Sequence[Sequence[Sample]],
        device: torch.device,
        collate: Collate,
        announce: Callable[[Row], None],
        told: Callable[[str], None],
    ) -> None:
        self.model = model
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.rows = rows
        self.device = device
        self.collate = collate
        self.announce = announce
        self.told = told
        self.sizes: list[RowSize] | None = None
        """None until it is known that rows are worth it."""
        self.off = not _has_graphs(device)
        self.seconds: list[float] = []
        """Of each row that was timed."""
        self.busy: list[float] = []
        """Seconds of the GPU for each row that it needn't wait for."""
        self.seen = 0
        self.gradients: list[Tensor] = []
        """Of each parameter, where the graphs add to it."""
        self.captured: dict[RowSize, _Captured] = {}

    def run(self, row: Row, run: Run) -> Tensor:
        """The loss of a row, whose gradients are added to the parameters'."""
        size = None if self.off or self.sizes is None else size_for(row, self.sizes)
        if size and (found := self.captured.get(size)):
            return self._replay(found, fill_up(row, size))
        if size:
            return self._first(fill_up(row, size), size, run)
        if self.off or self.sizes:
            return self._eager(row, run)
        self.seen += 1
        if self.seen <= _UNTIMED:
            return self._eager(row, run)
        if len(self.seconds) < _TIMED:
            return self._timed(row, run)
        loss, busy = _behind_a_pause(self.device, min(self.seconds), partial(self._eager, row, run))
        self.busy.append(busy)
        if len(self.busy) == _TIMED:
            self._decide(row["row"], run)
        return loss

    def drop(self) -> None:
        """Run no more graphs, and give their memory back."""
        self.off = True
        self.captured.clear()
        self.gradients.clear()
        self.told("")

    def _eager(self, row: Row, run: Run) -> Tensor:
        self.announce(row)
        return run(row)

    def _timed(self, row: Row, run: Run) -> Tensor:
        _wait(self.device)
        start = time.perf_counter()
        loss = self._eager(row, run)
        told = time.perf_counter()
        _wait(self.device)
        end = time.perf_counter()
        self.seconds.append(end - start)
        self.off = self.off or end - told > _CAUGHT_UP * (end - start)
        return loss

    def _decide(self, last: int, run: Run) -> None:
        """Choose sizes, where graphs are worth it and have room; `last` is the row that was run."""
        done = last + 1
        most = min(_MOST_SIZES, (len(self.rows) - done) // _ROWS_A_SIZE)
        # The shortest of each: in one of them a kernel may have been compiled.
        busy = min(self.busy) > _BUSY * min(self.seconds)
        if most < 1 or busy or not self._waits(last, run):
            self.off = True
        elif not _has_room(self.device):
            self._refuse("there is too little memory for their activations")
        else:
            self.sizes = choose_sizes(self.rows[done:], most)

    def _waits(self, last: int, run: Run) -> bool:
        """Whether the GPU waits for Python, by a row that is as much for Python and hardly any for the GPU.

        A row of many tokens does not tell: Python waits itself there, as only about a thousand kernels may
        wait for the GPU, and is through with the row when the GPU is.
        """
        prompt, completion = _FEW
        brief = self.collate(last, [
            Sample(one.qid, one.prompt_ids[-prompt:], one.completion_ids[:completion], one.number)
            for one in self.rows[last][:_BRIEF]
        ])  # fmt: skip
        kept = [parameter.grad for parameter in self.parameters]
        random = [self.device.index or 0] if self.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(random):
                seconds = [self._brief(brief, run) for _ in range(2)]
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            drop_waiting(self.model)
            return False  # where gradients have no room beside the row's, graphs have none
        finally:
            for parameter, gradient in zip(self.parameters, kept, strict=True):
                parameter.grad = gradient
        row = min(self.seconds)
        return row - min(seconds) <= _CAUGHT_UP * row

    def _brief(self, row: Row, run: Run) -> float:
        """The seconds of a row, of which nothing stays."""
        for parameter in self.parameters:
            parameter.grad = None
        _wait(self.device)
        start = time.perf_counter()
        self._eager(row, run)
        _wait(self.device)
        return time.perf_counter() - start

    def _refuse(self, reason: str) -> None:
        self.drop()
        drop_waiting(self.model)  # of a capture that was cut off: it lies in the graphs' memory
        free_gpu()
        note(f"Rows run without CUDA graphs: {reason}.")

    def _own_gradients(self) -> None:
        """Let the parameters' gradients stand where the graphs add to them; what is there stays."""
        if not self.gradients:
            self.gradients = [torch.zeros_like(p) for p in self.parameters]
        both = zip(self.parameters, self.gradients, strict=True)
        strangers = [(p, own) for p, own in both if p.grad is not own]
        if strangers:
            torch._foreach_zero_([own for _, own in strangers])
        for parameter, own in strangers:
            if parameter.grad is not None:
                own.copy_(parameter.grad)
            parameter.grad = own

    def _replay(self, captured: _Captured, row: Row) -> Tensor:
        self._own_gradients()
        for name, tensor in captured.reads.items():
            if isinstance(tensor, Tensor):
                tensor.copy_(row[name])
        self.announce({**captured.reads, "row": row["row"]})
        captured.graph.replay()
        return captured.loss.clone()  # the next row's stands in the same place

    def _first(self, row: Row, size: RowSize, run: Run) -> Tensor:
        """The first row of a size: as it is, and then as a graph, which must give the same."""
        begun = any(p.grad is not None for p in self.parameters)
        self._own_gradients()
        before = [own.clone() for own in self.gradients] if begun else None
        for parameter in self.parameters:
            parameter.grad = None
        loss = self._eager(row, run)
        found = [p.grad for p in self.parameters if p.grad is not None]
        if len(found) < len(self.gradients):
            for parameter, own in zip(self.parameters, self.gradients, strict=True):
                if begun:
                    parameter.grad = own if parameter.grad is None else own.add_(parameter.grad)
            self._refuse("some of what is trained gets no gradient from a row")
            return loss
        for parameter, own in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = own
        # In float16 gradients overflow until the loss scaler has found its scale: another row is tried then.
        finite = bool(torch.stack([one.norm() for one in found]).isfinite().all())
        reason = self._capture(row, size, run, loss, found) if finite else None
        torch._foreach_copy_(self.gradients, found)
        if before:
            torch._foreach_add_(self.gradients, before)
        if reason:
            self._refuse(reason)
        return loss

    def _capture(
        self, row: Row, size: RowSize, run: Run, loss: Tensor, gradients: list[Tensor]
    ) -> str | None:
        """Capture the graph of rows of a size; a reason not to use it, or None.

        Args:
            row: the first one of the size.
            size: its size.
            run: what is captured.
            loss: of that row, without a graph.
            gradients: its, too.
        """
        other = next((one.graph for one in self.captured.values()), None)
        try:
            graph, its_loss = capture(partial(run, row), self.device, other)
        except Exception as error:  # noqa: BLE001 - whatever a model's own code says when it asks the host
            first = why_not(error)
            if is_out_of_memory(first):
                return "there is too little memory for them"
            return shortened(first_line(first).rstrip("."), 120)
        captured = _Captured(graph, row, its_loss)
        torch._foreach_zero_(self.gradients)
        graph.replay()
        if not _same(captured.loss, loss, self.gradients, gradients):
            return "a captured row gives another loss or gradient"
        if not self.captured:
            without, within = min(self.seconds), self._replayed(graph)
            if within > _FASTER * without:
                return f"they save too little: {without:.3f} s a row, {within:.3f} s with one"
            self._tell(without, within)
        self.captured[size] = captured
        return None

    def _replayed(self, graph: torch.cuda.CUDAGraph) -> float:
        """The seconds that a graph takes."""
        _wait(self.device)
        start = time.perf_counter()
        graph.replay()
        _wait(self.device)
        return time.perf_counter() - start

    def _tell(self, without: float, within: float) -> None:
        sizes = self.sizes or []
        words = f"rows as CUDA graphs, of {one_or_many(len(sizes), 'size')}"
        self.told(f"{words}: {within:.3f} s a row instead of {without:.3f}")


def _has_graphs(device: torch.device) -> bool:
    return device.type == "cuda"


def _wait(device: torch.device) -> None:
    torch.cuda.synchronize(device)


def _behind_a_pause(
    device: torch.device, seconds: float, row: Callable[[], Tensor]
) -> tuple[Tensor, float]:
    """The loss of a row of so many seconds, and those that the GPU itself needs, which had to pause before it.

    Of a row that takes Python long they are too many: about a thousand kernels may be told beforehand.
    """
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    with torch.cuda.device(device):
        torch.cuda._sleep(int(_PAUSE * seconds))  # type: ignore[no-untyped-call]  # noqa: SLF001 - no public way to let it wait
        begin.record()
        loss = row()
        end.record()
    end.synchronize()
    return loss, begin.elapsed_time(end) / 1000


def _has_room(device: torch.device) -> bool:
    """Whether there is memory for what a row needs twice: graphs keep it, and others run beside them."""
    # What the allocator keeps for rows that are gone.
    needed = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    torch.cuda.empty_cache()
    return 2 * needed <= free(device)


def _same(
    loss: Tensor, expected_loss: Tensor, found: Sequence[Tensor], expected: Sequence[Tensor]
) -> bool:
    """Whether a row's loss and gradients are the expected ones but for rounding."""
    away = torch.stack([(one - other).norm() for one, other in zip(found, expected, strict=True)])
    norm = torch.stack([one.norm() for one in expected])
    near = away <= _ALLOWED * norm.clamp_min(_TINY * norm.norm())
    close = (loss - expected_loss).abs() <= _ALLOWED * expected_loss.abs()
    return bool(near.all() & close)
