"""The training stage: from examples and a base model to an adapter."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import pickle
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import set_seed

from ragtune.base.console import note, progress, warn
from ragtune.base.errors import RagtuneError, is_out_of_memory
from ragtune.base.files import making_folder, write_jsonl
from ragtune.base.stopping import finishing, stop_if_asked
from ragtune.data.encode import Encoder, Sample
from ragtune.data.example import Example
from ragtune.model.fast.attention import set_packed, using_packed
from ragtune.model.fast.fused import fuse
from ragtune.model.fast.lengths import probe_texts
from ragtune.model.load import Hardware, quiet
from ragtune.model.lora import save_adapter
from ragtune.model.plan import Plan, describe
from ragtune.model.skeleton import auto_class
from ragtune.model.wrapping import trainable_parameters
from ragtune.recipe.schema import Recipe
from ragtune.training.checkpoint import newest_whole
from ragtune.training.gradients import attach_reached
from ragtune.training.rows import PackedRows, draw_steps, split_rows
from ragtune.training.trainer import PackedTrainer, Watch, set_recompute, training_arguments

_NAMED = 5
"""Layers that a message names, of many."""
_LOGGED = ("step", "loss", "eval_loss", "grad_norm", "learning_rate")


@dataclass(frozen=True)
class TrainResult:
    """What a training gave, beside the adapter."""

    steps: int
    samples: int
    tokens: int
    seconds: float
    tokens_a_second: float
    step_seconds: float | None
    """Of the median step, the first not counted."""
    final_loss: float
    trainable_parameters: int
    auto_class: str
    """transformers' class that loads the whole model."""


def steps_of(recipe: Recipe, encoder: Encoder, examples: Sequence[Example]) -> list[list[Sample]]:
    """The samples of every optimizer step, in order.

    Raises:
        RagtuneError: an example of the prepared data no longer fits (another tokenizer).
    """
    drawn = draw_steps(
        len(examples),
        recipe.train.batch_size,
        steps=recipe.train.steps,
        epochs=recipe.train.epochs,
        seed=recipe.seed,
    )
    used = sorted({i for step in drawn for i in step})
    samples: dict[int, Sample] = {}
    for index, sample in zip(used, encoder.samples([examples[i] for i in used]), strict=True):
        if sample is None:
            raise RagtuneError(
                f"The example {examples[index].qid} no longer fits into the model's context.",
                "Run `ragtune prepare` again: the prepared data belong to another model.",
            )
        samples[index] = sample
    return [[samples[i] for i in step] for step in drawn]


def evaluation_rows(encoder: Encoder, examples: Sequence[Example], per_row: int) -> PackedRows:
    """The evaluation set in packed rows, for the completion loss."""
    samples = [s for s in encoder.samples(examples) if s is not None]
    return PackedRows([samples[i : i + per_row] for i in range(0, len(samples), per_row)])


def train(
    recipe: Recipe,
    hardware: Hardware,
    model: Any,
    encoder: Encoder,
    steps: list[list[Sample]],
    eval_examples: Sequence[Example],
    folder: Path,
    work: Path,
    base_name: str | None,
    plan: Plan,
    on_plan: Callable[[Plan], None],
    on_result: Callable[[TrainResult], None],
) -> Any:
    """Train an adapter and save it with the tokenizer and the log of its loss.

    Args:
        recipe: everything that is chosen.
        hardware: where.
        model: the base model; it is wrapped.
        encoder: for the samples.
        steps: the samples of every optimizer step.
        eval_examples: those whose completion loss is watched (`train.eval_every`).
        folder: the adapter's folder, which appears when it is whole.
        work: checkpoints; a whole one there is continued from.
        base_name: the base model's Hub id, if it has one.
        plan: how the work is laid out.
        on_plan: is given every change of the plan before it is used.
        on_result: is given what the training took, before the adapter has its name.

    Returns:
        The model with its trained adapter.

    Raises:
        RagtuneError: the loss is not finite, or memory does not do for a single sample.
        Stopped: a signal came; a checkpoint of the last step is there.
    """
    set_seed(recipe.seed)
    own_attention = model.config._attn_implementation  # noqa: SLF001 - no public getter
    if not plan.packed_reason:
        texts = [s.prompt_ids + s.completion_ids for step in steps for s in step]
        if recipe.train.eval_every:
            rows = evaluation_rows(encoder, eval_examples, 1).rows
            texts += [s.prompt_ids + s.completion_ids for (s,) in rows]
        unpackable = probe_texts(model, texts, training=True)
        plan = dataclasses.replace(
            plan,
            packed=unpackable is None,
            packed_reason=unpackable or "packed rows give the logits of single samples",
        )
        on_plan(plan)
    with using_packed(model) if plan.packed else contextlib.nullcontext():
        tuned, unreached = attach_reached(model, recipe.lora, recipe.seed, packed=plan.packed)
    fused = fuse(tuned)
    if plan.packed:
        set_packed(model)
    _describe(plan, recipe, steps, tuned)
    if unreached:
        named = ", ".join(unreached[:_NAMED]) + (" …" if len(unreached) > _NAMED else "")
        warn(f"{len(unreached):,} layers get no gradient from text, and no adapter: {named}.")
    if not fused:
        note("The adapters are computed by PEFT: none of them is of a kind that ragtune fuses.")
    checkpoint = newest_whole(work)
    with finishing():
        trainer, ends, seconds, tokens = _fit(
            recipe, plan, on_plan, hardware, tuned, encoder, steps, eval_examples, work, checkpoint
        )
        result = _save(
            recipe, encoder, trainer, steps, ends, seconds, tokens, folder, base_name, on_result
        )
    tuned.eval()
    model.set_attn_implementation(own_attention)
    note(
        f"Trained {result.steps} steps, {result.samples} samples, {result.tokens:,} tokens; "
        + (f"{tokens:,} of them since the break in " if checkpoint else "")
        + f"{result.seconds:.0f} s, {result.tokens_a_second:,.0f} tokens/s."
    )
    return tuned


def _save(
    recipe: Recipe,
    encoder: Encoder,
    trainer: PackedTrainer,
    steps: list[list[Sample]],
    ends: list[float],
    seconds: float,
    tokens: int,
    folder: Path,
    base_name: str | None,
    on_result: Callable[[TrainResult], None],
) -> TrainResult:
    """Write the adapter, the tokenizer and the log of the loss into a folder."""
    tuned: Any = trainer.model
    history = [
        {k: entry[k] for k in _LOGGED if k in entry}
        for entry in trainer.state.log_history
        if "loss" in entry or "eval_loss" in entry
    ]
    losses = [entry["loss"] for entry in history if "loss" in entry]
    pairs = list(itertools.pairwise(ends))
    result = TrainResult(
        steps=len(steps),
        samples=sum(map(len, steps)),
        tokens=sum(len(s) for step in steps for s in step),
        seconds=seconds,
        tokens_a_second=tokens / seconds,
        step_seconds=round(statistics.median(b - a for a, b in pairs), 4) if pairs else None,
        final_loss=sum(losses[-recipe.train.log_every :]) / len(losses[-recipe.train.log_every :]),
        trainable_parameters=trainable_parameters(tuned),
        auto_class=auto_class(tuned.config).__name__,
    )
    with making_folder(folder, 4 * result.trainable_parameters) as partial:
        save_adapter(tuned, partial, base_name)
        encoder.tokenizer.save_pretrained(partial)
        tuned.generation_config.save_pretrained(partial)
        write_jsonl(partial / "train_log.jsonl", history)
        on_result(result)
    return result


def _describe(plan: Plan, recipe: Recipe, steps: list[list[Sample]], tuned: Any) -> None:
    note(
        f"{trainable_parameters(tuned):,} trainable parameters (rank {recipe.lora.rank}). "
        f"{len(steps)} steps of {recipe.train.batch_size} samples."
    )
    for line in describe(plan, recipe.train.batch_size):
        note(line)
    if recipe.train.keep == "best":
        warn(
            "train.keep: best chooses the checkpoint by its loss on the evaluation set, which is also "
            "scored: the figures after tuning are a little too good."
        )
    if not plan.packed:
        warn(f"One sample a row: {plan.packed_reason}.")


def _in_words(error: Exception, work: Path, checkpoint: Path | None) -> RagtuneError | None:
    """What a failure of Trainer means to the user; None if it is a fault."""
    if isinstance(error, pickle.UnpicklingError) and checkpoint:
        # PyTorch's own words advise to read it all the same, which would run the code.
        return RagtuneError(
            f"{checkpoint} was refused: one of its .pt, .pth or .bin files holds code, which ragtune "
            "never wrote and does not run, or can't be read.",
            f"Delete {checkpoint} and run the same command again: it goes on from what is left. Find out "
            "who else writes to this folder.",
        )
    if is_out_of_memory(error):
        return RagtuneError(
            "The memory does not do for the optimizer or the evaluation loss.",
            "Set train.optimizer=paged_adamw_8bit, a lower lora.rank or prompt.max_tokens.",
        )
    if isinstance(error, ValueError) and checkpoint and "parameter group" in str(error):
        # torch has no class of its own for it.
        return RagtuneError(
            f"The optimizer's state in {checkpoint} is not that of this training: {error}.",
            f"Delete {work} and run the same command again: the training is repeated.",
        )
    return None


def _step_of(checkpoint: Path | None) -> int:
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0


def _fit(
    recipe: Recipe,
    plan: Plan,
    on_plan: Callable[[Plan], None],
    hardware: Hardware,
    tuned: Any,
    encoder: Encoder,
    steps: list[list[Sample]],
    eval_examples: Sequence[Example],
    work: Path,
    checkpoint: Path | None,
) -> tuple[PackedTrainer, list[float], float, int]:
    """Trainer's go; returns it, the end of every step, the seconds it took and the tokens it trained."""
    set_seed(recipe.seed)
    rows = [split_rows(step, plan.rows(recipe.train.batch_size)) for step in steps]
    data = PackedRows([row for step in rows for row in step])
    first = _step_of(checkpoint)
    if checkpoint:
        note(f"Going on from step {first}.")
    if plan.recompute:
        set_recompute(tuned, on=True)
    done = sum(len(s) for step in steps[:first] for s in step)
    every = recipe.train.log_every
    recent: list[float] = []
    ends: list[float] = []
    with quiet(), progress("training", len(steps)) as update:
        update(first, "")
        start = time.monotonic()

        def on_step(entry: dict[str, Any]) -> None:
            step = entry["step"]
            if "eval_loss" in entry:
                note(f"  step {step:>5}   evaluation loss {entry['eval_loss']:.4f}")
            if "loss" not in entry:
                return
            ends.append(time.monotonic())
            recent.append(entry["loss"])
            tokens = sum(len(s) for one in steps[first:step] for s in one)
            speed = tokens / (time.monotonic() - start)
            update(step, f"loss {entry['loss']:.4f}  {speed:,.0f} tokens/s")
            if step % every == 0 or step == len(steps):
                mean = sum(recent) / len(recent)
                note(
                    f"  step {step:>5}   loss {mean:.4f}   learning rate {entry['learning_rate']:.2e}"
                )
                recent.clear()

        watch = Watch(data, on_step)
        trainer = PackedTrainer(
            model=tuned,
            args=training_arguments(recipe, plan, hardware, len(steps), work),
            train_dataset=data,
            eval_dataset=evaluation_rows(encoder, eval_examples, plan.max_samples_per_row)
            if recipe.train.eval_every
            else None,
            callbacks=[watch],
            plan=plan,
            on_plan=on_plan,
            keep=recipe.train.keep_checkpoints,
        )
        watch.trainer = trainer
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except (RuntimeError, ValueError, pickle.UnpicklingError) as error:
            known = _in_words(error, work, checkpoint)
            if known is None:
                raise
            raise known from error
        reached = trainer.state.global_step
        if reached < len(steps):
            stop_if_asked(
                f"Training stopped after step {reached} of {len(steps)}: its checkpoint is kept."
            )
        if recipe.train.keep == "best":
            trainer.load_best()
        seconds = time.monotonic() - start
    if trainer.plan.recompute:
        set_recompute(tuned, on=False)
    return trainer, ends, seconds, sum(len(s) for step in steps for s in step) - done
