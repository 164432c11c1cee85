"""Asking the Hub: with a time-out, with retries that are said, and with failures in words."""

from __future__ import annotations

import itertools
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from time import sleep
from typing import Any, TypeVar

from huggingface_hub import HfApi, errors, get_session, get_token
from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]

from ragtune.base.console import warn
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.network import PASSING
from ragtune.base.secrets import HIDDEN, STRANGE_TOKEN, TOKEN_ADVICE, hide

T = TypeVar("T")

# httpx's in huggingface_hub 1.x, httpx2's from 2.0 on.
HTTPError: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]
"""What the client raises of a connection, and of an answer that says no."""
SENSELESS = (KeyError, IndexError, TypeError, AttributeError, json.JSONDecodeError)
"""What is raised while an answer is read that holds something other than it should."""
_MALFORMED = re.compile(r"improperly formatted|[Mm]alformed response|does not match format")
"""What huggingface_hub says of such an answer, by a ValueError, where it looks."""

TIMEOUT = 120.0
"""Seconds that the Hub may be silent while it is sent to or read from; huggingface_hub has no limit."""
CONNECT_TIMEOUT = 20.0
"""Seconds to reach it."""
ATTEMPTS = 4
PAUSE = 1.0
"""Seconds before the second attempt, doubled before each later one, unless the Hub names its own."""
LONGEST_PAUSE = 120.0
"""Seconds: if the Hub asks for a longer pause, the user decides when to go on."""

_CONFLICT = 409
_SERVERS_FAULT = 500
_TOKEN = "The token is wrong or has expired: run `hf auth login`, or set HF_TOKEN"  # noqa: S105 - no password
_ADVICE = {
    401: f"{_TOKEN}.",
    403: "This token may not read {repo}: run `hf auth login` with one that may.",
    429: "The Hub limits the rate: wait some minutes.",
}
_WRITING = {
    400: "If the message names nothing to change, check publish.repo: owner/name, letters, digits "
    "and single - _ . inside.",
    401: f"{_TOKEN}, with a token that may write.",
    403: "The token may not write to {repo}: make one with write access to it, or choose another "
    "publish.repo.",
    404: "{repo} is not there and could not be made: check publish.repo and the token's rights.",
    409: "{repo} is being changed by someone else: wait a moment.",
}


def api() -> HfApi:
    """The Hub's client, at `HF_ENDPOINT` if that is set."""
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)


def ask(act: Callable[[], T], repo: str, finish: str = "") -> T:
    """Call the Hub, and call it again after a failure that may pass; say what is waited for.

    Args:
        act: what to do, which must do no harm when it is done twice.
        repo: owner/name, for the messages.
        finish: how to go on after a failure, for the messages.

    Raises:
        UsageError, RagtuneError: as `hub_errors`.
    """
    with hub_errors(repo, finish), failing_at_once():
        for attempt in itertools.count(1):
            try:
                return act()
            except Exception as error:
                pause = _pause(error, attempt)
                if pause is None:
                    raise
                reason, _ = explain(error, repo)
                warn(f"{reason} Trying again in {pause:.0f} s ({attempt} of {ATTEMPTS - 1}).")
                sleep(pause)
    raise AssertionError  # the loop ends by a return or a raise


@contextmanager
def failing_at_once() -> Iterator[None]:
    """Let huggingface_hub's requests have a time-out, and fail at once: `ask` alone retries.

    Its own retries are silent, cover some requests only, and wait as long as a server asks them to.
    """
    client: Any = get_session()
    outer = vars(client).get("send")  # of a request within this one
    client.send = _send_once(client.send)
    try:
        yield
    finally:
        del client.send
        if outer:
            client.send = outer


def _send_once(send: Callable[..., Any]) -> Callable[..., Any]:
    def send_once(request: Any, **options: Any) -> Any:  # noqa: ANN401 - httpx's, or httpx2's
        limits = dict.fromkeys(("read", "write"), TIMEOUT)
        connect = dict.fromkeys(("connect", "pool"), CONNECT_TIMEOUT)
        request.extensions = {**request.extensions, "timeout": {**limits, **connect}}
        try:
            response = send(request, **options)
        except HTTPError as error:
            raise ConnectionError(str(error)) from error  # no class that is silently retried
        # create_repo repeats this one request without a pause or an end.
        blocked = response.status_code == _CONFLICT and "conflicting operation" in response.text
        if blocked or response.status_code in PASSING:
            response.read()
            hf_raise_for_status(response)
        return response

    return send_once


@contextmanager
def hub_errors(repo: str, finish: str) -> Iterator[None]:
    """Turn what the Hub or the network answers into a message and the command that goes on.

    Raises:
        UsageError: the Hub takes no such name.
        RagtuneError: anything else.
    """
    again = f" Nothing is lost: {finish}" if finish else ""
    try:
        yield
    except errors.OfflineModeIsEnabled as error:
        raise RagtuneError(
            "The Hub can't be asked: HF_HUB_OFFLINE is set.", f"Unset it to publish.{again}"
        ) from error
    except errors.HFValidationError as error:
        raise UsageError(
            f"publish.repo: {error}",
            "Name it owner/name: letters, digits, and single - _ . inside.",
        ) from error
    except (HTTPError, OSError, RuntimeError, ValueError, *SENSELESS) as error:
        root = _root(error)
        if isinstance(root, OSError) and root.filename is not None:
            raise  # a file here, not the Hub
        reason, advice = explain(error, repo)
        raise RagtuneError(reason, (advice + again).strip()) from error


def _root(error: BaseException) -> BaseException:
    """What the Hub or the network said: the client wraps it, once for each file that fails."""
    while not isinstance(error, HTTPError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def explain(error: BaseException, repo: str, *, writing: bool = True) -> tuple[str, str]:
    """What a failure to ask the Hub means, and what to do.

    Args:
        error: as huggingface_hub raised it.
        repo: owner/name.
        writing: whether it was asked to change something, and not only to read.
    """
    root = _root(error)
    text, name = _line(str(root)), type(root).__name__
    network, later = "Check the network.", "Check the network, or try again later."
    # By name, as httpx's and httpx2's classes are called alike: tests/publish/test_faults.py.
    kinds = {kind.__name__ for kind in type(root).__mro__}
    if isinstance(root, errors.HfHubHTTPError):
        said = _line(root.server_message or str(root))
        code = root.response.status_code
        reason, advice = f"The Hub refused ({code}): {said}", _advice(root, repo, writing=writing)
    elif isinstance(root, UnicodeEncodeError):
        reason, advice = STRANGE_TOKEN, TOKEN_ADVICE
    elif isinstance(root, PermissionError):  # Xet's refusal of the token
        reason, advice = f"The Hub refused: {text}", (_WRITING if writing else _ADVICE)[401]
    elif kinds & {"ConnectError", "ConnectTimeout"}:
        reason, advice = f"The Hub can't be reached: {name}: {text}", network
    elif "TimeoutException" in kinds:
        reason, advice = f"The Hub did not answer within {TIMEOUT:g} s.", later
    elif isinstance(root, (HTTPError, ConnectionError, TimeoutError)):
        reason, advice = f"The connection to the Hub was cut: {name}: {text}", network
    elif isinstance(root, SENSELESS) or _MALFORMED.search(text):
        reason = f"The Hub's answer makes no sense: {name}: {text}"
        advice = "Try again later; if HF_ENDPOINT is set, see that a Hub is there."
    else:
        reason = f"The Hub's client failed: {name}: {text}"
        advice = "Check the network and try again."
    return f"{reason.removesuffix('.')}.", advice


def _advice(error: errors.HfHubHTTPError, repo: str, *, writing: bool) -> str:
    """What to do about an answer that says no."""
    if asked := _retry_after(error):
        return f"It asks to wait {asked:.0f} s."
    code = error.response.status_code
    if code >= _SERVERS_FAULT:
        return "The Hub has a problem: try again later."
    advice = {**_ADVICE, **_WRITING} if writing else _ADVICE
    return advice.get(code, "").format(repo=repo)


def _pause(error: Exception, attempt: int) -> float | None:
    """Seconds to wait before another attempt; None if none is worth it."""
    root = _root(error)
    if attempt >= ATTEMPTS or isinstance(root, (RagtuneError, errors.OfflineModeIsEnabled)):
        return None
    asked = None
    if isinstance(root, errors.HfHubHTTPError):
        if root.response.status_code not in PASSING | {_CONFLICT}:
            return None
        asked = _retry_after(root)
    elif not isinstance(root, (HTTPError, ConnectionError, TimeoutError)):
        return None
    if asked is None:
        return PAUSE * float(2 ** (attempt - 1))
    return asked if asked <= LONGEST_PAUSE else None


def _retry_after(error: errors.HfHubHTTPError) -> float | None:
    """Seconds that an answer asks to wait, by Retry-After (a number or a date) or RateLimit."""
    headers = error.response.headers
    text = str(headers.get("Retry-After", "")).strip()
    if text.isdigit():
        return float(text)
    if text:
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
        except ValueError:
            return None
    limited = re.search(r"\br\s*=\s*0\s*;\s*t\s*=\s*(\d+)", headers.get("RateLimit", ""))
    return float(limited[1]) if limited else None


def _line(text: str) -> str:
    """The first line of a message, without a token."""
    # The client's may be of neither the environment nor the store: it also asks for short-lived ones.
    return hide(text.strip().partition("\n")[0].replace(get_token() or "\0", HIDDEN))
