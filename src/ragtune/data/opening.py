"""A template's generation prompt beside the prompt that is trained: what differs, and how to mend it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Literal

from ragtune.base.errors import UsageError
from ragtune.data.chat import Form, Message, own_variables, render
from ragtune.data.tokenizer import encoded
from ragtune.data.turn import Turn, answered

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Opening:
    """What stands between the turns before and the answer."""

    generation: str
    """At the end of the template's own generation prompt."""
    trained: str
    """In a finished turn: the prompt that is trained and asked ends with it."""
    added: str
    """What of it the generation prompt doesn't have."""
    saved: Literal["alike", "mended", "unlike"]
    """Whether the generation prompt of the template that is saved is the prompt that is trained: by
    itself, because something was added to the template, or not."""
    variable: tuple[str, bool] | None = None
    """A variable of the template's own, and the value with which its generation prompt is the trained
    one."""


def find_opening(
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Sequence[Message]],
    form: Form,
    turn: Turn,
) -> Opening:
    """Compare the template's generation prompt with the prompt that is trained, and mend the template.

    Where they differ, the tokenizer gets a chat template with which they don't, if that can be had by
    adding to it: it is saved with what was trained.

    Args:
        tokenizer: its `chat_template` may be changed.
        conversations: by which that is seen.
        form: of the messages.
        turn: how a finished turn is written.
    """
    asked = [form.of(messages) for messages in conversations]
    trained = [turn.prompt(tokenizer, messages, form) for messages in conversations]
    template = tokenizer.chat_template

    def is_trained(template: str, **arguments: bool) -> bool:
        try:
            return all(
                render(tokenizer, messages, generation=True, template=template, **arguments)
                == prompt
                for messages, prompt in zip(asked, trained, strict=True)
            )
        except UsageError:  # this change, or this value, is none for it
            return False

    def still_finishes(template: str) -> bool:
        finished = [answered(messages, form, "x") for messages in conversations]
        return all(
            render(tokenizer, messages, template=template) == render(tokenizer, messages)
            for messages in finished
        )

    generation, end = _ends(tokenizer, asked[0], trained[0])
    added = end[_shared(generation, end) :]
    if is_trained(template):
        return Opening(generation, end, added, "alike")
    tries = (
        (name, value) for name in own_variables(tokenizer, template) for value in (False, True)
    )
    variable = next((one for one in tries if is_trained(template, **dict([one]))), None)
    for mended in _mended(tokenizer, asked[0], trained[0]):
        if is_trained(mended) and still_finishes(mended):
            tokenizer.chat_template = mended
            return Opening(generation, end, added, "mended", variable)
    return Opening(generation, end, added, "unlike", variable)


def _ends(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], trained: str
) -> tuple[str, str]:
    """The ends of the generation prompt and of a finished turn's prompt, after the turns before.

    They are cut where a token ends, as no text says where one begins.
    """
    generation = render(tokenizer, messages, generation=True)
    before, *both = (
        encoded(tokenizer, text) for text in (_unasked(tokenizer, messages), generation, trained)
    )
    start = _shared(before, *both)
    first, second = (tokenizer.decode(ids[start:]) for ids in both)
    return first, second


def _shared(*sequences: Sequence[int] | str) -> int:
    """How many of their first items all have in common."""
    return sum(1 for _ in takewhile(lambda row: len(set(row)) == 1, zip(*sequences, strict=False)))


def _unasked(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    """The turns alone; nothing, if the template refuses to write these without a generation prompt."""
    try:
        return render(tokenizer, messages)
    except UsageError:
        return ""


def _mended(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], trained: str
) -> Iterator[str]:
    """Templates that may write the trained prompt where a generation prompt is asked for."""
    # Jinja takes one line break off a template's end, which is no end any more.
    template = tokenizer.chat_template.removesuffix("\n")
    generation = render(tokenizer, messages, generation=True)
    if trained.startswith(generation):
        rest = trained.removeprefix(generation)
        yield f"{template}{{% if add_generation_prompt %}}{{{{ {rest!r} }}}}{{% endif %}}"
    turns = _unasked(tokenizer, messages)
    if trained.startswith(turns):
        # Instead of the template's own generation prompt, which has more or something else.
        yield (
            "{% set asks_for_answer = add_generation_prompt %}{% set add_generation_prompt = false %}\n"
            f"{template}{{% if asks_for_answer %}}{{{{ {trained.removeprefix(turns)!r} }}}}{{% endif %}}"
        )
