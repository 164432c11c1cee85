"""What is found out of the base model itself: whether it is quantised, and whether ids fit it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ragtune.checks import Look


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
