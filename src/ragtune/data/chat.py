"""Conversations as a chat template writes them, in a form that it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jinja2 import UndefinedError

from ragtune.base.errors import UsageError
from ragtune.data.template import variables
from ragtune.data.trial import SAMPLE, limited, refused
from ragtune.recipe.section import Scalar

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, Any]
"""A role and its content: a text, or a list of parts, each with its text."""

_GIVEN = {"messages", "tools", "documents", "add_generation_prompt", "continue_final_message"}
"""What transformers passes to every template."""
_OFFERED = {"raise_exception", "strftime_now", "lipsum", "loop"}
"""What transformers' templates can call, beside what Jinja offers everywhere."""
_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token")


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    generation: bool = False,
    template: str | None = None,
    **arguments: Scalar,
) -> str:
    """A conversation as text, by the tokenizer's chat template or another one.

    Raises:
        UsageError: the chat template refuses it (a system message, say) or fails.
    """
    template = template or tokenizer.chat_template
    try:
        with limited():
            text: str = tokenizer.apply_chat_template(
                list(messages),
                chat_template=template,
                tokenize=False,
                add_generation_prompt=generation,
                **arguments,
            )
    except Exception as error:  # noqa: BLE001 - a template may raise anything
        unset = _unset_tokens(tokenizer, template) if isinstance(error, UndefinedError) else []
        if unset:
            raise UsageError(
                f"The chat template writes {' and '.join(unset)}, which this tokenizer doesn't have.",
                "Set prompt.chat_template to one that does without, or the model to one whose tokenizer "
                "has it.",
            ) from None
        raise UsageError(
            f"The chat template can't render a conversation: {str(error).rstrip('.')}.",
            "Set prompt.chat_template to another one.",
        ) from None
    return text


def require_end(
    tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Sequence[Message]]
) -> None:
    """Render conversations in a process that can be stopped, before that is done in this one.

    Raises:
        UsageError: the chat template takes too long or too much memory, or would write something else
            each time.
    """
    examples: list[dict[str, object]] = [
        {**tokenizer.special_tokens_map, "messages": messages, "add_generation_prompt": generation}
        for messages in conversations
        for generation in (False, True)
    ]
    if problem := refused(tokenizer.chat_template, examples, chat=True):
        raise UsageError(
            f"The chat template can't be used: {problem}.",
            "Set prompt.chat_template to another one; do not trust a model that comes with such a one.",
        )


def samples() -> list[list[Message]]:
    """Conversations on which a chat template is tried before there are data, in every form."""
    said = [
        [{"role": "user", "content": text}, {"role": "assistant", "content": SAMPLE[:50]}]
        for text in ("x", SAMPLE * 20)
    ]
    system = {"role": "system", "content": "x"}
    forms = (Form(), Form(parts=True))
    return [form.of(one) for turns in said for one in (turns, [system, *turns]) for form in forms]


def _unset_tokens(tokenizer: PreTrainedTokenizerBase, template: str) -> list[str]:
    read = variables(template)
    return [name for name in _TOKENS if name in read and getattr(tokenizer, name, None) is None]


def own_variables(tokenizer: PreTrainedTokenizerBase, template: str) -> list[str]:
    """The variables that a chat template reads and that transformers doesn't set."""
    return sorted(
        variables(template) - _GIVEN - _OFFERED - {*_TOKENS, *tokenizer.special_tokens_map}
    )


# The form of the messages.


@dataclass(frozen=True)
class Form:
    """How messages must be written so that a chat template drops nothing of them."""

    parts: bool = False
    """Content is a list of parts, as templates of multimodal models want it."""
    system_in_user: bool = False
    """The system message stands at the head of the user's, before an empty line."""

    def words(self) -> list[str]:
        """What was chosen, for whoever runs this."""
        moved = "it has no place for a system message: prompt.system stands at the head of the user's text"
        listed = "it wants content as a list of parts, and gets it so"
        return [moved] * self.system_in_user + [listed] * self.parts

    def of(self, messages: Sequence[Message]) -> list[Message]:
        """The messages in this form."""
        found = list(messages)
        if self.system_in_user and found[0]["role"] == "system":
            system, user, *rest = found
            content = f"{system['content']}\n\n{user['content']}"
            found = [{**user, "content": content}, *rest]
        if self.parts:
            found = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in found]
        return found


_MARKS = {"system": "5ystem", "user": "U5er", "assistant": "A55istant"}
_WORDS = {
    "system": "the system message",
    "user": "the user's text",
    "assistant": "the assistant's text",
}
# With what a template that prints a list, or escapes, would change.
_TEXT = "{0} \"begins\" here,\n'goes on' <so> & ends: {0}"


def find_form(tokenizer: PreTrainedTokenizerBase, *, system: bool) -> Form:
    """The form in which everything that is said comes out of the chat template, in its order.

    Args:
        tokenizer: with its chat template.
        system: whether there is a system message.

    Raises:
        UsageError: there is none; it names what is lost.
    """
    forms = [Form(), Form(parts=True)]
    if system:
        forms += [Form(system_in_user=True), Form(parts=True, system_in_user=True)]
    problems: list[str] = []
    errors: list[UsageError] = []
    for form in forms:
        try:
            problem = _lost(tokenizer, form, system=system)
        except UsageError as error:
            errors.append(error)
            continue
        if problem is None:
            return form
        problems.append(problem)
    if not problems:
        raise errors[0]
    raise UsageError(
        f"The chat template {problems[0]}: what is to be learnt or asked would not reach the model.",
        "Set prompt.chat_template to another one (plain, say, or a .jinja file).",
    )


def _lost(tokenizer: PreTrainedTokenizerBase, form: Form, *, system: bool) -> str | None:
    """What the template does to a message of a conversation, if it doesn't write it as it is."""
    roles = ["system", "user", "assistant"][not system :]
    texts = {role: _TEXT.format(_MARKS[role]) for role in roles}
    messages: list[Message] = [{"role": role, "content": texts[role]} for role in roles]
    text = render(tokenizer, form.of(messages))
    end = 0
    for role, content in texts.items():
        start = text.find(content, end)
        if start < 0:
            if content in text:
                return f"writes {_WORDS[role]} in another order"
            return f"{'changes' if _MARKS[role] in text else 'drops'} {_WORDS[role]}"
        end = start + len(content)
    # Where no answer is there yet, a template may do otherwise.
    asked = render(tokenizer, form.of(messages[:-1]), generation=True)
    lost = next((role for role in roles[:-1] if texts[role] not in asked), None)
    return f"drops {_WORDS[lost]} where an answer is asked for" if lost else None
