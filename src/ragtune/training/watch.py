"""What is looked at after every step, and what is shown of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ragtune.base.errors import RagtuneError
from ragtune.base.lock import require_held
from ragtune.base.screen.console import note
from ragtune.base.screen.progress import Update
from ragtune.base.stopping import asked
from ragtune.data.encode import Sample
from ragtune.training.trainer import PackedTrainer

Entry = dict[str, float]
"""What Trainer logs of a step."""

OVERFLOWS = 10
"""Steps in a row that a float16 training may skip; a loss scaler needs no more to find its scale."""


class Watch(TrainerCallback):
    """Stops at a loss or gradient that is not finite, and reports the others.

    With float16 a gradient may overflow: the loss scaler then skips that step and takes a smaller
    scale, so only OVERFLOWS of them in a row count there.
    """

    def __init__(self, trainer: PackedTrainer, on_step: Callable[[Entry], None]) -> None:
        self.trainer = trainer
        self.on_step = on_step
        self.overflows = 0

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: object,
    ) -> None:
        require_held()  # before a checkpoint that would take the place of another machine's
        # After the last step comes the adapter itself; only the best of several needs a checkpoint.
        if state.global_step >= state.max_steps:
            if not args.metric_for_best_model:
                control.should_save = False
        elif asked():
            control.should_save = control.should_training_stop = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002 - TrainerCallback's signature
        logs: Entry,
        **_: object,
    ) -> None:
        if "loss" in logs:
            self._require_finite(args, state.global_step, logs)
        self.on_step({"step": state.global_step, **logs})

    def _require_finite(self, args: TrainingArguments, step: int, logs: Entry) -> None:
        row_losses, self.trainer.row_losses = self.trainer.row_losses, []
        finite = math.isfinite(logs.get("grad_norm", 0.0))
        self.overflows = 0 if finite else self.overflows + 1
        if math.isfinite(logs["loss"]) and self.overflows <= (OVERFLOWS if args.fp16 else 0):
            return
        bad = [row for row, loss in row_losses if not bool(torch.isfinite(loss))]
        rows = bad or [row for row, _ in row_losses]
        qids = [sample.qid for row in rows for sample in self.trainer.rows[row]]
        raise RagtuneError(
            f"Training stopped at step {step}: the {'loss' if bad else 'gradient'} is not finite. "
            f"Questions {'of the row' if bad else 'of the step'}: {', '.join(qids)}.",
            "Look at these examples (ragtune prepare --show), lower train.learning_rate, or "
            "use model.dtype=float32. Checkpoints before this step are kept in work/.",
        )


@dataclass
class Progress:
    """Shows how far a training is, and its loss every few steps."""

    steps: list[list[Sample]]
    first: int
    """The steps that are behind us."""
    every: int
    """How many steps a line speaks of."""
    update: Update
    recent: list[float] = field(default_factory=list)
    start: float = field(default_factory=time.monotonic)
    ends: list[float] = field(default_factory=list)
    """When each step ended, in seconds."""

    @property
    def tokens(self) -> int:
        """Trained since the start."""
        return tokens_of(self.steps[self.first : self.first + len(self.ends)])

    def __call__(self, entry: Entry) -> None:
        step = int(entry["step"])
        if "eval_loss" in entry:
            note(f"  step {step:>5}   evaluation loss {entry['eval_loss']:.4f}")
        if "loss" not in entry:
            return
        self.ends.append(time.monotonic())
        self.recent.append(entry["loss"])
        speed = self.tokens / (self.ends[-1] - self.start)
        self.update(step, f"loss {entry['loss']:.4f}  {speed:,.0f} tokens/s")
        if step % self.every == 0 or step == len(self.steps):
            mean, rate = sum(self.recent) / len(self.recent), entry["learning_rate"]
            note(f"  step {step:>5}  loss {mean:.4f}  learning rate {rate:.2e}")
            self.recent.clear()


def tokens_of(steps: list[list[Sample]]) -> int:
    """The tokens of all samples."""
    return sum(len(sample) for step in steps for sample in step)
