"""The notebook's way on current libraries: NF4, PEFT, transformers' Trainer, two padded samples a batch.

Its second evaluation runs, as it did there, in train mode and without a cache. What would take an
hour is measured on some steps and questions, and projected; such rows say so.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import Any

import torch

from peers.common import (
    LEAST,
    Job,
    Steps,
    cuda,
    device_name,
    emit,
    fresh_memory,
    load_base,
    make_watch,
    peak_gib,
    plain_lora,
    row,
    sync,
    training_options,
)

MICRO = 2  # the notebook's two a device, eight accumulated
# The share of this system's time after which a part measures no more than the least.
BEFORE_UNTIL, TRAIN_UNTIL, AFTER_UNTIL = 0.3, 0.62, 0.97


def ask(
    job: Job, model: Any, prompts: list[list[int]], *, cache: bool, until: float
) -> list[float]:
    """Seconds of each question, asked one at a time."""
    seconds: list[float] = []
    for ids in prompts[: job.questions]:
        if len(seconds) >= LEAST and job.past(until):
            break
        row_ids = torch.tensor([ids], device=model.device)
        sync()
        start = time.monotonic()
        with torch.no_grad():
            model.generate(
                input_ids=row_ids,
                attention_mask=torch.ones_like(row_ids),
                max_new_tokens=job.recipe["evaluate"]["max_new_tokens"],
                do_sample=False,
                temperature=None,
                top_p=None,
                use_cache=cache,
            )
        sync()
        seconds.append(time.monotonic() - start)
    return seconds


def train(job: Job, model: Any, samples: list[dict[str, Any]], steps: int, until: float) -> Steps:
    """The notebook's training, for as many of `steps` as are timed."""
    from transformers import Trainer, TrainingArguments

    def collate(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        longest = max(len(r["input_ids"]) for r in rows)
        fill = {"input_ids": model.config.pad_token_id, "labels": -100, "attention_mask": 0}
        full = [{**r, "attention_mask": [1] * len(r["input_ids"])} for r in rows]
        return {
            k: torch.tensor([r[k] + [v] * (longest - len(r[k])) for r in full])
            for k, v in fill.items()
        }

    options = training_options(job, micro=MICRO, recompute=True, total_steps=steps)
    watch = make_watch(job, until)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(**options, remove_unused_columns=False),
        train_dataset=samples,
        data_collator=collate,
        callbacks=[watch],
    )
    fresh_memory()
    trainer.train()
    return watch.result()


def projected(job: Job, work: str, seconds: list[float], peak: float | None) -> dict[str, Any]:
    each = statistics.median(seconds)
    return row(
        "notebook",
        work,
        each * job.asked,
        peak,
        projected=True,
        measured=len(seconds),
        median_of=len(seconds),
        each=round(each, 4),
        range=[round(min(seconds), 4), round(max(seconds), 4)],
    )


def main() -> None:
    job = Job.read()
    emit("device", name=device_name())
    lora, recipe_steps = job.recipe["lora"], job.recipe["train"]["steps"]
    made = job.load_samples()
    samples = [sample for step in made["steps"] for sample in step]
    start = time.monotonic()
    model = load_base(job)
    sync()
    load = time.monotonic() - start

    fresh_memory()
    seconds = ask(job, model, made["prompts"], cache=True, until=BEFORE_UNTIL)
    before = projected(job, "evaluate_before", seconds, peak_gib())
    emit("row", **before)

    model.enable_input_require_grads()
    tuned = plain_lora(model, job, lora["dropout"])
    steps = train(job, tuned, samples, recipe_steps, TRAIN_UNTIL)
    emit("row", **steps.row("notebook", "train_step"))
    emit("losses", name="notebook, train_step", values=steps.losses)
    if steps.peak_gib is not None and steps.peak_gib <= job.memory_gib:
        emit("row", **steps.row("notebook", "train_step_12gib", variant="the same training"))

    tuned.train()
    fresh_memory()
    seconds = ask(job, tuned, made["prompts"], cache=False, until=AFTER_UNTIL)
    after = projected(job, "evaluate_after", seconds, peak_gib())
    emit("row", **after)
    whole = load + before["seconds"] + recipe_steps * steps.median + after["seconds"]
    peaks = [p for p in (before["peak_gib"], steps.peak_gib, after["peak_gib"]) if p is not None]
    emit(
        "row",
        **row(
            "notebook", "run", whole, max(peaks, default=None), projected=True, load=round(load, 2)
        ),
    )
    without_dropout(job, tuned, samples, steps.median)


def without_dropout(job: Job, tuned: Any, samples: list[dict[str, Any]], step: float) -> None:
    """The same without dropout, where the losses of all systems can be laid over each other."""
    fitting = int((job.left() - 15) / step) if cuda() else job.short_steps
    timed = min(job.short_steps, fitting) - job.warm
    if timed < LEAST:
        emit("note", system="notebook", text="no time was left for a training without dropout")
        return
    base = tuned.unload()
    steps = train(
        dataclasses.replace(job, timed=timed),
        plain_lora(base, job, 0.0),
        samples,
        job.short_steps,
        AFTER_UNTIL,
    )
    emit("row", **steps.row("notebook", "train_step_dropout0"))
    emit("losses", name="notebook, train_step_dropout0", values=steps.losses)


if __name__ == "__main__":
    main()
