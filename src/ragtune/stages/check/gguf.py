"""Whether the tuned model can be written as GGUF, before anything costs time."""

from __future__ import annotations

from ragtune.answering.llama_process import INSTALL, installed
from ragtune.model.to_gguf.shapes import context_of, shape_of
from ragtune.model.to_gguf.vocabulary import vocabulary_of
from ragtune.model.to_gguf.write import require_gguf
from ragtune.stages.check.findings import Look


def written(look: Look) -> None:
    """That llama.cpp computes this model, and cuts texts, as transformers does.

    Raises:
        UsageError: it doesn't, or the library that writes GGUF is missing.
    """
    run = look.run
    if run.recipe.publish.format != "gguf":
        return
    require_gguf()
    shape = shape_of(run.config)
    found = vocabulary_of(run.encoder, run.embedding_rows)
    reads = context_of(run.config)
    look.say(
        f"llama.cpp has it as {shape.arch}, with the pre-tokenizer {found.pre}; it reads {reads:,} tokens there"
    )
    if found.composes:
        look.say(
            "the tokenizer composes letters and marks that stand apart (NFC), and llama.cpp doesn't: it reads "
            "such texts otherwise"
        )
    if not installed():
        look.warn(
            "what is written won't be asked the questions: xllamacpp is not installed", INSTALL
        )
