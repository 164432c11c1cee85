"""Whether a server would make the prompt that was trained, and end where training ended: by the ids."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from ragtune.answering.engine import fitting
from ragtune.answering.launch import ServedModel
from ragtune.base.files import read_json
from ragtune.base.reading import open_plain
from ragtune.base.screen.console import note, warn
from ragtune.base.text import one_or_many
from ragtune.model.generation import GENERATION
from ragtune.model.load import load_tokenizer
from ragtune.model.source import ModelSource
from ragtune.stages.context import Context

_TRIED = 20
"""Questions whose prompts are compared."""


def say_differences(context: Context, tuned: ServedModel) -> None:
    """Compare what the server would make of the first questions with what was trained, and say what differs."""
    if not context.folder.questions.is_dir():
        note("Chat template and stop token are not compared with training: there are no questions.")
        return
    encoder, shown = context.encoder, context.recipe.data.max_passages
    tokenizer = _served_tokenizer(context, tuned)
    tried = other = 0
    for example, prompt in fitting(encoder, context.asked[:_TRIED]):
        if encoder.control.written_out(
            example, shown
        ):  # broken by a blank for a server, on purpose
            continue
        tried += 1
        made = tokenizer.apply_chat_template(
            encoder.messages(example, prompt),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            **tuned.template_arguments,
        )
        other += made["input_ids"] != prompt.ids
    if other:
        warn(
            f"The server asks otherwise than was trained: of {one_or_many(tried, 'question')} "
            f"{one_or_many(other, 'has', 'have')} other tokens. The "
            "chat template can't be made to open an answer as in training; docs/prompts.md says more."
        )
    if stops := _stops_elsewhere(context, tuned):
        warn(stops)
    if not other and not stops:
        note(
            f"Chat template and stop token are those of training ({one_or_many(tried, 'prompt')}, token by "
            "token)."
        )


def _served_tokenizer(context: Context, tuned: ServedModel) -> PreTrainedTokenizerBase:
    """The tokenizer that the server loads, with the chat template that it is given."""
    if tuned.merged is not None:
        return load_tokenizer(ModelSource(str(tuned.merged), None))
    tokenizer = load_tokenizer(context.source)
    with open_plain(tuned.adapter / "chat_template.jinja") as file:
        tokenizer.chat_template = file.read().decode()
    return tokenizer


def _stops_elsewhere(context: Context, tuned: ServedModel) -> str:
    """What to say if the stop token of training isn't among those that the server is told; "" if it is."""
    file = (tuned.merged or tuned.adapter) / GENERATION
    ends = read_json(file).get("eos_token_id") if file.exists() else None
    stop = context.encoder.stop_id
    if stop in (ends if isinstance(ends, list) else [ends]):
        return ""
    return f"{file} doesn't name the stop token of training ({stop}): answers would not end."
