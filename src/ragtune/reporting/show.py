"""Showing examples as the model gets them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from ragtune.console import console, heading, note
from ragtune.data.encode import Encoder
from ragtune.data.example import Example


def show_examples(encoder: Encoder, examples: Sequence[Example]) -> None:
    """Print examples: the record, the prompt, and every token, the trained ones in green."""
    for example in examples:
        sample = encoder.sample(example)
        if sample is None:
            continue
        heading(f"Example {example.qid}")
        note(f"question: {example.question}")
        note(f"answers: {' | '.join(example.answers)}")
        for index, passage in enumerate(example.passages):
            mark = "+" if index in example.positive_passage_indices else " "
            note(f"  {mark} {index} {passage.title}: {passage.text[:70]}…")
        note("")
        note(encoder.tokenizer.decode(sample.prompt_ids))
        note("")
        note(
            f"{len(sample.prompt_ids)} prompt tokens, {len(sample.completion_ids)} trained tokens:"
        )
        console.print(_coloured(encoder, sample.prompt_ids, sample.completion_ids), soft_wrap=True)


def _coloured(encoder: Encoder, prompt: list[int], completion: list[int]) -> Text:
    text = Text()
    for ids, style in ((prompt, "dim"), (completion, "bold black on green")):
        for token in ids:
            piece = encoder.tokenizer.decode([token]).replace("\n", "⏎")
            text.append(piece, style=style)
            text.append("|", style="dim blue")
    return text
