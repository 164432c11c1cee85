"""Servers with OpenAI's interface answer: several questions at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ragtune.answering.client import KEY, Client, Conversation, Usage, wait_for
from ragtune.answering.endpoint import served_name
from ragtune.answering.engine import fitting
from ragtune.answering.prediction import Prediction, keeping
from ragtune.base.errors import RagtuneError
from ragtune.base.screen.console import note, warn
from ragtune.base.web.answers import AnswerError
from ragtune.data.encode import Encoder
from ragtune.data.example import Example
from ragtune.recipe.schema import Recipe

if TYPE_CHECKING:
    from openai import AsyncOpenAI


@dataclass(frozen=True)
class Server:
    """The recipe's server, or several (`Engine`). A busy or failing one is asked again, with growing pauses."""

    recipe: Recipe
    which: str
    """The model `before` or `after` tuning."""
    advice: str = ""
    """How to serve it, for when it isn't (`how_to_serve`)."""
    key_from: str = KEY
    """The environment variable with its key, if it has one."""
    section: str = "evaluate"
    """Of the configuration, which names the endpoint; "" where an option does."""
    usage: dict[str, Usage] = field(default_factory=dict)
    """What each question took, by its qid, where the server says it."""
    way: None = None

    def answer(
        self, encoder: Encoder, examples: Sequence[Example], partial: Path, title: str
    ) -> list[Prediction]:
        """The answers, without token ids; see `Engine.answer`.

        Raises:
            UsageError: the server does not know the model or refuses the key.
            RagtuneError: the server can't be reached, or fails at a question again and again.
        """
        found = [*fitting(encoder, examples)]
        asked = [(e.qid, encoder.messages(e, prompt)) for e, prompt in found]
        shown = self.recipe.data.max_passages
        written = [encoder.control.written_out(e, shown) for e in examples]
        if broken := sum(bool(one.keys() - {"an answer"}) for one in written):
            note(
                f"{broken:,} of {len(found):,} questions {'writes' if broken == 1 else 'write'} out tokens of "
                "the chat template: the server gets these broken by a blank (< |im_end|>), as it would read "
                "them as such tokens"
            )
        return self.converse(asked, partial, title)

    def converse(
        self, conversations: Sequence[Conversation], partial: Path, title: str
    ) -> list[Prediction]:
        """The answers to conversations that are cut as their prompts are."""
        evaluate, name = self.recipe.evaluate, served_name(self.recipe, self.which)
        clients = [
            Client(
                endpoint,
                name,
                self.advice,
                evaluate.max_new_tokens,
                self.recipe.prompt.template_arguments,
                section=self.section,
                usage=self.usage,
                key_from=self.key_from,
            )
            for endpoint in evaluate.endpoints
        ]
        asked = ", ".join(evaluate.endpoints)
        note(f"Asking {asked} for {name}")
        with keeping(partial, [qid for qid, _ in conversations], title) as kept:
            pending = [one for one in conversations if one[0] not in kept.done]
            if pending:
                with _or_without(len(clients)):
                    wait_for(lambda: ask_all(clients, pending, evaluate.concurrency, kept.add))
        found = kept.in_order()
        if empty := sum(not one.prediction for one in found):
            warn(
                f"{empty} of {len(found)} answers of {asked} "
                f"{'is empty, and counts' if empty == 1 else 'are empty, and count'} as such. A model "
                "that thinks before it answers may need more evaluate.max_new_tokens."
            )
        return found


@contextmanager
def _or_without(servers: int) -> Iterator[None]:
    """Of several servers the others could go on without the one that failed, which the message names."""
    try:
        yield
    except RagtuneError as error:
        if servers == 1:
            raise
        advice = f"{error.advice}\nOr leave it out of evaluate.endpoint.".lstrip()
        raise type(error)(error.message, advice) from None


async def ask_all(
    clients: Sequence[Client],
    pending: Sequence[Conversation],
    concurrency: int,
    keep: Callable[[Sequence[Prediction]], None],
) -> None:
    """Ask `concurrency` at a time of each server; who is done sooner is asked more.

    After a failure none is begun; those begun are waited for.
    """
    todo = iter(pending)
    failures: list[Exception] = []

    async def work(client: Client, connection: AsyncOpenAI, listed: list[str] | None) -> None:
        for conversation in todo:
            try:
                keep([await _ask(client, connection, listed, conversation)])
            except Exception as error:  # noqa: BLE001 - raised below, when the others are done
                failures.append(error)
            if failures:
                return

    async with AsyncExitStack() as connected:
        servers = []
        for client in clients:
            connection = await connected.enter_async_context(client.connected())
            servers.append((client, connection, await client.listed(connection)))
        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(pending))):
                for server in servers:
                    group.create_task(work(*server))
    if failures:
        raise failures[0] from None


async def _ask(
    client: Client, connection: AsyncOpenAI, listed: list[str] | None, conversation: Conversation
) -> Prediction:
    import openai  # noqa: PLC0415 - an extra

    try:
        return await client.ask(connection, *conversation)
    except openai.APIError as error:
        raise client.fault(error, conversation[0], listed) from None
    except AnswerError as error:
        raise client.unread(error) from None
