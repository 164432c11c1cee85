"""What is found out of the base model itself: its quantisation, its ids, its layers, and how it behaves."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ragtune.stages.check.findings import Look


def quantization(look: Look) -> None:
    """What kind of quantisation a base comes with, whether it trains here, and how it is merged."""
    from ragtune.model.quantized import see_quantized

    run = look.run
    nf4 = run.recipe.model.quantization == "nf4"
    if found := see_quantized(run.config, run.hardware.device, nf4=nf4):
        look.say("quantization", f"the base is {found.words}")


def vocabulary(look: Look) -> None:
    """That the model has a row for every id of the examples that were read, and for those of its own use."""
    from ragtune.data.vocabulary import see_ids

    encoder, rows = look.run.encoder, look.run.embedding_rows
    tokenizer = encoder.tokenizer
    see_ids(tokenizer, [encoder.stop_id], rows, "The end of a turn")
    see_ids(tokenizer, [tokenizer.pad_token_id], rows, "Padding")
    count = 0
    for split, examples in look.examples.items():
        trained = encoder.targets(examples) if split == "train" else [[] for _ in examples]
        for example, prompt, target in zip(examples, look.prompts[split], trained, strict=True):
            ids = [*(prompt.ids if prompt else []), *target]
            see_ids(tokenizer, ids, rows, f"data.{split}: question {example.qid}")
            count += 1
    words = f"the stop token and all of {count:,} examples" if count else "the stop token"
    look.say("vocabulary", f"{words} are within the model's {rows:,} ids")


def adapter(look: Look) -> None:
    """What the adapter goes on, as PEFT makes it on the model without weights, and what is left out.

    Raises:
        UsageError: PEFT can't reach what is asked for.
    """
    from ragtune.model.quantized import see_quantized
    from ragtune.model.targets import describe, find_targets, packed_weight

    run = look.run
    targets = find_targets(run.config, run.recipe.lora)
    base = see_quantized(run.config, run.hardware.device)
    if base and not base.dequantized and targets.by_weight:
        raise packed_weight(targets.by_weight[0], base.kind)
    for line in describe(targets, run.recipe.lora):
        look.say("adapter", line)


def trial(look: Look) -> None:
    """Try on a small copy what training relies on: that the model is causal, packs, and learns.

    Raises:
        UsageError: it is not causal.
    """
    from ragtune.model.causal import see_causal
    from ragtune.model.fast.attention import probe, using_packed
    from ragtune.model.load import quiet
    from ragtune.model.lora import attach
    from ragtune.model.quantized import without_quantization
    from ragtune.model.trial import FOREIGN, TrialError, small_copy
    from ragtune.model.wrapping import adapters
    from ragtune.training.gradients import without_gradient

    run = look.run
    if run.dir.adapter.exists():
        return
    try:
        copy, layers = small_copy(without_quantization(run.config))
    except TrialError as error:
        look.say("trial", f"not made: {error.message}", "warning", _LATER)
        return
    try:
        with quiet():
            see_causal(copy, run.recipe.model.id)
            unpackable = probe(copy, training=True)
            tuned = attach(copy, run.recipe.lora, run.recipe.seed)
            with contextlib.nullcontext() if unpackable else using_packed(copy):
                unreached = without_gradient(tuned, packed=unpackable is None)
    except FOREIGN as error:
        text = (str(error).splitlines() or [type(error).__name__])[0]
        look.say("trial", f"not made: a small copy fails ({text[:120]})", "warning", _LATER)
        return
    count = len(adapters(tuned))
    words = f"a small copy with {layers} of its layers is causal; " + (
        f"one sample a row: {unpackable}" if unpackable else "its rows can be packed"
    )
    look.say("trial", words)
    if unreached:
        look.say(
            "trial", f"{len(unreached)} of the copy's {count} adapters get no gradient: "
            f"{', '.join(_ends(unreached))}", "warning",
            "Training leaves them out; the number of parameters above still counts them.",
        )  # fmt: skip
    else:
        look.say("trial", f"each of its {count} adapters gets a gradient")


_LATER = (
    "Whether it is causal and can be packed is tried when it is loaded, before the first answer."
)


def _ends(names: list[str]) -> list[str]:
    return sorted({name.rpartition(".")[2] for name in names})
