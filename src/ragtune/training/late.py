"""What is logged of a step, read when the next one is on its way: so a GPU never waits for Python between two.

Trainer reads loss and gradient norm after every step, which waits until the GPU is done, and only then tells
it the next. Here both are copied to the host as soon as the GPU has them, and looked at one step later.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Trainer

RowLosses = list[tuple[int, Tensor]]
"""Rows, as indices, with their loss."""


@dataclass(frozen=True)
class _Step:
    number: int
    epoch: float | None
    learning_rate: float
    rows: RowLosses
    values: Tensor
    """Loss, and the gradients' norm if there is one, on the host once `there` has come."""
    there: torch.cuda.Event | None


class LateLog:
    """Logs the steps of a trainer in their order, each with its own number.

    Args:
        trainer: whose steps these are.
        behind: steps that may be on their way.
    """

    def __init__(self, trainer: Trainer, behind: int) -> None:
        self.trainer, self.behind = trainer, behind
        self.rows: RowLosses = []
        """Of the step that is being told."""
        self._waiting: list[_Step] = []

    def turn(
        self,
        rows: RowLosses,
        loss: Tensor,
        norm: Tensor | float | None,
        learning_rate: float,
        start: float,
    ) -> None:
        """Keep what there is to say of a step that was told the GPU, and log those that are over.

        All are where Trainer looks at the model, saves it or ends.

        Args:
            rows: of the step.
            loss: of the step; 0 afterwards.
            norm: of the gradients.
            learning_rate: of the step.
            start: when the training began, as Trainer has it.
        """
        state, control = self.trainer.state, self.trainer.control
        if control.should_log and state.global_step > self.trainer._globalstep_last_logged:  # noqa: SLF001 - Trainer's own count
            self._take(rows, loss, norm, learning_rate)
        control.should_log = False
        last = control.should_training_stop or state.global_step >= state.max_steps
        every = control.should_evaluate or control.should_save or last
        while len(self._waiting) > (0 if every else self.behind):
            self._log(self._waiting.pop(0), start)

    def _take(
        self, rows: RowLosses, loss: Tensor, norm: Tensor | float | None, learning_rate: float
    ) -> None:
        state = self.trainer.state
        self.trainer._globalstep_last_logged = state.global_step  # noqa: SLF001 - as Trainer does when it logs
        found = [loss] if norm is None else [loss, torch.as_tensor(norm)]
        values = torch.stack([one.detach().to(loss.device, torch.float64) for one in found])
        loss -= loss
        there = None
        if values.is_cuda:
            values, there = values.to("cpu", non_blocking=True), torch.cuda.Event()  # type: ignore[no-untyped-call]
            there.record()
        self._waiting.append(
            _Step(state.global_step, state.epoch, learning_rate, rows, values, there)
        )

    def _log(self, step: _Step, start: float) -> None:
        trainer, state = self.trainer, self.trainer.state
        if step.there:
            step.there.synchronize()
        loss, *norm = step.values.tolist()
        logs = {"loss": loss, **({"grad_norm": norm[0]} if norm else {})}
        trainer._total_loss_scalar += loss  # noqa: SLF001 - the mean at the end is Trainer's
        trainer.store_flos()
        self.rows = step.rows
        now = state.global_step, state.epoch
        state.global_step, state.epoch = step.number, step.epoch  # of which the entry is
        try:
            trainer.log({**logs, "learning_rate": step.learning_rate}, start)
        finally:
            state.global_step, state.epoch = now
