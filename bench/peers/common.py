"""What the systems share: the job, the lines they report with, the same samples and settings.

Nothing here imports transformers at the top: unsloth wants to be imported before it.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

MARK = "@@ "
"""Begins a line of a worker's output that is meant for side_by_side.py."""

OPTIMIZERS = {"adamw": "adamw_torch", "adamw_8bit": "adamw_8bit"}
LEAST = 3
"""Steps or questions that are measured even when the time is up."""


def emit(kind: str, **values: Any) -> None:
    print(MARK + json.dumps({"kind": kind, **values}, ensure_ascii=False), flush=True)


@dataclass(frozen=True)
class Job:
    """What a worker is to do; side_by_side.py writes it as JSON."""

    model: str
    samples: str
    work: str
    recipe: dict[str, Any]
    tiny: bool
    seconds: float
    """The wall-clock time that is left to this worker."""
    warm: int
    timed: int
    short_steps: int
    """The length of the short trainings, as the learning rate's schedule sees it."""
    questions: int
    asked: int
    memory_gib: float
    start: float = field(default_factory=time.monotonic)

    @classmethod
    def read(cls) -> Job:
        return cls(**json.loads(Path(sys.argv[1]).read_text("utf-8")))

    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.start)

    def past(self, share: float) -> bool:
        """Whether this share of the worker's time is over."""
        return time.monotonic() - self.start > share * self.seconds

    def load_samples(self) -> dict[str, Any]:
        return json.loads(Path(self.samples).read_text("utf-8"))

    def write(self, path: Path) -> None:
        values = dataclasses.asdict(self)
        del values["start"]
        path.write_text(json.dumps(values), "utf-8")


def cuda() -> bool:
    return torch.cuda.is_available()


def local_rank() -> int:
    """This process's number among those that torchrun started on this machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def sync() -> None:
    if cuda():
        torch.cuda.synchronize()


def device_name() -> str:
    return torch.cuda.get_device_name() if cuda() else f"CPU, {torch.get_num_threads()} threads"


def peak_gib() -> float | None:
    return round(torch.cuda.max_memory_allocated() / 2**30, 2) if cuda() else None


def fresh_memory() -> None:
    gc.collect()
    if cuda():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def limit_memory(gib: float | None) -> None:
    """Let this process have so much of the GPU's memory, and no more; None lifts the limit."""
    if cuda():
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(
            1.0 if gib is None else min(1.0, gib * 2**30 / total)
        )


def load_base(job: Job) -> Any:
    """The base model as the notebook loads it: NF4 on a GPU, plain on a CPU."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    options: dict[str, Any] = {"dtype": torch.bfloat16 if cuda() else torch.float32}
    if job.recipe["model"]["quantization"] == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
        )
    if cuda():
        options["device_map"] = {"": local_rank()}
    return AutoModelForCausalLM.from_pretrained(job.model, **options).eval()


def plain_lora(model: Any, job: Job, dropout: float) -> Any:
    """PEFT's own adapter with what ragtune draws by the recipe's seed: every system starts from the same."""
    from peft import LoraConfig, get_peft_model

    from ragtune.model.lora import draw
    from ragtune.model.wrapping import adapters

    lora = job.recipe["lora"]
    config = LoraConfig(
        r=lora["rank"],
        lora_alpha=lora["alpha"],
        lora_dropout=dropout,
        task_type="CAUSAL_LM",
        target_modules=lora["target_modules"],
    )
    tuned = get_peft_model(model, config)
    draw(adapters(tuned).values(), job.recipe["seed"])
    return tuned


def training_options(job: Job, *, micro: int, recompute: bool, total_steps: int) -> dict[str, Any]:
    """The recipe in the terms of TrainingArguments and of what derives from it."""
    train, ranks = job.recipe["train"], int(os.environ.get("WORLD_SIZE", "1"))
    return {
        "output_dir": job.work,
        "max_steps": total_steps,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": train["batch_size"] // (micro * ranks),
        "ddp_find_unused_parameters": False,  # there are none: looking for them takes time
        "gradient_checkpointing": recompute,
        "optim": OPTIMIZERS.get(train["optimizer"], train["optimizer"]),
        "learning_rate": train["learning_rate"],
        "lr_scheduler_type": train["scheduler"],
        "warmup_steps": train["warmup"],
        "weight_decay": train["weight_decay"],
        "max_grad_norm": train["max_grad_norm"],
        "train_sampling_strategy": "sequential",  # the samples of a step are ragtune's
        "bf16": cuda(),
        "use_cpu": not cuda(),
        "seed": job.recipe["seed"],
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


@dataclass(frozen=True)
class Steps:
    """What a training gave: seconds of each timed step, the loss of every one, the peak memory."""

    seconds: list[float]
    losses: list[float]
    peak_gib: float | None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def row(self, system: str, work: str, **more: Any) -> dict[str, Any]:
        return row(
            system,
            work,
            self.median,
            self.peak_gib,
            median_of=len(self.seconds),
            range=[round(min(self.seconds), 4), round(max(self.seconds), 4)],
            **more,
        )


def row(system: str, work: str, seconds: float, peak: float | None, **more: Any) -> dict[str, Any]:
    digits = 4 if seconds < 60 else 1  # noqa: PLR2004 - a run's tenths say nothing
    return {
        "system": system, "work": work, "seconds": round(seconds, digits), "peak_gib": peak, **more,
    }  # fmt: skip


def make_watch(job: Job, until: float) -> Any:
    """A callback that times the steps and ends the training when enough are timed.

    Args:
        job: how many.
        until: the share of the worker's time after which only the least is measured.
    """
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def __init__(self) -> None:
            self.ends: list[float] = []
            self.losses: list[float] = []

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            sync()
            self.ends.append(time.monotonic())
            timed = len(self.ends) - job.warm
            if timed >= job.timed or (timed >= LEAST and job.past(until)):
                control.should_training_stop = True

        def on_log(
            self,
            args: Any,  # noqa: ARG002
            state: Any,  # noqa: ARG002
            control: Any,  # noqa: ARG002
            logs: dict[str, Any] | None = None,
            **_: Any,
        ) -> None:
            if logs and "loss" in logs:
                self.losses.append(float(logs["loss"]))

        def result(self) -> Steps:
            pairs = zip(self.ends[job.warm - 1 :], self.ends[job.warm :], strict=False)
            return Steps([b - a for a, b in pairs], self.losses, peak_gib())

    return Watch()
