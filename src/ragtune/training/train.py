"""The training stage: from examples and a base model to an adapter."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from ragtune.console import note, progress, warn
from ragtune.data.encode import Encoder, Sample
from ragtune.data.example import Example
from ragtune.errors import RagtuneError, is_out_of_memory
from ragtune.files import making_folder, write_jsonl
from ragtune.model.attention import probe, set_packed
from ragtune.model.load import Hardware, quiet
from ragtune.model.lora import attach, save_adapter, trainable_parameters
from ragtune.model.memory import Plan, make_plan
from ragtune.recipe import Recipe
from ragtune.training.checkpoint import newest_whole
from ragtune.training.rows import PackedRows, draw_steps, split_rows
from ragtune.training.trainer import PackedTrainer, Watch, training_arguments

_LOGGED = ("step", "loss", "eval_loss", "grad_norm", "learning_rate")


@dataclass(frozen=True)
class TrainResult:
    """What a training gave, beside the adapter."""

    steps: int
    samples: int
    tokens: int
    seconds: float
    tokens_a_second: float
    final_loss: float
    trainable_parameters: int


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
    samples: dict[int, Sample] = {}
    for index in sorted({i for step in drawn for i in step}):
        sample = encoder.sample(examples[index])
        if sample is None:
            raise RagtuneError(
                f"The example {examples[index].qid} no longer fits into the model's context.",
                "Run `ragtune prepare` again: the prepared data belong to another model.",
            )
        samples[index] = sample
    return [[samples[i] for i in step] for step in drawn]


def evaluation_rows(encoder: Encoder, examples: Sequence[Example], per_row: int) -> PackedRows:
    """The evaluation set in packed rows, for the completion loss."""
    samples = [s for s in map(encoder.sample, examples) if s is not None]
    return PackedRows([samples[i : i + per_row] for i in range(0, len(samples), per_row)])


def train(
    recipe: Recipe,
    hardware: Hardware,
    model: Any,
    encoder: Encoder,
    train_examples: Sequence[Example],
    eval_examples: Sequence[Example],
    folder: Path,
    work: Path,
    base_name: str | None,
    plan: Plan | None,
    on_plan: Callable[[Plan], None],
) -> tuple[Any, TrainResult]:
    """Train an adapter and save it with the tokenizer and the log of its loss.

    Args:
        recipe: everything that is chosen.
        hardware: where.
        model: the base model; it is wrapped.
        encoder: for the samples.
        train_examples: the selected examples.
        eval_examples: those whose completion loss is watched (`train.eval_every`).
        folder: the adapter's folder, which appears when it is whole.
        work: checkpoints; a whole one there is continued from.
        base_name: the base model's Hub id, if it has one.
        plan: the plan of an earlier start of the same run, or None to make one.
        on_plan: is given every plan before it is used.

    Returns:
        The model with its trained adapter, and what it took.

    Raises:
        RagtuneError: the loss is not finite, or memory does not do for a single sample.
    """
    set_seed(recipe.seed)
    steps = steps_of(recipe, encoder, train_examples)
    own_attention = model.config._attn_implementation  # noqa: SLF001 - no public getter
    unpackable = probe(model) if plan is None else None
    tuned = attach(model, recipe.lora, recipe.seed)
    fresh = {n: p.detach().cpu().clone() for n, p in tuned.named_parameters() if p.requires_grad}
    if plan is not None and (plan.device, plan.dtype) != (hardware.name, hardware.dtype_name):
        change = (
            f"continued on {hardware.name} as {hardware.dtype_name}, "
            f"begun on {plan.device} as {plan.dtype}"
        )
        warn(f"{change}: the result will not be that of an uninterrupted run, bit for bit.")
        plan = dataclasses.replace(
            plan,
            device=hardware.name,
            dtype=hardware.dtype_name,
            changes=(*plan.changes, change),
        )
    if plan is None:
        longest = max(len(s) for step in steps for s in step)
        plan = make_plan(recipe, hardware, tuned, unpackable, longest)
    _describe(plan, recipe, steps, tuned)
    while True:
        on_plan(plan)
        if plan.packed:
            set_packed(model)
        checkpoint = newest_whole(work)
        try:
            trainer, seconds, tokens = _fit(
                recipe, plan, hardware, tuned, encoder, steps, eval_examples, work, checkpoint
            )
            break
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            reached = _step_of(newest_whole(work))
            smaller = plan.smaller(reached)
            if smaller is None:
                raise RagtuneError(
                    "The memory does not do for a single sample with recomputed activations.",
                    "Set model.quantization=nf4, prompt.max_tokens to something shorter, or a lower lora.rank.",
                ) from error
            warn(f"{smaller.changes[-1]}; going on from step {reached}.")
            plan = smaller
            _reset(tuned, fresh)
    tuned.eval()
    model.set_attn_implementation(own_attention)
    history = [
        {k: entry[k] for k in _LOGGED if k in entry}
        for entry in trainer.state.log_history
        if "loss" in entry or "eval_loss" in entry
    ]
    with making_folder(folder) as partial:
        save_adapter(tuned, partial, base_name)
        encoder.tokenizer.save_pretrained(partial)
        model.generation_config.save_pretrained(partial)
        write_jsonl(partial / "train_log.jsonl", history)
    losses = [entry["loss"] for entry in history if "loss" in entry]
    result = TrainResult(
        steps=len(steps),
        samples=sum(map(len, steps)),
        tokens=sum(len(s) for step in steps for s in step),
        seconds=seconds,
        tokens_a_second=tokens / seconds,
        final_loss=sum(losses[-recipe.train.log_every :]) / len(losses[-recipe.train.log_every :]),
        trainable_parameters=trainable_parameters(tuned),
    )
    note(
        f"Trained {result.steps} steps, {result.samples} samples, {result.tokens:,} tokens; "
        f"{result.seconds:.0f} s, {result.tokens_a_second:,.0f} tokens/s."
    )
    return tuned, result


def _describe(plan: Plan, recipe: Recipe, steps: list[list[Sample]], tuned: Any) -> None:
    note(
        f"{trainable_parameters(tuned):,} trainable parameters (rank {recipe.lora.rank}). "
        f"{len(steps)} steps of {recipe.train.batch_size} samples, "
        f"{plan.max_samples_per_row} a row, "
        f"activations {'recomputed' if plan.recompute else 'kept'}."
    )
    if recipe.train.keep == "best":
        warn(
            "train.keep: best chooses the checkpoint by its loss on the evaluation set, which is also "
            "scored: the figures after tuning are a little too good."
        )
    if not plan.packed:
        warn(f"One sample a row: {plan.packed_reason}.")


def _reset(tuned: Any, fresh: dict[str, torch.Tensor]) -> None:
    """Put the fresh adapter's values back: a restart from step 0 begins where the first did."""
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if name in fresh:
                parameter.copy_(fresh[name])
    tuned.zero_grad(set_to_none=True)
    torch.cuda.empty_cache()


def _step_of(checkpoint: Path | None) -> int:
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0


def _fit(
    recipe: Recipe,
    plan: Plan,
    hardware: Hardware,
    tuned: Any,
    encoder: Encoder,
    steps: list[list[Sample]],
    eval_examples: Sequence[Example],
    work: Path,
    checkpoint: Path | None,
) -> tuple[PackedTrainer, float, int]:
    """One go of Trainer; returns it, the seconds it took and the tokens it trained."""
    set_seed(recipe.seed)
    rows = [split_rows(step, plan.rows(recipe.train.batch_size)) for step in steps]
    data = PackedRows([row for step in rows for row in step])
    first = _step_of(checkpoint)
    if checkpoint:
        note(f"Going on from step {first}.")
    if plan.recompute:
        enable = getattr(tuned, "activation_checkpointing_enable", None)
        # transformers before 5.20 knows the older name alone.
        enable = enable or tuned.gradient_checkpointing_enable
        enable({"use_reentrant": False})
        tuned.enable_input_require_grads()
    done = sum(len(s) for step in steps[:first] for s in step)
    every = recipe.train.log_every
    recent: list[float] = []
    with quiet(), progress("training", len(steps)) as update:
        update(first, "")
        start = time.monotonic()

        def on_step(entry: dict[str, Any]) -> None:
            step = entry["step"]
            if "eval_loss" in entry:
                note(f"  step {step:>5}   evaluation loss {entry['eval_loss']:.4f}")
            if "loss" not in entry:
                return
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
            packed=plan.packed,
            keep=recipe.train.keep_checkpoints,
        )
        watch.trainer = trainer
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if recipe.train.keep == "best":
            trainer.load_best()
        seconds = time.monotonic() - start
    if plan.recompute:
        disable = getattr(tuned, "activation_checkpointing_disable", None)
        (disable or tuned.gradient_checkpointing_disable)()
    return trainer, seconds, sum(len(s) for step in steps for s in step) - done
