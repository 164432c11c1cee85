"""transformers' Trainer on packed rows, with logits only where something is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, TrainerControl
from transformers.utils import ModelOutput

from ragtune.base.errors import is_out_of_memory
from ragtune.base.screen.console import note, warn
from ragtune.base.stopping import ask, asked
from ragtune.data.encode import Sample
from ragtune.distributed.summing import Summing
from ragtune.distributed.world import World
from ragtune.model.fast.dropout import Masks
from ragtune.model.fast.lora import drop_waiting
from ragtune.model.hardware import free_gpu
from ragtune.model.plan import Plan
from ragtune.model.rounded import Rounded
from ragtune.model.wrapping import Tuned
from ragtune.training.announcing import Announcing
from ragtune.training.failures import smaller_plan
from ragtune.training.flat import flat_optimizer, split_rates
from ragtune.training.graphs import Graphs
from ragtune.training.late import LateLog, RowLosses
from ragtune.training.modes import forgetting, set_recompute, switching
from ragtune.training.moments import agrees, quick
from ragtune.training.noise import Noise
from ragtune.training.questions import Questions
from ragtune.training.rows import PackedRows, RowCollator, cross_entropies, read_row, split_rows
from ragtune.training.saving import SavingTrainer


class PackedTrainer(SavingTrainer):
    """Trains on the rows in their order.

    When memory runs out in a step, the step begins again with a smaller plan.

    Args:
        plan: the layout; `train_dataset`, of `PackedRows`, follows it.
        trained: the trained tokens of every step, of all ranks.
        masks: what the model's dropout is drawn from.
        on_plan: is given the smaller plan.
        keep: checkpoints to keep.
        questions: asked at each evaluation.
        world: the ranks, if there are several: each has rows of its own.
        options: Trainer's.
    """

    def __init__(
        self,
        *,
        plan: Plan,
        trained: Sequence[int],
        masks: Masks,
        on_plan: Callable[[Plan], None],
        keep: int,
        questions: Questions | None = None,
        world: World | None = None,
        **options: object,
    ) -> None:
        collate = RowCollator(packed=plan.packed, shared=plan.shared_prefix)
        super().__init__(keep=keep, world=world, data_collator=collate, **options)
        self.remove_callback(PrinterCallback)  # `Watch` says what matters
        # compute_loss divides by the step's trained tokens, so Trainer must not divide by rows.
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True
        alpha, self.neftune_noise_alpha = self.args.neftune_noise_alpha, None  # not Trainer's
        self.noise = Noise(alpha, masks) if alpha else None
        self.questions = questions
        self.lora_plus: float | None = None
        """How often the learning rate the adapter's B matrices have, if they have their own."""
        self.stopping = False
        """Whether a signal came, to any rank."""
        if world:
            self.summing = Summing(self.learning)
        self.plan = plan
        self.on_plan = on_plan
        self.rows: list[list[Sample]] = self.train_dataset.rows
        self.row_losses: RowLosses = []
        """Of this step's rows so far."""
        self.late = LateLog(self, behind=int(self.args.device.type == "cuda"))
        self.step_rows: list[int] = []
        """The rows of the present step so far, as indices."""
        self.failed = False
        """Whether one of them ran out of memory."""
        self.told = torch.zeros(())
        """The loss of this step that Trainer was given before its last row."""
        self.rounded = Rounded(self.model)
        self.announce = Announcing(masks, self.noise, trained, self.args)
        device = self.args.device
        self.graphs = Graphs(self.model, self.rows, device, self._row_of, self.announce, self._tell)
        self._tell("")  # of a plan that is gone on with: whether there are graphs is found anew
        if not plan.packed or plan.spread or torch.are_deterministic_algorithms_enabled():
            self.graphs.drop()
        # A large model's thousands of modules are walked through once, and not several times a row.
        self.model.train = switching(self.model)
        self.model.zero_grad = forgetting(self.learning)
        self._size = int(self.model.num_parameters(exclude_embeddings=True))

    def _tell(self, words: str) -> None:
        if words:
            note(f"From step {self.state.global_step + 1} on {words}.")
        if words != self.plan.graphs:
            self.plan = dataclasses.replace(self.plan, graphs=words)
            self.on_plan(self.plan)

    @property
    def stops(self) -> bool:
        """Whether the training is to stop here, with a checkpoint: on every rank, if it is on one."""
        return self.stopping if self.world else asked()

    def _stop_with_others(self, stopping: bool) -> None:
        self.stopping = stopping
        if stopping:
            ask()

    def _get_train_sampler(self, train_dataset: PackedRows) -> SequentialSampler:
        return SequentialSampler(train_dataset)

    def training_step(
        self, model: Tuned, inputs: dict[str, Any], num_items_in_batch: Tensor | None = None
    ) -> Tensor:
        """One row forward and backward; in parts, if the plan has become smaller.

        What ran out of memory makes the whole step begin again at its last row, on every rank.
        """
        row: int = inputs["row"]
        if row % self.args.gradient_accumulation_steps == 0:
            self.step_rows, self.failed = [], False
            self.rounded.take()
            self.told = torch.zeros((), device=self.args.device)
        self.step_rows.append(row)
        last = (row + 1) % self.args.gradient_accumulation_steps == 0 or row + 1 == len(self.rows)
        whole = len(self.rows[row]) <= self.plan.max_samples_per_row
        once = partial(super().training_step, model, num_items_in_batch=num_items_in_batch)
        run = partial(self._run, once)
        parts = [inputs] if whole else self._parts(row)
        loss = self._unless_out_of_memory(run, parts, last=last)
        if last:
            return self._end_step(run, loss)
        self.told = self.told + loss
        return loss

    def _run(self, once: Callable[[dict[str, Any]], Tensor], inputs: dict[str, Any]) -> Tensor:
        """The loss of a row that is run forward and backward."""
        loss = self.graphs.run(self._prepare_inputs(inputs), once)
        self.row_losses.append((inputs["row"], loss))
        return loss

    def _end_step(self, run: Callable[[dict[str, Any]], Tensor], loss: Tensor) -> Tensor:
        """What is left to say of the step's loss, when its gradients are those of all ranks."""
        while True:
            if self.world:
                self.world.rest()
                if self.failed:
                    free_gpu()  # for the pieces
                self.summing.send(valid=not self.failed)
                failed, stopping = self.world.any(self.failed, asked())
                self._stop_with_others(stopping)
                self.summing.receive()
            else:
                failed = self.failed
            if not failed:
                break
            self._retreat()
            self.failed = False
            parts = [part for row in self.step_rows for part in self._parts(row)]
            loss = self._unless_out_of_memory(run, parts, last=True) - self.told
        if self.world:
            loss = self.world.sum(loss + self.told) - self.told
        return loss

    def _unless_out_of_memory(
        self, run: Callable[[dict[str, Any]], Tensor], parts: list[dict[str, Any]], *, last: bool
    ) -> Tensor:
        """The loss of rows that are run; 0 if memory ran out, now or before in this step."""
        total: Tensor | None = None
        try:
            for index, part in enumerate([] if self.failed else parts, 1):
                # Where a base is spread, the ranks' last passes may not be the same one; a graph sums nothing.
                summing = self.world and not self.world.passes and self.graphs.off
                if summing and last and index == len(parts):
                    self.summing.last_pass()
                loss = run(part)
                total = loss if total is None else total + loss
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            drop_waiting(self.model)
            self.failed, total = True, None
        return torch.zeros((), device=self.args.device) if total is None else total

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """As Trainer counts, but for the model's parameters, which are not counted again."""
        return 6 * int(inputs["input_ids"].numel()) * self._size

    def _clip_grad_norm(self, model: Tuned) -> Tensor:  # noqa: ARG002 - Trainer's signature
        norm: Tensor = self.accelerator.clip_grad_norm_(self.learning, self.args.max_grad_norm)
        return norm

    def _maybe_log_save_evaluate(
        self,
        tr_loss: Tensor,
        grad_norm: Tensor | float | None,
        *others: object,
        learning_rate: float,
    ) -> None:
        rows, self.row_losses = self.row_losses, []
        self.late.turn(rows, tr_loss, grad_norm, learning_rate, cast("float", others[-1]))
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, *others, learning_rate=learning_rate)

    def _retreat(self) -> None:
        """Forget the step's gradients, and take a smaller plan.

        Raises:
            RagtuneError: there is no smaller one.
        """
        before = self.plan  # only here the exception is gone, and with it what its frames held
        self.plan = smaller_plan(before, self.state.global_step + 1, self.on_plan)
        if self.plan.recompute and not before.recompute:
            set_recompute(self.model, on=True)
        self.on_plan(self.plan)
        warn(f"{self.plan.changes[-1].capitalize()}; the step begins again.")
        self.row_losses.clear()
        self.graphs.drop()
        self.rounded.give_up()
        self.model.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()

    def _parts(self, row: int) -> list[dict[str, Any]]:
        """A row, cut as the plan has it by now."""
        samples, most = self.rows[row], self.plan.max_samples_per_row
        return [self._row_of(row, part) for part in split_rows(samples, -(-len(samples) // most))]

    def _row_of(self, row: int, samples: Sequence[Sample]) -> dict[str, Any]:
        return self._prepare_inputs(self.data_collator([{"index": row, "samples": samples}]))  # type: ignore[no-any-return]

    def create_optimizer(self, model: Tuned | None = None) -> Optimizer:
        """Trainer's; an 8-bit one over a single tensor (not in float16: the scaler looks at each)."""
        if self.optimizer is None and self.plan.optimizer != "adamw" and not self.args.fp16:
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            decay = {"weight_decay": self.args.weight_decay}
            chosen = quick(kind) if self._steps_alike(kind, options) else kind
            self.optimizer: Optimizer = flat_optimizer(
                self.learning, lambda tensors: chosen([{"params": tensors, **decay}], **options)
            )
        optimizer: Optimizer = super().create_optimizer(model)
        if self.lora_plus:
            split_rates(optimizer, self.model, self.lora_plus)
        return optimizer

    def _steps_alike(self, kind: type[Optimizer], options: dict[str, Any]) -> bool:
        """Whether our kernel does an optimizer's steps: on every rank, or the adapters would differ."""
        device, paged = self.args.device, bool(options.get("is_paged"))
        alike = device.type == "cuda" and agrees(kind, device, paged=paged)  # type: ignore[arg-type]
        return not any(self.world.any(not alike)) if self.world else alike

    def compute_loss(
        self,
        model: Tuned,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,  # noqa: ARG002 - of this rank's rows alone
    ) -> Tensor | tuple[Tensor, ModelOutput]:
        """Cross entropy over the trained tokens of a row, divided by those of the whole step."""
        outputs, logits_KV = read_row(model, inputs)
        total = self.total_loss(logits_KV, inputs)
        loss = total / (self.announce.divisor if model.training else len(inputs["targets"]))
        return (loss, outputs) if return_outputs else loss

    def total_loss(self, logits_KV: Tensor, inputs: dict[str, Any]) -> Tensor:
        """The sum that the loss of a row is made of: here of the trained tokens' cross entropies."""
        # The evaluation loss stays what it is called, and comparable.
        smoothing = self.args.label_smoothing_factor if self.model.training else 0.0
        return cross_entropies(logits_KV, inputs["targets"], smoothing)

    def evaluate(
        self,
        eval_dataset: PackedRows | None = None,
        ignore_keys: list[str] | None = None,  # noqa: ARG002 - Trainer's signature
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """The completion loss over the evaluation rows (the mean over their trained tokens), and answers."""
        self.model.eval()
        self.rounded.take()
        total, tokens = 0.0, 0
        with torch.no_grad():
            for batch in self.get_eval_dataloader(eval_dataset):
                inputs = self._prepare_inputs(batch)
                count = len(inputs["targets"])
                with self.compute_loss_context_manager():
                    loss: Any = self.compute_loss(self.model, inputs)
                total += float(loss) * count
                tokens += count
        if self.world:
            total, tokens = self.world.sum(
                torch.tensor([total, tokens], dtype=torch.float64)
            ).tolist()
        metrics = {f"{metric_key_prefix}_loss": total / tokens}
        if self.questions:
            metrics |= self.questions.look(self.model, self.state.global_step)
        if self.world:
            self._stop_with_others(*self.world.any(asked()))
        self.log(dict(metrics))
        self.control: TrainerControl = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics
