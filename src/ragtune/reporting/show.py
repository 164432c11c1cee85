"""Showing examples as the model gets them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from ragtune.base.console import STYLES, console, heading, note
from ragtune.data.encode import Encoder
from ragtune.data.example import Example
from ragtune.data.opening import Opening


def show_examples(encoder: Encoder, examples: Sequence[Example]) -> None:
    """Print examples: the record, the prompt, and every token.

    The trained ones are green; yellow is what a finished turn has before the answer and the template's
    generation prompt doesn't.
    """
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
        if encoder.opening.generation != encoder.opening.trained:
            note(f"The chat template: {opening_words(encoder.opening)}.")
        note(
            f"{len(sample.prompt_ids)} prompt tokens, {len(sample.completion_ids)} trained tokens:"
        )
        console.print(_coloured(encoder, sample.prompt_ids, sample.completion_ids), soft_wrap=True)


def opening_words(opening: Opening) -> str:
    """What stands between the turns before and the answer, and what was chosen."""
    asked, trained = (_quoted(text) for text in (opening.generation, opening.trained))
    saved = {
        "alike": "",
        "mended": "; the template that is saved asks so, too",
        "unlike": "; the template that is saved asks otherwise",
    }
    return (
        f"its generation prompt ends with {asked}, a finished turn has {trained} there, which is "
        f"trained and asked{saved[opening.saved]}"
    )


def _quoted(text: str) -> str:
    return f"“{text}”".replace("\n", "⏎") if text else "nothing"


def opening_tokens(encoder: Encoder, prompt: list[int]) -> tuple[list[int], list[int]]:
    """A prompt's tokens, without and of what the template's generation prompt doesn't have."""
    added = len(encoder.opening.added)
    if not added:
        return prompt, []
    start = len(prompt)
    while start and len(encoder.tokenizer.decode(prompt[start:])) < added:
        start -= 1
    return prompt[:start], prompt[start:]


def _coloured(encoder: Encoder, prompt: list[int], completion: list[int]) -> Text:
    read, opening = opening_tokens(encoder, prompt)
    text = Text()
    for ids, kind in ((read, "prompt"), (opening, "opening"), (completion, "trained")):
        for token in ids:
            piece = encoder.tokenizer.decode([token]).replace("\n", "⏎")
            text.append(piece, style=STYLES[kind])
            text.append("|", style="dim blue")
    return text
