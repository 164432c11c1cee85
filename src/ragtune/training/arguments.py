"""The recipe in Trainer's terms; train.arguments: all of its own but those that ragtune sets, or do harm."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from pydantic import ConfigDict, JsonValue, TypeAdapter, ValidationError
from transformers import TrainingArguments, get_scheduler
from transformers.utils import is_torch_tf32_available

from ragtune.base.errors import UsageError
from ragtune.base.text import first_line, nearest, shortened
from ragtune.model.hardware import Hardware
from ragtune.model.plan import Plan
from ragtune.recipe.schema import Recipe
from ragtune.training.trackers import require_trackers

_OURS = {
    "output_dir": "--run-dir",
    "seed": "seed",
    "data_seed": "seed",
    "run_name": "name",
    "bf16": "model.dtype",
    "fp16": "model.dtype",
    "max_steps": "train.steps",
    "num_train_epochs": "train.epochs",
    "per_device_train_batch_size": "train.batch_size (and train.samples_per_row)",
    "gradient_accumulation_steps": "train.batch_size (and train.samples_per_row)",
    "auto_find_batch_size": "train.samples_per_row",
    "per_device_eval_batch_size": "train.samples_per_row",
    "learning_rate": "train.learning_rate",
    "lr_scheduler_type": "train.scheduler",
    "warmup_steps": "train.warmup",
    "warmup_ratio": "train.warmup",
    "optim": "train.optimizer",
    "weight_decay": "train.weight_decay",
    "max_grad_norm": "train.max_grad_norm",
    "activation_checkpointing": "train.recompute",
    "gradient_checkpointing": "train.recompute",
    "logging_steps": "train.log_every",
    "logging_strategy": "train.log_every",
    "eval_strategy": "train.eval_every",
    "eval_steps": "train.eval_every",
    "save_strategy": "train.save_every",
    "save_steps": "train.save_every",
    "save_total_limit": "train.keep_checkpoints",
    "load_best_model_at_end": "train.keep",
    "metric_for_best_model": "train.keep",
    "greater_is_better": "train.keep",
    "report_to": "train.report_to",
    "resume_from_checkpoint": "the same command again, which goes on from the newest checkpoint",
    "push_to_hub": "publish.repo",
    "hub_model_id": "publish.repo",
    "hub_private_repo": "publish.private",
    "hub_token": "the token of `hf auth login`, which is written nowhere",
}
"""What does the same here: a key of the recipe, or what is said instead."""
_REFUSED = {
    "ddp_* fsdp* deepspeed parallelism_config local_rank average_tokens_across_devices log_on_each_node "
    "log_level_replica save_on_each_node eval_use_gather_object": "training is one process",
    "hub_* trackio_*": "it would upload: ragtune publishes by its publish section",
    "dataloader_* accelerator_config remove_unused_columns label_names train_sampling_strategy "
    "length_column_name group_by_length": "ragtune packs and orders the rows itself",
    "torch_compile* use_liger_kernel liger_kernel_config use_cache activation_checkpointing_kwargs "
    "gradient_checkpointing_kwargs": "the model runs with ragtune's own kernels",
    "use_cpu": "ragtune chooses the device: hide the GPUs with CUDA_VISIBLE_DEVICES=",
    "*_full_eval prediction_loss_only eval_do_concat_batches eval_accumulation_steps include_for_metrics "
    "batch_eval_metrics": "ragtune evaluates itself",
    "optim_args optim_target_modules": "ragtune's optimizers read none",
    "save_only_model enable_jit_checkpoint ignore_data_skip restore_callback_states_from_checkpoint":
    "a stopped training must go on as if it had not been stopped",
    "logging_first_step logging_nan_inf_filter log_level disable_tqdm debug skip_memory_metrics":
    "ragtune looks at every step and shows it itself",
    "do_train do_eval do_predict": "Trainer doesn't read it",
}  # fmt: skip
"""Names (with * for any ending or beginning) that would do nothing here or do harm, and why."""
_WATCHED = ("eval_delay", "eval_on_start")
_COUNTED = (True, False, "all", "non_padding", "no")
_MOST_NOISE = 1000
"""Of NEFTune: its paper takes 5 to 15."""
_TRIED_STEPS = 10
"""Of a schedule, from its first to its last."""


def require_arguments(recipe: Recipe) -> None:
    """Let only those be in `train.arguments` that take effect, with values that they can have.

    Raises:
        UsageError: it says which are wrong, all of them, and what to write.
    """
    given = recipe.train.arguments
    known = {f.name: cast("type", f.type) for f in dataclasses.fields(TrainingArguments) if f.init}
    wrong = [words for name, value in given.items() if (words := _wrong(name, value, known))]
    wrong = wrong or _without_effect(recipe) or _bad_values(recipe)
    if wrong:
        raise UsageError(
            "\n".join(f"train.arguments: {words}" for words in wrong),
            "Correct them, or leave them out.",
        )


def _wrong(name: str, value: JsonValue, known: Mapping[str, type]) -> str | None:
    """What is wrong with an argument, by its name and its type."""
    if instead := _OURS.get(name):
        return f"{name} is set by ragtune: use {instead}."
    version = f"transformers {transformers.__version__}"
    if name not in known:
        near = nearest(name[:100], [*known])
        hint = f" Did you mean {near}?" if near else ""
        return f"{version} has no training argument {shortened(name)!r}.{hint}"
    for names, reason in _REFUSED.items():
        if any(fnmatchcase(name, one) for one in names.split()):
            return f"{name} can't be passed on: {reason}."
    try:
        adapter: TypeAdapter[object] = TypeAdapter(known[name], config=ConfigDict(strict=True))
        adapter.validate_python(value)
    except ValidationError as error:
        wanted = dict.fromkeys(
            one["msg"].removeprefix("Input should be ") for one in error.errors()
        )
        words = " or ".join(wanted)
        return f"{name} = {shortened(repr(value))}: it should be {words} ({version})."
    return None


def _without_effect(recipe: Recipe) -> list[str]:
    """Arguments for which the rest of the recipe leaves nothing to do."""
    train = recipe.train
    found = [
        f"{name} needs train.eval_every: without it nothing is evaluated while training."
        for name in _WATCHED
        if name in train.arguments and train.eval_every is None
    ]
    if train.arguments.get("lr_scheduler_kwargs") and train.scheduler.startswith("constant"):
        found.append(f"lr_scheduler_kwargs has no effect with train.scheduler: {train.scheduler}.")
    if "project" in train.arguments and "trackio" not in train.report_to:
        found.append("project needs trackio in train.report_to: nothing else reads it.")
    return found


def _bad_values(recipe: Recipe) -> list[str]:
    """Values of the right type with which the training would fail, by trying them."""
    given = recipe.train.arguments
    found = [
        f"{name} = {value!r} must be {words}."
        for name, fits, words in (
            ("adam_epsilon", lambda v: v > 0, "more than 0"),
            ("label_smoothing_factor", lambda v: 0 <= v < 1, "0 or more, and less than 1"),
            ("neftune_noise_alpha", lambda v: 0 <= v <= _MOST_NOISE, f"from 0 to {_MOST_NOISE:,}"),
            ("eval_delay", lambda v: v >= 0, "0 or more"),
            ("torch_empty_cache_steps", lambda v: v >= 1, "1 or more"),
            ("include_num_input_tokens_seen", _COUNTED.__contains__, f"one of {_COUNTED}"),
            (
                "tf32",
                lambda v: not v or is_torch_tf32_available(),
                "false: this machine has no TF32",
            ),
        )
        if (value := given.get(name)) is not None and not fits(value)
    ]
    return found or _bad_rates(recipe)


def _bad_rates(recipe: Recipe) -> list[str]:
    """What AdamW or the schedule refuses, or computes that is no learning rate."""
    # Of Trainer's own class not even an object is made here: where WORLD_SIZE is set it waits for partners.
    args: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(TrainingArguments)}
    args |= recipe.train.arguments
    try:
        weight = torch.nn.Parameter(torch.zeros(1))
        betas = (args["adam_beta1"], args["adam_beta2"])
        optimizer = torch.optim.AdamW([weight], betas=betas, eps=args["adam_epsilon"])
        kwargs = args["lr_scheduler_kwargs"]
        scheduler = get_scheduler(recipe.train.scheduler, optimizer, 0, _TRIED_STEPS, kwargs)
        for _ in range(_TRIED_STEPS):
            optimizer.step()
            scheduler.step()
            if not math.isfinite(rate := scheduler.get_last_lr()[0]):
                return [f"lr_scheduler_kwargs = {kwargs!r} gives a learning rate of {rate}."]
    except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as error:
        return [f"{first_line(error).rstrip('.')}."]
    return []


def training_arguments(
    recipe: Recipe, plan: Plan, hardware: Hardware, steps: int, folder: Path
) -> TrainingArguments:
    """The recipe, or a rank's share of it, and the plan in Trainer's terms.

    `hub_token` is never set: it would be pickled into every checkpoint.
    """
    train = recipe.train
    require_trackers(train.report_to)
    require_arguments(recipe)
    best = train.keep == "best"
    cuda = hardware.device.type == "cuda"
    # torch's fused AdamW is the same update without temporary copies of all weights.
    adamw = "adamw_torch_fused" if cuda else "adamw_torch"
    args = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=1,  # one packed row
        per_device_eval_batch_size=1,
        gradient_accumulation_steps=plan.rows(train.batch_size),
        optim=adamw if train.optimizer == "adamw" else train.optimizer,
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.scheduler,
        warmup_steps=train.warmup,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        logging_steps=1,  # the loss of every step is kept; the screen shows every log_every
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=train.eval_every if best and train.eval_every else train.save_every,
        eval_strategy="steps" if train.eval_every else "no",
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
        **train.arguments,
    )
    # In a Kubeflow job transformers would add a tracker that the recipe doesn't name.
    args.report_to = list(train.report_to)
    if cuda:  # Trainer takes the first GPU that it sees
        torch.cuda.set_device(hardware.device)
        args.__dict__["_setup_devices"] = hardware.device
    # Several GPUs in one process would be wrapped in DataParallel, which splits a packed row.
    args._n_gpu = min(args.n_gpu, 1)  # noqa: SLF001 - the only switch that there is
    return args
