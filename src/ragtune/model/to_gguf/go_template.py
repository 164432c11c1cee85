"""A chat template as Ollama writes templates (Go's text/template), found by what it makes of messages."""

from __future__ import annotations

from dataclasses import dataclass

from ragtune.base.errors import UsageError
from ragtune.data.chat import Form, Message, find_form
from ragtune.data.encode import Encoder

_SYSTEM, _USER = "5ystemM4rk", "U5erM4rk"
_TEXTS = ("{{ .X }} どこ？\n\nWhere?", "A 'quoted' <b>text</b>\nof two lines")
"""With these in the place of system and user the pieces must give what the chat template does."""


@dataclass(frozen=True)
class Pieces:
    """What a chat template writes around the texts of a question."""

    system: tuple[str, str] | None
    """Before the system message, and between it and the user's text; None if it takes none."""
    user: str
    """Before the user's text, where there is no system message."""
    answer: str
    """Between the user's text and the answer."""
    end: str
    """Behind the answer."""

    def text(self, system: str | None, user: str) -> str:
        """A prompt, as these pieces give it."""
        before = self.user
        if system is not None:
            assert self.system is not None
            before = self.system[0] + system + self.system[1]
        return before + user + self.answer

    def in_go(self) -> str:
        """The template for Ollama: a question by itself, with a system message or without."""
        user = _literal(self.user)
        if self.system:
            first, second = map(_literal, self.system)
            user = f"{{{{ if .System }}}}{first}{{{{ .System }}}}{second}{{{{ else }}}}{user}{{{{ end }}}}"
        answer, end = _literal(self.answer), _literal(self.end)
        return f"{user}{{{{ .Prompt }}}}{answer}{{{{ .Response }}}}{end}"


def _literal(text: str) -> str:
    """Text that Go's template writes as it is."""
    return text.replace("{{", '{{ "{{" }}')


def pieces_of(encoder: Encoder, *, bos: str | None) -> Pieces:
    """What the run's chat template writes around the texts of a question.

    Args:
        encoder: of the run.
        bos: what the engine itself writes before every prompt, which then isn't a part of the template.

    Raises:
        UsageError: no fixed texts around them make what the chat template does.
    """
    form = _form_with_system(encoder)
    system = None
    if form is not None:
        first, rest = _cut(_prompt(encoder, form, _SYSTEM, _USER), _SYSTEM)
        second, answer = _cut(rest, _USER)
        system = (_without(first, bos), second)
    user, alone = _cut(_prompt(encoder, encoder.form, None, _USER), _USER)
    if system and alone != answer:
        raise _odd("it answers otherwise where there is a system message")
    found = Pieces(system, _without(user, bos), alone, _end(encoder))
    for asked in (None, _TEXTS[0]) if form else (None,):
        own = encoder.form if asked is None or form is None else form
        if (bos or "") + found.text(asked, _TEXTS[1]) != _prompt(encoder, own, asked, _TEXTS[1]):
            raise _odd("what stands around a text depends on the text")
    return found


def _odd(why: str) -> UsageError:
    return UsageError(f"The chat template can't be said in Ollama's language: {why}.")


def _form_with_system(encoder: Encoder) -> Form | None:
    """The form of messages with a system message; None if the template takes none."""
    try:
        return find_form(encoder.tokenizer, system=True)
    except UsageError:
        return None


def _prompt(encoder: Encoder, form: Form, system: str | None, user: str) -> str:
    messages: list[Message] = [{"role": "user", "content": user}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return encoder.turn.prompt(encoder.tokenizer, messages, form)


def _cut(text: str, mark: str) -> tuple[str, str]:
    if text.count(mark) != 1:
        raise _odd("it writes a message more than once, or not at all")
    before, _, after = text.partition(mark)
    return before, after


def _without(text: str, bos: str | None) -> str:
    return text.removeprefix(bos) if bos else text


def _end(encoder: Encoder) -> str:
    """What stands behind an answer: it closes the turn where a conversation goes on."""
    turn = encoder.turn
    stop = encoder.tokenizer.convert_ids_to_tokens(turn.stop_id)
    return turn.closing + (stop if turn.written else "") + turn.rest
