"""transformers' Trainer on packed rows, with logits only where something is trained."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from ragtune.base.console import warn
from ragtune.base.errors import RagtuneError, is_out_of_memory
from ragtune.base.files import disk_errors
from ragtune.base.lock import see_held
from ragtune.base.stopping import asked
from ragtune.model.fast.fused import forget
from ragtune.model.load import Hardware
from ragtune.model.plan import Plan
from ragtune.recipe.schema import Recipe
from ragtune.training.checkpoint import is_whole, keep_newest, seal
from ragtune.training.flat import flat_optimizer
from ragtune.training.rows import PackedRows, RowCollator, kept_logits, split_rows
from ragtune.training.trackers import check_trackers

_OPTIMIZERS = {
    "adamw": "adamw_torch",
    "adamw_8bit": "adamw_8bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
}


def training_arguments(
    recipe: Recipe, plan: Plan, hardware: Hardware, steps: int, folder: Path
) -> TrainingArguments:
    """The recipe and the plan in Trainer's terms.

    `hub_token` is never set: it would be pickled into every checkpoint.
    """
    train = recipe.train
    check_trackers(train.report_to)
    evaluate = train.eval_every is not None
    best = train.keep == "best"
    cuda = hardware.device.type == "cuda"
    optimizer = _OPTIMIZERS[train.optimizer]
    args = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=1,  # one packed row
        per_device_eval_batch_size=1,
        gradient_accumulation_steps=plan.rows(train.batch_size),
        # torch's fused AdamW is the same update without temporary copies of all weights.
        optim="adamw_torch_fused" if cuda and optimizer == "adamw_torch" else optimizer,
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.scheduler,
        warmup_steps=train.warmup,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        logging_steps=1,  # the loss of every step is kept; the screen shows every log_every
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=train.eval_every if best and train.eval_every else train.save_every,
        eval_strategy="steps" if evaluate else "no",
        eval_steps=train.eval_every,
        metric_for_best_model="eval_loss" if best else None,
        greater_is_better=False if best else None,
        seed=recipe.seed,
        data_seed=recipe.seed,
        bf16=cuda and hardware.dtype == torch.bfloat16,
        fp16=cuda and hardware.dtype == torch.float16,
        use_cpu=hardware.device.type == "cpu",
        report_to=train.report_to or "none",
        run_name=recipe.name,
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
        # Without these, every row's transfer would wait for the GPU to finish the row before.
        dataloader_pin_memory=cuda,
        accelerator_config={"non_blocking": cuda},
    )
    # In a Kubeflow job transformers would add a tracker that the recipe doesn't name.
    args.report_to = list(train.report_to)
    # Several GPUs in one process would be wrapped in DataParallel, which splits a packed row.
    args._n_gpu = min(args.n_gpu, 1)  # noqa: SLF001 - the only switch that there is
    return args


def set_recompute(model: Any, *, on: bool) -> None:
    """Let a model recompute its activations in the backward pass, or keep them."""
    # transformers before 5.20 knows the older names alone.
    # That a model has one of them: tested by tests/training/test_out_of_memory.py, with both versions.
    names = ("activation_checkpointing", "gradient_checkpointing")
    kind = names[0] if hasattr(model, f"{names[0]}_enable") else names[1]
    if on:
        getattr(model, f"{kind}_enable")({"use_reentrant": False})
    else:
        getattr(model, f"{kind}_disable")()


class PackedTrainer(Trainer):
    """Trains on the rows in their order; stops at the first loss or gradient that is not finite.

    When memory runs out in a step, the step begins again with a smaller plan.

    Args:
        plan: the layout; `train_dataset` follows it.
        on_plan: is given the smaller plan.
        keep: checkpoints to keep.
        options: Trainer's.
    """

    def __init__(
        self, *, plan: Plan, on_plan: Callable[[Plan], None], keep: int, **options: Any
    ) -> None:
        super().__init__(data_collator=RowCollator(packed=plan.packed), **options)
        self.remove_callback(PrinterCallback)  # Watch says what matters
        # compute_loss divides by the step's trained tokens, so Trainer must not divide by rows.
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True
        self.keep = keep
        self.plan = plan
        self.on_plan = on_plan
        self.row_losses: list[tuple[int, torch.Tensor]] = []
        self.step_rows: list[int] = []
        """The rows of the present step that are behind us, as indices."""
        self.model.train = _once(self.model.train)

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)

    def training_step(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """One row forward and backward; in parts, if the plan has become smaller."""
        row: int = inputs["row"]
        if row % self.args.gradient_accumulation_steps == 0:
            self.step_rows = []
        loss: torch.Tensor | None = None
        again = [row]
        if len(self.rows[row]) <= self.plan.max_samples_per_row:
            whole = super().training_step
            loss = self._unless_out_of_memory(lambda: whole(model, inputs, num_items_in_batch))
            if loss is None:
                # What the failed row left in the gradients can't be told from the others' part.
                again = [*self.step_rows, row]
        while loss is None:
            for one in again:
                loss = self._unless_out_of_memory(
                    lambda one=one: self._in_parts(model, one, num_items_in_batch)  # type: ignore[misc]
                )
                if loss is None:
                    again = [*self.step_rows, row]
                    break
        self.step_rows.append(row)
        return loss

    def _unless_out_of_memory(self, run: Callable[[], torch.Tensor]) -> torch.Tensor | None:
        """What `run` returns; or None, with the step's gradients forgotten and a smaller plan.

        Raises:
            RagtuneError: there is no smaller one.
        """
        try:
            return run()
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        # Only here the exception is gone, and with it what its frames held.
        step = self.state.global_step + 1
        smaller = self.plan.smaller(step)
        if smaller is None and self.plan.dequantized:
            self.on_plan(dataclasses.replace(self.plan, dequantized=False))
            raise RagtuneError(
                f"Step {step}: beside the dequantised weights no single sample fits.",
                "Run the same command again: the weights then stay in NF4, which leaves room.",
            )
        if smaller is None:
            raise RagtuneError(
                f"Step {step}: the memory does not do for a single sample with recomputed activations.",
                "Set model.quantization=nf4, prompt.max_tokens to something shorter, or a lower lora.rank.",
            )
        if smaller.recompute and not self.plan.recompute:
            set_recompute(self.model, on=True)
        self.plan = smaller
        self.on_plan(smaller)
        warn(f"{smaller.changes[-1].capitalize()}; the step begins again.")
        self.row_losses.clear()
        forget(self.model)
        self.model.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        return None

    def _in_parts(self, model: Any, row: int, num_items_in_batch: Any) -> torch.Tensor:
        samples = self.rows[row]
        total = torch.zeros((), device=self.args.device)
        for part in split_rows(samples, -(-len(samples) // self.plan.max_samples_per_row)):
            batch = self.data_collator([{"index": row, "samples": part}])
            total = total + super().training_step(model, batch, num_items_in_batch)
        return total

    @property
    def rows(self) -> list[list[Any]]:
        """The samples of every row."""
        data: Any = self.train_dataset
        rows: list[list[Any]] = data.rows
        return rows

    def create_optimizer(self, model: Any = None) -> Any:
        """Trainer's; an 8-bit one over a single tensor (not in float16: the scaler looks at each)."""
        if self.optimizer is None and self.plan.optimizer != "adamw" and not self.args.fp16:
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            decay = {"weight_decay": self.args.weight_decay}
            self.optimizer: Any = flat_optimizer(
                (p for p in self.model.parameters() if p.requires_grad),
                lambda tensors: kind([{"params": tensors, **decay}], **options),
            )
        return super().create_optimizer(model)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Cross entropy over the trained tokens of a row, divided by those of the whole step."""
        inputs = dict(inputs)
        inputs.pop("labels")
        targets = inputs.pop("targets")
        row = inputs.pop("row")
        outputs = model(**inputs, use_cache=False)
        logits = kept_logits(outputs, inputs["logits_to_keep"])
        total = functional.cross_entropy(logits.float(), targets, reduction="sum")
        loss = total / (num_items_in_batch if num_items_in_batch is not None else len(targets))
        if model.training:
            self.row_losses.append((row, loss.detach()))
        return (loss, outputs) if return_outputs else loss

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: Any = None,  # noqa: ARG002 - Trainer's signature
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """The completion loss over the evaluation rows: the mean over their trained tokens."""
        self.model.eval()
        total, tokens = 0.0, 0
        with torch.no_grad():
            for batch in self.get_eval_dataloader(eval_dataset):
                inputs = self._prepare_inputs(batch)
                count = len(inputs["targets"])
                with self.compute_loss_context_manager():
                    total += float(self.compute_loss(self.model, inputs)) * count
                tokens += count
        metrics = {f"{metric_key_prefix}_loss": total / tokens}
        self.log(dict(metrics))
        self.control: Any = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def load_best(self) -> None:
        """Put the adapter of the best step into the model.

        Trainer's own way remembers a path, and takes the last step in silence if the run was moved.
        """
        from peft import set_peft_model_state_dict
        from safetensors.torch import load_file

        best = Path(self.args.output_dir) / f"checkpoint-{self.state.best_global_step}"
        if not is_whole(best):
            raise RagtuneError(
                f"The best checkpoint, {best}, is gone or damaged.",
                f"Delete {best.parent} and run the same command again: the training is repeated.",
            )
        set_peft_model_state_dict(self.model, load_file(best / "adapter_model.safetensors"))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self._get_output_dir(trial=trial))
        checkpoint = folder / f"checkpoint-{self.state.global_step}"
        # Weights and AdamW's two averages, in float32.
        needed = 12 * sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        try:
            with disk_errors(checkpoint, needed):
                super()._save_checkpoint(model, trial)
                seal(checkpoint)
        except BaseException:  # a stop, too
            shutil.rmtree(checkpoint, ignore_errors=True)  # half of it would fill the disk
            raise
        # Only now may older ones go: until the manifest stands this one does not count.
        keep_newest(folder, self.keep, self.state.best_global_step)


def _once(train: Callable[[bool], Any]) -> Callable[..., Any]:
    """A model's `train` that does nothing where its mode is the wanted one.

    Trainer calls it for every row, and a large model has thousands of modules: milliseconds in which
    the GPU waits.
    """
    model: Any = train.__self__  # type: ignore[attr-defined]

    def switch(mode: bool = True) -> Any:
        return model if model.training == mode else train(mode)

    return switch


OVERFLOWS = 10
"""Steps in a row that a float16 training may skip; a loss scaler needs no more to find its scale."""


class Watch(TrainerCallback):
    """Stops at a loss or gradient that is not finite, and reports the others.

    With float16 a gradient may overflow: the loss scaler then skips that step and takes a smaller
    scale, so only OVERFLOWS of them in a row count there.
    """

    def __init__(self, rows: PackedRows, on_step: Callable[[dict[str, Any]], None]) -> None:
        self.rows = rows
        self.on_step = on_step
        self.trainer: PackedTrainer | None = None
        self.overflows = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        see_held()  # before a checkpoint that would take the place of another machine's
        # After the last step comes the adapter itself; only the best of several needs a checkpoint.
        if state.global_step >= state.max_steps:
            if not args.metric_for_best_model:
                control.should_save = False
        elif asked():
            control.should_save = control.should_training_stop = True

    def on_log(
        self,
        args: Any,
        state: Any,
        control: Any,  # noqa: ARG002 - TrainerCallback's signature
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if not logs or self.trainer is None:
            return
        if "loss" in logs:
            row_losses, self.trainer.row_losses = self.trainer.row_losses, []
            gradient = logs.get("grad_norm", 0.0)
            self.overflows = 0 if math.isfinite(gradient) else self.overflows + 1
            allowed = OVERFLOWS if args.fp16 else 0
            if not math.isfinite(logs["loss"]) or self.overflows > allowed:
                bad = [int(r) for r, loss in row_losses if not bool(torch.isfinite(loss))]
                named = bad or [int(r) for r, _ in row_losses]
                qids = [s.qid for r in named for s in self.rows.rows[r]]
                what = "loss" if bad else "gradient"
                raise RagtuneError(
                    f"Training stopped at step {state.global_step}: the {what} is not finite. "
                    f"Questions {'of the row' if bad else 'of the step'}: {', '.join(qids)}.",
                    "Look at these examples (ragtune prepare --show), lower train.learning_rate, or "
                    "use model.dtype=float32. Checkpoints before this step are kept in work/.",
                )
        self.on_step({"step": state.global_step, **logs})
