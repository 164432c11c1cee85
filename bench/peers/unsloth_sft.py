"""Unsloth on ragtune's samples: FastLanguageModel with TRL's SFTTrainer, as its notebooks do it.

Whether batches are padded is left to Unsloth. It loads the model anew for every variant, since it
patches what it loads; the first steps compile, and are not timed. Only its training is measured.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from peers.common import (
    Job,
    Steps,
    cuda,
    device_name,
    emit,
    fresh_memory,
    limit_memory,
    make_watch,
    training_options,
)

SYSTEM = "unsloth"
LENGTH = 4096  # the model's context; no sample is cut


def load(job: Job) -> Any:
    import torch
    from unsloth import FastLanguageModel

    return FastLanguageModel.from_pretrained(
        model_name=job.model,
        max_seq_length=LENGTH,
        dtype=torch.bfloat16 if cuda() else torch.float32,
        load_in_4bit=job.recipe["model"]["quantization"] == "nf4",
        use_gradient_checkpointing=False,
        random_state=job.recipe["seed"],
        max_lora_rank=job.recipe["lora"]["rank"],
        local_files_only=True,
    )


def train(job: Job, dropout: float, steps: int, micro: int, *, recompute: bool) -> Steps:
    """Load, wrap and train; the settings are those of Unsloth's own notebooks."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer
    from unsloth import FastLanguageModel

    checkpointing = "unsloth" if recompute else False
    made = job.load_samples()
    rows = [sample for step in made["steps"] for sample in step]
    data = Dataset.from_dict({k: [r[k] for r in rows] for k in ("input_ids", "labels")})
    model, tokenizer = load(job)
    lora = job.recipe["lora"]
    model = FastLanguageModel.get_peft_model(
        model,
        r=lora["rank"],
        lora_alpha=lora["alpha"],
        lora_dropout=dropout,
        target_modules=lora["target_modules"],
        use_gradient_checkpointing=checkpointing,
        random_state=job.recipe["seed"],
    )
    watch = make_watch(job, 1.0)
    options = training_options(job, micro=micro, recompute=recompute, total_steps=steps)
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(**options, max_length=None, dataset_kwargs={"skip_prepare_dataset": True}),
        train_dataset=data,
        processing_class=tokenizer,
        callbacks=[watch],
    )
    fresh_memory()
    trainer.train()
    emit("note", system=SYSTEM, text=f"padding-free: {getattr(trainer, 'padding_free', None)}")
    return watch.result()


def fitting(
    job: Job, work: str, dropout: float, steps: int, *, recompute: bool
) -> tuple[int, Steps] | None:
    """Train with half the batch as often as memory runs out; None if nothing fits."""
    import torch

    micro = max(1, job.recipe["train"]["batch_size"] // 2)
    while micro:
        fresh_memory()
        try:
            return micro, train(job, dropout, steps, micro, recompute=recompute)
        except torch.OutOfMemoryError:
            emit("note", system=SYSTEM, text=f"{work}: out of memory with {micro} a batch")
        micro //= 2
    return None


def main() -> None:
    job = Job.read()
    # It writes what it compiles into the folder that it is started in, and reports its use.
    os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", f"{job.work}-unsloth")
    os.environ["UNSLOTH_DISABLE_STATISTICS"] = "1"
    import unsloth  # before transformers, which it patches

    emit("device", name=device_name())
    emit("note", system=SYSTEM, text=f"unsloth {unsloth.__version__}; answering is not measured")
    dropout, total = job.recipe["lora"]["dropout"], job.recipe["train"]["steps"]
    needed = 0.0
    for work, rate, steps, recompute, limit in (
        ("train_step", dropout, total, False, None),
        ("train_step_dropout0", 0.0, job.short_steps, False, None),
        ("train_step_12gib", dropout, total, True, job.memory_gib),
    ):
        if job.left() < needed:
            emit("note", system=SYSTEM, text=f"no time was left: {work}")
            continue
        start = job.left()
        limit_memory(limit)
        found = fitting(job, work, rate, steps, recompute=recompute)
        limit_memory(None)
        needed = max(needed, start - job.left())
        if found:
            micro, result = found
            kept = "recomputed" if recompute else "kept"
            variant = f"{micro} a batch, activations {kept}"
            emit("row", **result.row(SYSTEM, work, variant=variant))
            emit("losses", name=f"unsloth, {work}", values=result.losses)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
