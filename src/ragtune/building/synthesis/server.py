"""A server with OpenAI's interface writes: several requests at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ragtune.answering.client import Client, wait_for
from ragtune.answering.connection import check_address
from ragtune.answering.prediction import Prediction
from ragtune.answering.server import ask_all
from ragtune.base.screen.console import note
from ragtune.base.screen.progress import progress
from ragtune.base.text import one_or_many
from ragtune.building.synthesis.answers import MOST, Answer, Answers, Request
from ragtune.building.synthesis.prompts import broken
from ragtune.building.synthesis.writer import SECTION, how
from ragtune.data.chat import Message
from ragtune.data.example import Passage
from ragtune.recipe.corpus import Generate

if TYPE_CHECKING:
    from openai import AsyncOpenAI


@dataclass(frozen=True)
class Server:
    """The server that the user named (`Writer`). A busy or failing one is asked again, with growing pauses."""

    settings: Generate
    endpoint: str
    section: str = SECTION
    """Whose keys messages advise; "" for a command's options."""

    @property
    def name(self) -> str:
        return f"{self.settings.model} at {self.endpoint}, {how(self.settings)}"

    def announce(self, passages: Sequence[Passage]) -> None:
        """See `Writer.announce`."""
        check_address(self.endpoint, self.section)
        size = sum(len(passage.title) + len(passage.text) for passage in passages)
        note(
            f"{one_or_many(len(passages), 'passage goes', 'passages go')} to {self.endpoint} ({size:,} "
            "characters), each at most twice: "
            f"{self.settings.model} writes a question, and is asked it with the passage and without. "
            "Nothing goes anywhere else."
        )

    def ask(self, requests: Sequence[Request], answers: Answers, title: str) -> None:
        """See `Writer.ask`.

        Raises:
            UsageError: the server doesn't know the model, refuses the key, or leads elsewhere.
            RagtuneError: it can't be reached, or fails at a request again and again.
        """
        settings = self.settings
        client = _Client(
            self.endpoint,
            settings.model,
            max_new_tokens=settings.max_new_tokens,
            template_arguments=settings.template_arguments,
            section=self.section,
        )
        keys = {one.name: one.key for one in requests}
        assert len(keys) == len(requests), "each passage has an id of its own"
        asked = [(one.name, [broken(message) for message in one.messages]) for one in requests]
        with answers.open(), progress(title, len(asked), unit="requests") as update:

            def keep(found: Sequence[Prediction]) -> None:
                for one in found:
                    key, usage = keys.pop(one.qid), client.usage.pop(one.qid, None)
                    if one.qid in client.let_out:
                        answers.known[key] = Answer(key, None, 0, 0)
                        continue
                    tokens = (usage.prompt, usage.completion) if usage else (None, None)
                    answers.add(Answer(key, one.prediction[:MOST], *tokens))
                update(len(asked) - len(keys))

            wait_for(lambda: ask_all([client], asked, settings.concurrency, keep))


@dataclass
class _Client(Client):
    """Goes on where a server refuses one passage (a filter of contents, a short context), and not all."""

    let_out: set[str] = field(default_factory=set, init=False)
    answered: bool = field(default=False, init=False)

    async def ask(self, connection: AsyncOpenAI, qid: str, messages: list[Message]) -> Prediction:
        import openai  # noqa: PLC0415 - an extra

        try:
            found = await super().ask(connection, qid, messages)
        except openai.BadRequestError:
            if not self.answered:
                raise
            self.let_out.add(qid)
            return Prediction(qid, "", [], stopped=False)
        self.answered = True
        return found
