"""What `ragtune check` says of the chat template, and of what is trained of an example."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ragtune.base.errors import UsageError
from ragtune.data.turn import special_ids
from ragtune.reporting.show import opening_tokens, opening_words

if TYPE_CHECKING:
    from ragtune.data.encode import Encoder
    from ragtune.stages.check.findings import Look

_SHOWN = 40
"""How much of a prompt's end is shown, in tokens."""


def template(look: Look) -> None:
    """The chat template: how a turn ends, and what stands where the answer begins."""
    run, encoder = look.run, look.run.encoder
    _stop(look, encoder)
    if encoder.max_prompt < 1:
        raise UsageError(
            f"The model reads {encoder.context} tokens and evaluate.max_new_tokens is "
            f"{run.recipe.evaluate.max_new_tokens}: no room is left for a prompt.",
            "Lower evaluate.max_new_tokens, or choose a model with a longer context.",
        )
    for words in encoder.form.words():
        look.say("template", words)
    if encoder.date:
        words = (
            f"it writes the date; this run's is {encoder.date}, in the template that is saved, too"
        )
        look.say("template", words + ("; a server may write its own" if run.remote else ""))
    opening = encoder.opening
    if opening.generation == opening.trained and opening.saved == "alike":
        return
    advice = ""
    if run.remote or opening.saved == "unlike":
        advice = "A server that renders the model's own template asks otherwise than is trained. "
        if opening.variable:
            name, value = opening.variable
            advice += (
                f"Set prompt.template_arguments: {{{name}: {str(value).lower()}}}: then it doesn't."
            )
        elif opening.saved == "unlike":
            advice += "Set prompt.chat_template to one that asks as it writes a finished turn."
        else:
            advice += f"Serve it with the chat template that is saved in {run.dir.adapter}."
    look.say("template", opening_words(opening), "warning" if advice else "ok", advice)


def _stop(look: Look, encoder: Encoder) -> None:
    """Which token ends an answer, and why."""
    turn = encoder.turn
    stop = encoder.tokenizer.convert_ids_to_tokens(encoder.stop_id)
    reads = f"the model reads {encoder.context:,} tokens"
    if rest := turn.rest.strip():
        look.say(
            "template",
            f"it ends a turn with {rest!r}, which is no token of this tokenizer: {stop} (eos) ends an "
            f"answer in its place; {reads}",
            "warning",
            "Is it the template of this tokenizer? Else set prompt.chat_template.",
        )
        return
    if turn.written:
        words = f"a turn ends with {stop}"
    else:
        words = f"it ends a turn with no token: {stop} (eos) is trained in its place, and ends an answer"
    if encoder.stop_id not in special_ids(encoder.tokenizer):
        words += ", which the tokenizer doesn't mark as special"
    if turn.closing:
        words += f", after {turn.closing!r}, which is trained, too"
    look.say("template", f"{words}; {reads}")


def mask(look: Look) -> None:
    """What is read and what is trained of the first example."""
    encoder = look.run.encoder
    samples = encoder.samples(look.examples.get("train", [])[:1])
    if not samples or samples[0] is None:
        return
    sample = samples[0]
    tokens = [encoder.tokenizer.decode([i]) for i in sample.completion_ids]
    stop = (
        "the last one is the stop token"
        if sample.completion_ids[-1] == encoder.stop_id
        else "the stop token is not among them"
    )
    read, opening = opening_tokens(encoder, sample.prompt_ids)
    decode = encoder.tokenizer.decode
    look.say(
        "mask",
        f"of {sample.qid} {len(sample.prompt_ids):,} prompt tokens are read and "
        f"{len(tokens)} trained: {'|'.join(tokens)} ({stop})".replace("\n", "⏎"),
        excerpt=(
            ("prompt", "…" + decode(read[-_SHOWN:])),
            ("opening", decode(opening)),
            ("trained", "".join(tokens)),
        ),
    )
