"""The gradients of all ranks, summed while the last backward pass of a step still runs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch import distributed as dist

_BYTES = 128 << 20
"""Of a piece: large enough for the links' full speed, small enough that most of them go during the pass."""


class Summing:
    """Sums an adapter's gradients over the ranks, in flat pieces.

    A piece goes as soon as all its gradients are there; every rank sends the same pieces in the same order,
    also one that failed, which sends zeros: nobody waits for ever, and the sum is then not used.

    Args:
        parameters: in the order of the forward pass; they are float32, of one device.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._pieces = [_Piece(piece) for piece in _cut(parameters[::-1])]
        self._sent = 0
        self._last = False
        for piece in self._pieces:
            for parameter in piece.parameters:
                parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                    lambda _, piece=piece: self._ready(piece)
                )

    def last_pass(self) -> None:
        """Say that the coming backward pass is the last one of this step."""
        self._last = True
        for piece in self._pieces:
            piece.missing = len(piece.parameters)

    def _ready(self, piece: _Piece) -> None:
        if not self._last:
            return
        piece.missing -= 1
        while self._sent < len(self._pieces) and self._pieces[self._sent].missing == 0:
            self._pieces[self._sent].send(valid=True)
            self._sent += 1

    def send(self, *, valid: bool) -> None:
        """Send what is left.

        Args:
            valid: whether this rank's gradients are right and whole.
        """
        for piece in self._pieces[self._sent :]:
            piece.send(valid=valid)
        self._sent, self._last = 0, False

    def receive(self) -> None:
        """Wait for the sums, which are the parameters' gradients then."""
        for piece in self._pieces:
            piece.receive()


class _Piece:
    """Parameters whose gradients travel as one tensor."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters = parameters
        self.missing = 0
        self._flat: Tensor | None = None
        self._work: dist.Work | None = None

    def send(self, *, valid: bool) -> None:
        first = self.parameters[0]
        found = [p.grad if valid else None for p in self.parameters]
        make = torch.zeros if any(one is None for one in found) else torch.empty
        self._flat = make(
            sum(p.numel() for p in self.parameters), dtype=first.dtype, device=first.device
        )
        both = zip(self._views(), found, strict=True)
        there = [(view, gradient) for view, gradient in both if gradient is not None]
        if there:
            torch._foreach_copy_([v for v, _ in there], [g for _, g in there])
        for parameter in self.parameters:
            parameter.grad = None  # its memory is there for the next piece
        self._work = dist.all_reduce(self._flat, async_op=True)

    def receive(self) -> None:
        assert self._work is not None
        self._work.wait()
        for parameter, view in zip(self.parameters, self._views(), strict=True):
            parameter.grad = view
        self._flat = self._work = None

    def _views(self) -> list[Tensor]:
        assert self._flat is not None
        parts = self._flat.split([p.numel() for p in self.parameters])  # type: ignore[no-untyped-call]
        return [part.view(p.shape) for part, p in zip(parts, self.parameters, strict=True)]


def _cut(parameters: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    pieces: list[list[nn.Parameter]] = []
    size = 0
    for parameter in parameters:
        if not pieces or size >= _BYTES:
            pieces.append([])
            size = 0
        pieces[-1].append(parameter)
        size += parameter.numel() * parameter.element_size()
    return pieces
