"""A finished turn of the assistant: what a chat template writes before the answer and after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ragtune.base.errors import UsageError
from ragtune.data.chat import Form, Message, render
from ragtune.data.tokenizer import encoded, special_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SENTINEL = "ragtune5entinel"

_ANSWERS = ("Paris", "42", "1,000 km", "one\n\ntwo", "富士山（3776 m）。")
"""An answer of each of these forms must come out whole, between the same texts."""
_STARTS = ("Paris", "a", "42", "富士山")
"""With these a tokenizer may join blanks that stand before them."""


@dataclass(frozen=True)
class Turn:
    """Where the answer stands in what the template writes."""

    stop_id: int
    """The token that ends the answer."""
    lead: str
    """Blanks before the answer that the tokenizer joins to it: they are trained with it."""
    closing: str
    """What stands between answer and stop token: it is trained, and not shown in predictions."""
    rest: str
    """What the template writes after the answer, where none of it is a token that can end it."""
    strips: tuple[bool, bool]
    """Whether the template takes blanks off an answer's start and end."""
    written: bool = True
    """Whether the template writes the stop token itself."""

    def completion(self, answer: str) -> str:
        """The text that is trained for an answer, but for the stop token."""
        left, right = self.strips
        answer = answer.lstrip() if left else answer
        answer = answer.rstrip() if right else answer
        return self.lead + answer + self.closing

    def answer(self, text: str) -> str:
        """The answer in a text that was generated up to the stop token."""
        return text.removeprefix(self.lead).removesuffix(self.closing)

    def prompt(
        self, tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], form: Form
    ) -> str:
        """The text of a finished turn up to the answer, and up to the blanks that belong to it.

        Args:
            tokenizer: with its chat template.
            messages: the conversation before the turn, as they are given.
            form: of the messages.
        """
        return _split(tokenizer, messages, form)[0].removesuffix(self.lead)


def find_turn(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], form: Form) -> Turn:
    """How the tokenizer's chat template writes a finished turn.

    Raises:
        UsageError: it changes an answer, or nothing can end one.
    """
    before, after = _split(tokenizer, messages, form)
    for answer in _ANSWERS:
        _require_whole(render(tokenizer, answered(messages, form, answer)), answer, before, after)
    padded = f" {SENTINEL} "
    said = render(tokenizer, answered(messages, form, padded))
    left, right = said.removeprefix(before), said.removesuffix(after)
    strips = (not left.startswith(" "), not right.endswith(" "))
    turn = Turn(0, _lead(tokenizer, before), "", after, strips)
    return _ended(tokenizer, turn)


def _split(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], form: Form
) -> tuple[str, str]:
    """What the template writes before an answer and after it."""
    text = render(tokenizer, answered(messages, form, SENTINEL))
    # The last one: a passage may hold the word as well.
    before, found, after = text.rpartition(SENTINEL)
    if not found:
        raise UsageError(
            f"The chat template drops or changes the assistant's text {SENTINEL!r}.",
            "Set prompt.chat_template to another one.",
        )
    return before, after


def answered(messages: Sequence[Message], form: Form, answer: str) -> list[Message]:
    """The conversation with a finished turn of the assistant."""
    return form.of([*messages, {"role": "assistant", "content": answer}])


def _require_whole(text: str, answer: str, before: str, after: str) -> None:
    if text != before + answer + after:
        start = len(before) if text.startswith(before) else 0
        end = len(text) - len(after) if text.endswith(after) else len(text)
        raise UsageError(
            f"The chat template does not write the answer {answer!r} as it is, or not at the same place: "
            f"{text[start:end][-200:]!r}.",
            "Set prompt.chat_template to another one.",
        )


def _ended(tokenizer: PreTrainedTokenizerBase, turn: Turn) -> Turn:
    """The turn with its stop token: the first special one after the answer, else an added one, else eos."""
    after = turn.rest
    ids = encoded(tokenizer, after)
    added = {i for i, t in tokenizer.added_tokens_decoder.items() if t.content.strip()}
    for kind in (special_ids(tokenizer), added):
        stop = next((i for i in ids if i in kind), None)
        if stop is not None:
            text = tokenizer.convert_ids_to_tokens(stop)
            closing = after.partition(text)[0] if text in after else ""
            # Some tokens take the blanks before them in.
            if encoded(tokenizer, f"x{closing}{text}") == [*encoded(tokenizer, "x"), stop]:
                closing = ""
            return replace(turn, stop_id=int(stop), closing=closing, rest="")
    if tokenizer.eos_token_id is None:
        raise UsageError(
            "The chat template ends a turn with no token of its own, and the tokenizer has no eos.",
            "Choose a chat template that ends the assistant's turn with a special token.",
        )
    return replace(turn, stop_id=int(tokenizer.eos_token_id), written=False)


def _lead(tokenizer: PreTrainedTokenizerBase, before: str) -> str:
    """The blanks at the end of a text that the tokenizer joins to what follows."""
    spaces, blanks = (before[len(before.rstrip(signs)) :] for signs in (" ", None))
    for lead in dict.fromkeys(("", spaces, blanks)):
        prompt = before[: len(before) - len(lead)]
        ids = encoded(tokenizer, prompt)
        longer = [encoded(tokenizer, prompt + lead + start) for start in _STARTS]
        if all(one[: len(ids)] == ids for one in longer):
            return lead
    return ""
