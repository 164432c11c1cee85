"""A Modelfile: how Ollama asks a GGUF file as it was trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ragtune.base.errors import UsageError
from ragtune.data.encode import Encoder
from ragtune.model.to_gguf.go_template import pieces_of
from ragtune.model.to_gguf.vocabulary import begins_with_bos

MODELFILE = "Modelfile"
_QUOTES = '"""'
_STEP = 1024
_HEAD = """\
# ollama create NAME -f Modelfile
# It was trained to answer from passages: send it the whole prompt, question and passages, as the card's
# example writes it.
"""


class Longest(NamedTuple):
    """The longest prompt that is known."""

    tokens: int
    of: str
    """What it was taken from, in words."""


def modelfile(encoder: Encoder, file: str, longest: Longest, context: int) -> str:
    """The text of a Modelfile.

    Args:
        encoder: of the run: its chat template, its system message, the stop token.
        file: the GGUF file, beside it.
        longest: the longest prompt of the run.
        context: tokens that the model reads.
    """
    return _HEAD + "\n".join(_lines(encoder, file, longest, context)) + "\n"


def _lines(encoder: Encoder, file: str, longest: Longest, context: int) -> Iterator[str]:
    answer = encoder.recipe.evaluate.max_new_tokens
    yield f"FROM ./{file}"
    yield from _template(encoder)
    if encoder.builder.system:
        yield from _text("SYSTEM", encoder.builder.system)
    stop = encoder.tokenizer.convert_ids_to_tokens(encoder.stop_id)
    if '"' in stop or not stop.isprintable():
        yield f"# No stop here: {stop!r} can't be written; the file names it as its end of a turn."
    else:
        yield f'PARAMETER stop "{stop}"'
    yield "PARAMETER temperature 0"
    yield "PARAMETER repeat_penalty 1"  # Ollama's own would punish words of the passages
    yield f"# The longest prompt is that of {longest.of}, {longest.tokens} tokens; an answer has {answer}."
    yield f"PARAMETER num_ctx {min(context, -(-(longest.tokens + answer + 1) // _STEP) * _STEP)}"
    yield f"PARAMETER num_predict {answer}"


def _template(encoder: Encoder) -> Iterator[str]:
    bos = encoder.tokenizer.bos_token if begins_with_bos(encoder) else None
    try:
        pieces = pieces_of(encoder, bos=bos)
    except UsageError as error:
        yield f"# No TEMPLATE here: {' '.join(error.message.split())}"
        yield "# Ollama then takes the one in the file, as far as it can."
        return
    yield from _text("TEMPLATE", pieces.in_go())


def _text(name: str, text: str) -> Iterator[str]:
    if _QUOTES in text or text.endswith('"'):
        yield f"# No {name} here: its quotation marks can't be written in a Modelfile."
    else:
        yield f"{name} {_QUOTES}{text}{_QUOTES}"
