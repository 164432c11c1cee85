"""A server with OpenAI's interface: what it lists, what it answers, and what its errors mean."""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

from ragtune.answering.connection import bounded, check_address, named
from ragtune.answering.prediction import Prediction
from ragtune.base.commands import install
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.text import nearest, shortened
from ragtune.base.web.answers import AnswerError
from ragtune.data.chat import Message
from ragtune.recipe.section import Scalar

if TYPE_CHECKING:
    from types import ModuleType

    from openai import APIError, APIStatusError, AsyncOpenAI

T = TypeVar("T")
Conversation = tuple[str, list[Message]]
"""A qid and messages."""

KEY = "OPENAI_API_KEY"
RETRIES = 5
"""How often a question is asked again, with growing pauses (16 s in all, or what the server says)."""
TIMEOUT = 300.0
"""Seconds for one answer: the first may have to wait until a model is loaded."""
LIST_TIMEOUT = 30.0
"""Seconds for the list of models."""
GOES_ON = "What is answered is kept; the same command goes on."

_MOST_TOKENS = 10**9
"""Of one answer; whoever says more has counted nothing."""
_NEWER_LIMIT = "max_completion_tokens"
"""The name that some servers insist on; older ones, and most others, know max_tokens alone."""
_SHOWN, _NAMED = 300, 20
"""How much of a server's words a message shows, in characters, and how many names of its list."""


def served_models(endpoint: str) -> list[str] | None:
    """The names that a server lists; None if it has no list.

    Raises:
        UsageError: the server refuses the key.
        RagtuneError: the server can't be reached.
    """
    server = Client(endpoint)

    async def ask() -> list[str] | None:
        async with server.connected() as connection:
            return await server.listed(connection)

    return wait_for(ask)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a question and of its answer, as the server counts them."""

    prompt: int
    completion: int


@dataclass
class Client:
    """A server, and the model that is wanted of it."""

    endpoint: str
    """The address, up to /v1."""
    model: str = ""
    """The name under which the server has it."""
    advice: str = ""
    """How to serve it, for when it isn't."""
    max_new_tokens: int = 1
    template_arguments: Mapping[str, Scalar] = field(default_factory=dict)
    """What the server's chat template reads beside the messages."""
    limit: str = "max_tokens"
    """What the server calls `max_new_tokens`."""
    section: str = "evaluate"
    """Of the configuration, which names the endpoint: messages advise its keys; "" for options."""
    usage: dict[str, Usage] = field(default_factory=dict)
    """What each question took, by its qid, where the server says it."""
    key_from: str = KEY
    """The environment variable with the key."""

    def __post_init__(self) -> None:
        check_address(self.endpoint, self.section)

    @property
    def _address(self) -> str:
        return f"{self._endpoint} is the address up to /v1, such as http://localhost:8000/v1."

    @property
    def _endpoint(self) -> str:
        return named(self.section, "endpoint")

    @property
    def _slower(self) -> str:
        if not self.section:
            return "Wait until the server has less to do"
        return f"Set {self.section}.concurrency lower"

    @property
    def _key(self) -> str:
        return os.environ.get(self.key_from, "").strip()

    def _words(self, error: APIError) -> str:
        return _told(error.body or error.message, self._key)

    def connected(self) -> AsyncOpenAI:
        # The library insists on a key; a server without keys reads none.
        connection: AsyncOpenAI = _library().AsyncOpenAI(
            base_url=self.endpoint,
            api_key=self._key or "no-key",
            max_retries=RETRIES,
            timeout=TIMEOUT,
            http_client=bounded(_library(), self.endpoint, TIMEOUT),
        )
        return connection

    async def ask(self, connection: AsyncOpenAI, qid: str, messages: list[Message]) -> Prediction:
        """One answer, asked for greedily."""
        limit = self.limit
        request: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            "temperature": 0,
            limit: self.max_new_tokens,
        }
        if self.template_arguments:  # OpenAI's own server has no such field
            request["extra_body"] = {"chat_template_kwargs": dict(self.template_arguments)}
        try:
            reply = await connection.chat.completions.create(**request)
        except _library().BadRequestError as error:
            if limit == _NEWER_LIMIT or _NEWER_LIMIT not in self._words(error):
                raise
            self.limit = _NEWER_LIMIT
            return await self.ask(connection, qid, messages)
        except (
            ValueError,
            TypeError,
            AttributeError,
            RecursionError,
        ):  # no JSON, or of other types
            reply = None
        if said := getattr(reply, "error", None):
            raise RagtuneError(
                f"{self.endpoint}, question {qid}: {_told(said, self._key)}", GOES_ON
            )
        choices = getattr(reply, "choices", None)
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = getattr(choice, "message", None)
        if choice is None or not hasattr(message, "content"):
            raise RagtuneError(
                f"What {self.endpoint} answers to the question {qid} is no chat completion.",
                self._address,
            )
        if (usage := _usage(reply)) is not None:
            self.usage[qid] = usage
        content = getattr(message, "content", None) or ""
        if isinstance(content, list):  # of parts, of which some may be text
            parts = [part.get("text") for part in content if isinstance(part, dict)]
            content = "".join(text for text in parts if isinstance(text, str))
        # Half a character, which an answer that is cut off may end with, can't be written.
        text = str(content).encode("utf-8", "replace").decode()
        return Prediction(qid, text, [], getattr(choice, "finish_reason", "") == "stop")

    async def listed(self, connection: AsyncOpenAI) -> list[str] | None:
        """The names that the server lists; None if it has no list. Raises as `served_models` does."""
        openai = _library()
        try:
            page = await connection.with_options(max_retries=1, timeout=LIST_TIMEOUT).models.list()
            return [str(model.id) for model in page.data]
        except AnswerError as error:
            raise self.unread(error) from None
        except openai.APIConnectionError as error:
            if isinstance(error.__cause__, AnswerError):
                raise self.unread(error.__cause__) from None
            raise RagtuneError(
                f"No server answers at {self.endpoint}.",
                self.advice or f"Start it, or set {self._endpoint}.",
            ) from None
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise self.refused(error.status_code) from None
        # Some servers have no list, and transformers' fails where there is no cache of the Hub.
        except (openai.APIError, ValueError, AttributeError, TypeError, RecursionError):
            return None

    def fault(self, error: APIError, qid: str, listed: list[str] | None) -> RagtuneError:
        """What an error of the library means, after it has tried again where that makes sense."""
        openai, times = _library(), f"{RETRIES + 1} times"
        if isinstance(error, openai.APITimeoutError):
            return RagtuneError(
                f"{self.endpoint} gave no answer to the question {qid} in {TIMEOUT:g} s, {times}.",
                f"{self._slower}, or look at the server's log. {GOES_ON}",
            )
        if isinstance(error.__cause__, AnswerError):
            return self.unread(error.__cause__)
        if isinstance(error, openai.APIConnectionError):
            return RagtuneError(
                f"The connection to {self.endpoint} broke at the question {qid}, {times}.",
                f"See whether the server still runs. {GOES_ON}",
            )
        if not isinstance(error, openai.APIStatusError):
            return RagtuneError(f"{self.endpoint}, question {qid}: {self._words(error)}", GOES_ON)
        return self.refusal(error, qid, listed)

    def refusal(self, error: APIStatusError, qid: str, listed: list[str] | None) -> RagtuneError:
        """What an answer that says no means."""
        said, status = self._words(error), error.status_code
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return self.refused(status)
        if target := error.response.headers.get("Location"):
            return UsageError(
                f"{self.endpoint} leads elsewhere ({status}: {shortened(target, _SHOWN)}).",
                f"If the server there is yours, set {self._endpoint} to its address. {GOES_ON}",
            )
        unlisted = listed is not None and self.model not in listed
        # transformers' server answers 400 to another name than the one that it was started with.
        pinned = f"requested '{self.model}'" in said
        if (status == HTTPStatus.NOT_FOUND and unlisted) or (
            status == HTTPStatus.BAD_REQUEST and pinned
        ):
            return UsageError(
                f"{self.endpoint} does not serve {self.model} "
                f"({status}: {said}){names(listed)}{did_you_mean(self.model, listed)}",
                self.advice or "Set the name that the server lists.",
            )
        return RagtuneError(
            f"{self.endpoint} failed at the question {qid} ({status}: {said})"
            + (f"; it does not list {self.model}." if unlisted else "."),
            f"{self._what_to_do(status, said)} {GOES_ON}".lstrip(),
        )

    def unread(self, error: AnswerError) -> RagtuneError:
        """What to say of an answer that was not read on."""
        return RagtuneError(
            f"The answer of {self.endpoint} was not read on: {error}", self._address
        )

    def refused(self, status: int) -> UsageError:
        sent = f"the key in {self.key_from}" if self._key else "to answer without a key"
        return UsageError(
            f"{self.endpoint} refuses {sent} ({status}).",
            f"Set the environment variable {self.key_from} to a key that the server accepts.",
        )

    def _what_to_do(self, status: int, said: str) -> str:
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            return f"{self._slower}."
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return "Look at the server's log."
        if status == HTTPStatus.NOT_FOUND:
            return f"{self._address} Or the server knows no such model."
        if "temperature" in said:
            return "ragtune asks for the likeliest answer (temperature 0): choose a model that can be asked so."
        if re.search(r"context|length|too long|tokens", said):
            shorter = ", or set passages.size lower" if self.section else ""
            if self.section == "evaluate":
                shorter = ", or set prompt.max_tokens"
            return (
                "If the prompt is too long for the server, it was started with a shorter context than the "
                f"model's: start it with a longer one{shorter}."
            )
        return ""


def _usage(reply: object) -> Usage | None:
    found = getattr(reply, "usage", None)
    counts = [getattr(found, name, None) for name in ("prompt_tokens", "completion_tokens")]
    read, written = (
        one if type(one) is int and 0 <= one < _MOST_TOKENS else None for one in counts
    )
    return None if read is None or written is None else Usage(read, written)


def _library() -> ModuleType:
    import openai  # noqa: PLC0415 - an extra

    return openai


def wait_for(function: Callable[[], Awaitable[T]]) -> T:
    """Run to the end on a loop of its own, so that a notebook's is not in the way."""
    try:
        from anyio.from_thread import start_blocking_portal  # noqa: PLC0415 - comes with the extra

        _library()
    except ImportError:
        raise UsageError(
            "To ask a server needs the package openai, which is not installed.",
            f"Run: {install('openai')}",
        ) from None
    with start_blocking_portal() as portal:
        return portal.call(function)


def _told(said: object, key: str) -> str:
    """What a server said, without the key, which some servers repeat."""
    if isinstance(said, dict):
        said = said.get("message") or said.get("detail") or said.get("error") or said
    text = " ".join(str(said).split())
    if key:
        text = text.replace(key, "[key]")
    return text[:_SHOWN].rstrip(".")


def names(listed: list[str] | None) -> str:
    """What a server lists, in words."""
    if listed is None:
        return ""
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return (
        f"; it lists {', '.join(shortened(n, _SHOWN) for n in listed[:_NAMED]) or 'no model'}{more}"
    )


def did_you_mean(name: str, listed: list[str] | None) -> str:
    """The name of a list that was probably meant, in words."""
    near = nearest(name, listed) if listed else None
    return f"; did you mean {near}?" if near else "."
