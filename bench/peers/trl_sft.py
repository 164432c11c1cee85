"""TRL's SFTTrainer on ragtune's samples, at the best of its settings that need no flash-attn wheel.

TRL does not check which attention padding-free training runs on. Its collator hands the borders of
the samples to the model (`position_ids`, `cu_seq_lens_q`, `max_length_q`), so that there are three
ways: padded batches; padding-free with PyTorch's own attention, for which transformers makes a mask
from the positions; and padding-free with an attention that takes the borders: flash-attn where it
is installed, else ragtune's, which it registers. All are tried, and the quickest counts. TRL
answers no questions, so it has no row for that.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import warnings
from dataclasses import dataclass
from typing import Any

import torch

from peers.common import (
    Job,
    Steps,
    cuda,
    device_name,
    emit,
    fresh_memory,
    limit_memory,
    load_base,
    make_watch,
    plain_lora,
    training_options,
)

SYSTEM = "trl"


@dataclass(frozen=True)
class Variant:
    """Settings of SFTTrainer; `micro` samples share a batch or, padding-free, a row."""

    padding_free: bool
    attention: str
    micro: int
    recompute: bool = False
    selective: bool = False
    """TRL's own checkpointing that keeps the attention's output."""

    def __str__(self) -> str:
        kept = "kept"
        if self.recompute:
            kept = "recomputed but for attention" if self.selective else "recomputed"
        layout = "padding-free" if self.padding_free else "padded"
        return f"{layout}, {self.attention}, {self.micro} a batch, activations {kept}"


def liger() -> bool:
    return cuda() and importlib.util.find_spec("liger_kernel") is not None


def flash() -> bool:
    return cuda() and importlib.util.find_spec("flash_attn") is not None


def sft_config(job: Job, variant: Variant, steps: int) -> Any:
    from trl import SFTConfig

    options = training_options(
        job, micro=variant.micro, recompute=variant.recompute, total_steps=steps
    )
    if variant.recompute:
        options["gradient_checkpointing_kwargs"] = {"use_reentrant": False}
        if variant.selective:
            options["gradient_checkpointing_kwargs"]["selective"] = True
    return SFTConfig(
        **options, padding_free=variant.padding_free, max_length=None, use_liger_kernel=liger()
    )


class Bench:
    """One loaded base, on which the variants are trained one after the other."""

    def __init__(self, job: Job) -> None:
        from datasets import Dataset
        from transformers import AutoTokenizer

        import ragtune.model.fast.attention  # noqa: F401 - makes it known to transformers

        self.job = job
        made = job.load_samples()
        rows = [sample for step in made["steps"] for sample in step]
        self.data = Dataset.from_dict({k: [r[k] for r in rows] for k in ("input_ids", "labels")})
        self.tokenizer = AutoTokenizer.from_pretrained(job.model)
        self.base = load_base(job)
        self.own_attention = self.base.config._attn_implementation  # noqa: SLF001 - no public getter

    def train(self, variant: Variant, dropout: float, steps: int) -> Steps:
        """Train a fresh adapter and take it off again."""
        from trl import SFTTrainer

        fresh_memory()
        before = {
            k: self.base.__dict__.get(k) for k in ("forward", "gradient_checkpointing_enable")
        }
        self.base.set_attn_implementation(variant.attention)
        if variant.recompute:
            self.base.enable_input_require_grads()
        tuned = plain_lora(self.base, self.job, dropout)
        watch = make_watch(self.job, 1.0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                SFTTrainer(
                    model=tuned,
                    args=sft_config(self.job, variant, steps),
                    train_dataset=self.data,
                    processing_class=self.tokenizer,
                    callbacks=[watch],
                ).train()
            return watch.result()
        finally:
            # What SFTTrainer put over the base's own methods would otherwise pile up.
            for name, value in before.items():
                self.base.__dict__.pop(name, None)
                if value is not None:
                    setattr(self.base, name, value)
            self.base.gradient_checkpointing_disable()
            self.base = tuned.unload()
            self.base.set_attn_implementation(self.own_attention)

    def fitting(self, variant: Variant, dropout: float, steps: int) -> tuple[Variant, Steps] | None:
        """Train with half the batch as often as memory runs out; None if nothing fits."""
        while True:
            try:
                return variant, self.train(variant, dropout, steps)
            except torch.OutOfMemoryError:
                emit("note", system=SYSTEM, text=f"out of memory: {variant}")
            if variant.micro == 1:
                return None
            variant = dataclasses.replace(variant, micro=variant.micro // 2)


def variants(job: Job) -> list[Variant]:
    """Padding-free on the best attention there is and on PyTorch's own, and padded."""
    micro = max(1, job.recipe["train"]["batch_size"] // 2)
    borders = "flash_attention_2" if flash() else "ragtune_packed"
    return [
        Variant(padding_free=True, attention=borders, micro=micro),
        Variant(padding_free=True, attention="sdpa", micro=micro),
        Variant(padding_free=False, attention="sdpa", micro=micro),
    ]


def main() -> None:
    job = Job.read()
    emit("device", name=device_name())
    bench = Bench(job)
    lora, total = job.recipe["lora"], job.recipe["train"]["steps"]
    best: dict[str, float] = {}
    longest = 0.0

    def measure(work: str, variant: Variant, dropout: float, steps: int) -> Variant | None:
        nonlocal longest
        if job.left() < longest * 1.2:
            emit("note", system=SYSTEM, text=f"no time was left: {work}, {variant}")
            return None
        start = job.left()
        try:
            found = bench.fitting(variant, dropout, steps)
        except Exception as error:  # noqa: BLE001 - the other variants may work
            text = (str(error).splitlines() or [""])[0]
            emit("note", system=SYSTEM, text=f"{work}, {variant}: {type(error).__name__}: {text}")
            return None
        longest = max(longest, start - job.left())
        if found is None:
            return None
        variant, result = found
        emit("note", system=SYSTEM, text=f"{work}, {variant}: {result.median:.3f} s, "
             f"{result.peak_gib} GiB")  # fmt: skip
        emit("losses", name=f"trl, {work}, {variant}", values=result.losses)
        if result.median < best.get(work, float("inf")):
            best[work] = result.median
            emit("row", **result.row(SYSTEM, work, variant=str(variant), liger=liger()))
        return variant

    emit(
        "note",
        system=SYSTEM,
        text="no rows for answering: TRL does not answer questions. Its adapter is bfloat16 on a "
        "quantized base (SFTTrainer converts it). The base is loaded once for all variants. "
        f"flash-attn {'is' if flash() else 'is not'} installed, Liger's kernels "
        f"{'are' if liger() else 'are not'}; those of the Hub (use_kernels) are not tried.",
    )
    packed, masked, padded = variants(job)
    measure("train_step", packed, lora["dropout"], total)
    measure("train_step", masked, lora["dropout"], total)
    measure("train_step_dropout0", packed, 0.0, job.short_steps)
    measure("train_step_dropout0", padded, 0.0, job.short_steps)
    limit_memory(job.memory_gib)
    # The selective way knows PyTorch's own attention, and no other, as something to keep.
    small = dataclasses.replace(packed, recompute=True)
    selective = dataclasses.replace(masked, recompute=True, selective=True)
    measure("train_step_12gib", small, lora["dropout"], total)
    measure("train_step_12gib", selective, lora["dropout"], total)
    limit_memory(None)
    measure("train_step", padded, lora["dropout"], total)


if __name__ == "__main__":
    main()
