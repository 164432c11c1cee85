"""What is looked at after every step, and what is shown of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ragtune.base.errors import RagtuneError
from ragtune.base.lock import require_held
from ragtune.base.screen.activity import Update
from ragtune.data.encode import Sample
from ragtune.training.questions import Questions
from ragtune.training.table import LossTable
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

    def __init__(
        self,
        trainer: PackedTrainer,
        shown: Progress,
        tell: Callable[[int, Sequence[Entry]], None],
        pause: int | None = None,
    ) -> None:
        self.pause = pause
        """The step after which the training is to wait, with a checkpoint."""
        self.trainer = trainer
        self.shown = shown
        self.tell = tell
        """Is given the step and the whole log, whenever something is logged."""
        self.overflows = 0

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: object,
    ) -> None:
        self.shown.ends.append(time.monotonic())  # it may be logged with the next one
        if self.trainer.average:
            self.trainer.average.take(state.global_step)
        self.trainer.writer.look()
        require_held()  # before a checkpoint that would take the place of another machine's
        # After the last step comes the adapter itself; only the best of several needs a checkpoint.
        if state.global_step >= state.max_steps:
            if not args.metric_for_best_model:
                control.should_save = False
        elif self.trainer.stops or state.global_step == self.pause:
            control.should_save = control.should_training_stop = True

    def on_train_begin(
        self,
        args: TrainingArguments,  # noqa: ARG002 - TrainerCallback's signature
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002 - TrainerCallback's signature
        **_: object,
    ) -> None:
        """Ask what a stop cut off: the step of the checkpoint is not evaluated again."""
        self.tell(state.global_step, state.log_history)
        questions, log = self.trainer.questions, state.log_history
        here = [entry for entry in log if entry["step"] == state.global_step]
        if (
            questions
            and any("eval_loss" in entry for entry in here)
            and not any(questions.key in entry for entry in here)
        ):
            found = questions.look(self.trainer.model, state.global_step)
            if found:
                self.trainer.log(found)
        if self.trainer.world:
            self.trainer.world.rest()  # rank 0 may be asking what is spread over all

    def on_train_end(
        self,
        args: TrainingArguments,  # noqa: ARG002 - TrainerCallback's signature
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002 - TrainerCallback's signature
        **_: object,
    ) -> None:
        """Let the mean of the last steps be what was trained, and answers have the memory."""
        self.trainer.rounded.drop()
        if self.trainer.average and state.global_step >= state.max_steps:
            self.trainer.average.put()

    def on_evaluate(
        self,
        args: TrainingArguments,  # noqa: ARG002 - TrainerCallback's signature
        state: TrainerState,
        control: TrainerControl,
        **_: object,
    ) -> None:
        """A stop that came meanwhile counts for this step, whose checkpoint is yet to be written."""
        if self.trainer.stops and state.global_step < state.max_steps:
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
        self.shown({"step": state.global_step, **logs})
        self.tell(state.global_step, state.log_history)

    def _require_finite(self, args: TrainingArguments, step: int, logs: Entry) -> None:
        row_losses = self.trainer.late.rows
        finite = math.isfinite(logs.get("grad_norm", 0.0))
        self.overflows = 0 if finite else self.overflows + 1
        if math.isfinite(logs["loss"]) and self.overflows <= (OVERFLOWS if args.fp16 else 0):
            return
        bad = [row for row, loss in row_losses if not bool(torch.isfinite(loss))]
        named, whole = self._questions(bad), self._questions([row for row, _ in row_losses])
        raise RagtuneError(
            f"Training stopped at step {step}: the {'loss' if named else 'gradient'} is not finite. "
            f"Questions {'of the row' if named else 'of the step'}: {', '.join(named or whole)}.",
            "Look at these examples (ragtune prepare --show), lower train.learning_rate, or "
            "use model.dtype=float32. Checkpoints before this step are kept in work/.",
        )

    def _questions(self, rows: list[int]) -> list[str]:
        """The questions of these rows, and of those that the other ranks name."""
        qids = [sample.qid for row in rows for sample in self.trainer.rows[row]]
        if self.trainer.world is None:
            return qids
        every = self.trainer.world.gather([*qids])
        return list(dict.fromkeys(str(qid) for of in every if isinstance(of, list) for qid in of))


@dataclass
class Progress:
    """Shows how far a training is, and its loss every few steps."""

    steps: list[list[Sample]]
    first: int
    """The steps that are behind us."""
    table: LossTable
    update: Update
    asking: Questions | None = None
    start: float = field(default_factory=time.monotonic)
    ends: list[float] = field(default_factory=list)
    """When Python was through with each step, in seconds: a GPU is at most a step behind."""

    @property
    def tokens(self) -> int:
        """Trained since the start."""
        return tokens_of(self.steps[self.first : self.first + len(self.ends)])

    def __call__(self, entry: Entry) -> None:
        if "loss" in entry:
            asking = self.asking.seconds if self.asking else 0.0
            speed = self.tokens / (self.ends[-1] - self.start - asking)
            self.update(int(entry["step"]), f"loss {entry['loss']:.4f}  {speed:,.0f} tokens/s")
        self.table.add(entry)


def tokens_of(steps: list[list[Sample]]) -> int:
    """The tokens of all samples."""
    return sum(len(sample) for step in steps for sample in step)
