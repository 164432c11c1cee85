"""From samples and a base model to a tuned one: with an adapter, or with all weights trained."""

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
from typing import cast

from pydantic import JsonValue
from transformers import PreTrainedModel, set_seed

from ragtune.base.disk import disk_errors
from ragtune.base.files import write_jsonl
from ragtune.base.screen.console import note, warn
from ragtune.base.screen.progress import progress
from ragtune.base.stopping import finishing, stop_if_asked
from ragtune.base.text import one_or_many
from ragtune.data.encode import Encoder, Sample
from ragtune.data.example import Example
from ragtune.distributed.world import World
from ragtune.model import pissa
from ragtune.model.fast.attention import NAME, using_packed
from ragtune.model.fast.dropout import Masks
from ragtune.model.fast.lora import fuse
from ragtune.model.full import in_float32, save_whole
from ragtune.model.hardware import Hardware
from ragtune.model.lora import save_adapter
from ragtune.model.plan import Plan, describe
from ragtune.model.quiet import quiet
from ragtune.model.skeleton import auto_class
from ragtune.model.wrapping import Tuned, digest_of, trainable_parameters
from ragtune.recipe.schema import Recipe
from ragtune.training.arguments import training_arguments
from ragtune.training.average import Average
from ragtune.training.checkpoint import newest_whole
from ragtune.training.failures import in_words
from ragtune.training.gradients import attach_reached, let_learn
from ragtune.training.modes import Paused, set_recompute
from ragtune.training.packing import packing
from ragtune.training.pairs import divisor
from ragtune.training.preference import trainer_of
from ragtune.training.questions import Questions
from ragtune.training.rows import PackedRows, digest_of_steps, rows_of
from ragtune.training.table import LossTable
from ragtune.training.trackers import keeping_logs
from ragtune.training.watch import Entry, Progress, Watch, tokens_of

_NAMED = 5
"""Layers that a message names, of many."""
_FIRST = "this step is finished first, and a checkpoint written"
_LOGGED = ("step", "loss", "grad_norm", "learning_rate")
"""Of Trainer's log, beside what is found on the evaluation set."""
_TIMES = ("_runtime", "_per_second", "_preparation_time")
"""How Trainer's times end, which are others in each run: the log is the same, bit for bit."""


@dataclass(frozen=True)
class Job:
    """What is trained, on what, and where it goes."""

    recipe: Recipe
    hardware: Hardware
    encoder: Encoder
    plan: Plan
    steps: list[list[Sample]]
    """The samples of every optimizer step."""
    questions: Sequence[Example]
    """Those whose completion loss is watched (`train.eval_every`)."""
    base_name: str | None
    """The base model's Hub id, if it has one."""
    folder: Path
    """Exists and is empty: what is trained, tokenizer and log are written into it. Who calls names it."""
    checkpoints: Path
    """A whole one there is continued from."""
    logs: Path
    """What trackers write goes there: it stays when the unfinished work goes."""
    asking: Questions | None
    """Those that are asked at each look at the evaluation set."""
    tell: Callable[[int, Sequence[Entry]], None]
    """Is given the step and the log so far whenever something is logged."""
    keep_plan: Callable[[Plan], None]
    """Is given every change of the plan before it is used."""
    pause: int | None = None
    """The step after which the training is to wait, if it is to: in a run of a sweep, which has one rank."""
    world: World | None = None
    """The ranks, if there are several: all are given the same job, and rank 0 writes."""

    @property
    def leads(self) -> bool:
        """Whether this process decides and writes."""
        return self.world is None or self.world.leads


@dataclass(frozen=True)
class TrainResult:
    """What a training gave, beside the weights."""

    steps: int
    samples: int
    tokens: int
    seconds: float
    tokens_a_second: float
    step_seconds: float | None
    """Of the median step, the first not counted."""
    asking_seconds: float
    """Of `seconds` those that answers to `train.eval_answers` took; they don't count for tokens a second."""
    final_loss: float
    trainable_parameters: int
    auto_class: str
    """transformers' class that loads the whole model."""


def train(model: PreTrainedModel, job: Job) -> tuple[Tuned, TrainResult]:
    """Train an adapter or a whole model; write it with tokenizer and log of the loss into the job's folder.

    Args:
        model: the base model; it is wrapped, or trained itself.
        job: everything else. Its checkpoints stay: they count until the folder has its name.

    Returns:
        The tuned model, and what the training took.

    Raises:
        RagtuneError: the loss is not finite, or there is too little memory for a single sample; or PiSSA is to
            begin on unlike devices.
        Stopped: a signal came, or the step at which it is to wait; a checkpoint of the last step is there.
    """
    recipe, world = job.recipe, job.world
    set_seed(recipe.seed)
    own_attention = model.config._attn_implementation  # noqa: SLF001 - no public getter
    asking = job.asking and dataclasses.replace(job.asking, attention=own_attention)
    plan = _probed(model, job) if job.leads else job.plan
    if world:
        agreed = world.agree(plan.to_dict())
        plan = Plan.from_dict(cast("dict[str, JsonValue]", agreed)) or plan
        if recipe.lora.init == "pissa" and not (recipe.full or world.alike):
            raise pissa.unlike()
    job = dataclasses.replace(job, plan=plan, asking=asking)
    masks = Masks(recipe.seed)
    tuned = _learning(model, job, masks)
    with in_float32(model) if recipe.full else contextlib.nullcontext():
        _describe(job, tuned)
        checkpoint = newest_whole(job.checkpoints) if job.leads else None
        if world:
            checkpoint = _agreed(world, tuned, job, checkpoint)
        with finishing(_FIRST):
            log, shown, seconds = _fit(job, tuned, masks, checkpoint)
            result = _save(job, tuned, log, shown, seconds)
    tuned.eval()
    model.set_attn_implementation(own_attention)
    note(
        f"Trained {one_or_many(result.steps, 'step')}, {one_or_many(result.samples, 'sample')}, "
        f"{result.tokens:,} tokens; "
        + (f"{shown.tokens:,} of them since the break in " if checkpoint else "")
        + f"{result.seconds:.0f} s, {result.tokens_a_second:,.0f} tokens/s."
    )
    return tuned, result


def _learning(model: PreTrainedModel, job: Job, masks: Masks) -> Tuned:
    """The model with what learns in it; what of it text gives no gradient doesn't, which is said."""
    recipe, packed = job.recipe, job.plan.packed
    tuned: Tuned = model
    with using_packed(model) if packed else contextlib.nullcontext():
        if recipe.full:
            unreached = let_learn(model, packed=packed)
        else:
            tuned, unreached = attach_reached(model, recipe.lora, recipe.seed, packed=packed)
    masks.take_over(tuned)
    if not recipe.full and not fuse(tuned):
        note("The adapters are computed by PEFT: none of them is of a kind that ragtune fuses.")
    if packed:
        model.set_attn_implementation(NAME)
    if unreached:
        what, rest = ("weights", "and stay") if recipe.full else ("layers", "and no adapter")
        named = ", ".join(unreached[:_NAMED]) + (" …" if len(unreached) > _NAMED else "")
        warn(f"{len(unreached):,} {what} get no gradient from text, {rest}: {named}.")
    return tuned


def _agreed(world: World, tuned: Tuned, job: Job, checkpoint: Path | None) -> Path | None:
    """The checkpoint that every rank goes on from, when all have the same weights and samples.

    Raises:
        RagtuneError: a rank has others.
        LostError: a rank is gone.
    """
    world.require_same(digest_of(tuned), "The model's weights")
    world.require_same(digest_of_steps(job.steps), "The training samples")
    name = world.agree(checkpoint.name if checkpoint else None)
    world.join()
    return job.checkpoints / str(name) if name else None


def _probed(model: PreTrainedModel, job: Job) -> Plan:
    """The job's plan, which says whether packed rows are right for the model."""
    if job.plan.packed_reason:
        return job.plan
    samples = [s for step in job.steps for s in step]
    samples += [s for (s,) in _watched_rows(job, 1).rows]
    plan = packing(model, job.plan, job.recipe, samples)
    job.keep_plan(plan)
    return plan


def _watched_rows(job: Job, per_row: int) -> PackedRows:
    """The questions whose completion loss is watched, in packed rows; none without train.eval_every."""
    questions = job.questions if job.recipe.train.eval_every else []
    samples = [s for s in job.encoder.samples(questions) if s is not None]
    rows = [samples[i : i + per_row] for i in range(0, len(samples), per_row)]
    return PackedRows(rows[job.world.rank :: job.world.size] if job.world else rows)


def _describe(job: Job, tuned: Tuned) -> None:
    train = job.recipe.train
    what = "full tuning, in float32" if job.recipe.full else job.recipe.lora.in_words
    note(
        f"{trainable_parameters(tuned):,} trainable parameters ({what}). "
        f"{one_or_many(len(job.steps), 'step')} of {one_or_many(train.batch_size, 'sample')}."
    )
    for line in describe(job.plan, train.batch_size):
        note(line)
    if job.asking:
        times = "once" if job.asking.times == 1 else f"{job.asking.times} times in all"
        asked = one_or_many(job.asking.count, "question is", "questions are")
        note(f"train.eval_every={train.eval_every}: {asked} asked, {times}{job.asking.cost}.")
    if train.keep == "best":
        warn(
            "train.keep: best chooses the checkpoint by its loss on the evaluation set, which is also "
            "scored: the figures after tuning are a little too good."
        )
    if not job.plan.packed:
        warn(f"One sample a row: {job.plan.packed_reason}.")


def _fit(
    job: Job, tuned: Tuned, masks: Masks, checkpoint: Path | None
) -> tuple[list[Entry], Progress, float]:
    """Train, from a checkpoint if there is one; returns Trainer's log, every step, and the seconds.

    Raises:
        Stopped: a signal came; a checkpoint of the last step is there.
    """
    recipe, plan, steps, world = job.recipe, job.plan, job.steps, job.world
    set_seed(recipe.seed)
    rows = rows_of(
        steps, plan.rows(recipe.train.batch_size), *((world.rank, world.size) if world else ())
    )
    first = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    if checkpoint:
        note(f"Going on from step {first}.")
    if plan.recompute:
        set_recompute(tuned, on=True)
    with quiet(), progress("training", len(steps), done=first, unit="steps") as update:
        every, looks = recipe.train.log_every, recipe.train.eval_every
        table = LossTable(every, len(steps), looks, job.asking)
        shown = Progress(steps, first, table, update, job.asking)
        trainer = trainer_of(recipe.train)(
            model=tuned,
            args=training_arguments(recipe, plan, job.hardware, len(steps), job.checkpoints),
            train_dataset=PackedRows(rows),
            # Of few rows a rank may have none, but looks where the others look.
            eval_dataset=_watched_rows(job, plan.max_samples_per_row) if looks else None,
            plan=plan,
            trained=[divisor(step) for step in steps],
            masks=masks,
            on_plan=job.keep_plan,
            keep=recipe.train.keep_checkpoints,
            questions=job.asking,
            world=world,
        )
        trainer.average = Average.of(tuned, recipe.train.average_last, len(steps))
        trainer.lora_plus = recipe.train.lora_plus
        trainer.add_callback(Watch(trainer, shown, job.tell, job.pause))
        noise = trainer.noise.on(tuned) if trainer.noise else contextlib.nullcontext()
        # Within the writer, which needs nobody: when a rank is lost, what it has begun is finished.
        together = world.together() if world else contextlib.nullcontext()
        try:
            with keeping_logs(trainer, job.logs), noise, trainer.writer, together:
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except (RuntimeError, ValueError, pickle.UnpicklingError) as error:
            known = in_words(error, checkpoint)
            if known is None:
                raise
            raise known from error
        _require_end(trainer.state.global_step, len(steps), world)
        trainer.require_alike()
        if recipe.train.keep == "best" and job.leads:
            trainer.load_best()
        seconds = time.monotonic() - shown.start
    if trainer.plan.recompute:
        set_recompute(tuned, on=False)
    return trainer.state.log_history, shown, seconds


def _require_end(reached: int, steps: int, world: World | None) -> None:
    """Raise where a training ended before its last step, as it was told to; rank 0 is the first to go."""
    if reached < steps:
        if world and not world.leads:
            world.await_end()
        stop_if_asked(f"Training stopped after step {reached} of {steps}: its checkpoint is kept.")
        raise Paused


def _is_found(key: str) -> bool:
    """Whether a key of Trainer's log is of something found on the evaluation set."""
    return key.startswith("eval_") and not key.endswith(_TIMES)


def _save(job: Job, tuned: Tuned, log: list[Entry], shown: Progress, seconds: float) -> TrainResult:
    """Write what was trained, the tokenizer and the log of the loss into the job's folder."""
    history = [
        # In an order of ours: a log that was read back from a checkpoint has another.
        {k: entry[k] for k in (*_LOGGED, *sorted(filter(_is_found, entry))) if k in entry}
        for entry in log
        if "loss" in entry or any(map(_is_found, entry))
    ]
    last = [entry["loss"] for entry in history if "loss" in entry][-job.recipe.train.log_every :]
    asking = job.asking.seconds if job.asking else 0.0
    durations = [b - a for a, b in itertools.pairwise(shown.ends)]
    result = TrainResult(
        steps=len(job.steps),
        samples=sum(map(len, job.steps)),
        tokens=tokens_of(job.steps),
        seconds=seconds,
        tokens_a_second=shown.tokens / (seconds - asking),
        step_seconds=round(statistics.median(durations), 4) if durations else None,
        asking_seconds=round(asking, 2),
        final_loss=sum(last) / len(last),
        trainable_parameters=trainable_parameters(tuned),
        auto_class=auto_class(tuned.config).__name__,
    )
    if not job.leads:
        return result
    with disk_errors(job.folder, 4 * result.trainable_parameters):
        if isinstance(tuned, PreTrainedModel):
            save_whole(tuned, job.folder)
        else:
            save_adapter(tuned, job.folder, job.base_name)
        job.encoder.tokenizer.save_pretrained(job.folder)
        tuned.generation_config.save_pretrained(job.folder)
        write_jsonl(job.folder / "train_log.jsonl", history)
    return result
