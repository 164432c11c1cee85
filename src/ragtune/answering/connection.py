"""The connection to a server with OpenAI's interface: what its answers may take, and where it leads."""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from ragtune.base.errors import UsageError
from ragtune.base.screen.console import warn
from ragtune.base.secrets import ADDRESS_ADVICE, BESIDE_ADDRESS, IN_ADDRESS
from ragtune.base.web.answers import (
    LONGEST_PAUSE,
    Request,
    Response,
    bound,
    check_head,
    clock,
    retry_after,
)
from ragtune.base.web.network import require_network

Client = Any
"""httpx's, or httpx2's."""


def bounded(openai: ModuleType, endpoint: str, longest: float) -> Client:
    """A client for the library whose answers have an end, and that goes nowhere but to the endpoint.

    Args:
        openai: the library.
        endpoint: for what is said.
        longest: seconds for an answer, from asking to its end; the library may set less.
    """
    waits = _Waits(endpoint)

    async def prepare(request: Request) -> None:
        request.headers["Accept-Encoding"] = "identity"

    async def look(response: Response) -> None:
        waits.say(response)
        check_head(response)
        bound(response, longest)

    # Whoever answers elsewhere would be given the questions, with their passages.
    client = openai.DefaultAsyncHttpxClient(
        event_hooks={"request": [prepare], "response": [look]}, follow_redirects=False
    )
    send = client.send

    async def send_in_time(request: Request, **options: object) -> Response:
        try:
            async with asyncio.timeout(request.extensions["timeout"]["read"]):
                return await send(request, **options)
        except TimeoutError as error:
            library = sys.modules[type(request).__module__.partition(".")[0]]
            raise library.ReadTimeout(str(error), request=request) from None

    client.send = send_in_time
    return client


def named(section: str, key: str) -> str:
    """What a user sets: a key of the configuration or, without a section, an option of the command."""
    return f"{section}.{key}" if section else f"--{key}"


def check_address(endpoint: str, section: str) -> None:
    """Require an address that holds no password: it is shown and written to files.

    Args:
        endpoint: the address.
        section: of the configuration that names it; "" for an option.

    Raises:
        UsageError: it is none, it holds a name or a key, or there is to be no network.
    """
    asks = "evaluate.engine: openai" if section == "evaluate" else named(section, "endpoint")
    require_network(f"{asks} asks a server", "Set evaluate.engine=local." * (section == "evaluate"))
    if BESIDE_ADDRESS.search(endpoint):
        raise UsageError(f"{named(section, 'endpoint')} {IN_ADDRESS}.", ADDRESS_ADVICE)
    try:
        parts = urlsplit(endpoint)
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none, half a bracket
        right = False
    if not right:
        raise UsageError(
            f"{named(section, 'endpoint')}: {endpoint!r} is no address of a server.",
            "Write it as http://localhost:8000/v1.",
        )


class _Waits:
    """Says what a server asks to wait, once for all who wait; the library waits, two minutes at most."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint, self.until = endpoint, 0.0

    def say(self, response: Response) -> None:
        asked = retry_after(response.headers)
        if asked and asked <= LONGEST_PAUSE and not response.is_success and clock() >= self.until:
            self.until = clock() + asked
            warn(f"{self.endpoint} asks to wait {asked:.0f} s ({response.status_code}).")
