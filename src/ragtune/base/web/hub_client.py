"""The client of the Hub, whoever asks through it: bounded in size and time, and what is waited for is said."""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import sleep
from typing import Any, NoReturn
from urllib.parse import urlsplit

from huggingface_hub import constants, errors, get_token, set_client_factory
from huggingface_hub.utils import _http, hf_raise_for_status  # type: ignore[attr-defined]

from ragtune.base.disk import existing_parent
from ragtune.base.errors import RagtuneError
from ragtune.base.screen.console import warn
from ragtune.base.text import size_of
from ragtune.base.web.answers import (
    LONGEST_PAUSE,
    AnswerError,
    Request,
    Response,
    bound,
    check_head,
    check_names,
    clock,
    require_plain_names,
    retry_after,
    watch,
)
from ragtune.base.web.network import PASSING
from ragtune.base.web.refusals import HTTPError, explain, root_of

TIMEOUT = 60.0
"""Seconds that the Hub may be silent while it is sent to or read from; huggingface_hub has no limit."""
CONNECT_TIMEOUT = 20.0
"""Seconds to reach it."""
ATTEMPTS = 4
PAUSE = 1.0
"""Seconds before the second attempt, doubled before each later one, unless the Hub names its own."""
MAX_PAGES = 1000
"""Pages of one list, and MAX_LISTING the seconds from the first to the last of them."""
MAX_LISTING = 600.0

Client = Any
"""httpx's, or httpx2's."""
MAX_RESUMES = 20
"""How often a download is gone on with that has not come PROGRESS bytes further."""
PROGRESS = 64 << 20

_RESUMED = re.compile(r"bytes=(\d+)-")
_CONFLICT = 409
_TELEMETRY = "/api/agent-harnesses"
"""Of which programs the Hub wants to be told. huggingface_hub keeps the answer as it is, and with a wrong one
no program can import it from then on."""
_HUBS = ("huggingface.co", "hf.co")
"""Hosts, with those below them, that are the Hub's own: `datasets` asks one beside the Hub itself."""


def bound_client() -> None:
    """Bound whatever huggingface_hub is answered in this process, whoever asks through it.

    transformers and datasets do, too. What goes through hf_xet, the contents of large files, does not
    pass here: the Hub's answer says their size and hash before, and hf_xet checks both.
    """
    make = _http._GLOBAL_CLIENT_FACTORY  # noqa: SLF001 - the user's, if there is one: a proxy, for example
    if not isinstance(make, _Factory):
        set_client_factory(_Factory(make))


@dataclass(frozen=True)
class _Factory:
    """Makes huggingface_hub's clients, each with bounds."""

    make: Callable[[], Client]

    def __call__(self) -> Client:
        client = self.make()
        bounds = _Bounds(client.send)
        hooks = client.event_hooks
        client.event_hooks = {
            "request": [*hooks["request"], bounds.prepare],
            "response": [bounds.look, *hooks["response"]],
        }
        client.send = bounds.send
        return client


_asking: list[None] = []
"""One for each `failing_at_once` that is under way."""


@dataclass
class _Bounds:
    """What goes through one client."""

    inner: Callable[..., Response]
    reached: bool = False
    """Whether anything was ever answered: where there is no network, nothing is waited for."""
    listed: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Of lists, by the address of the next page: how many it makes, and when the first one came."""
    resumed: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Of files, by their addresses: how often their download went on since it made progress, to where."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Of files, in bytes, by their addresses."""

    def prepare(self, request: Request) -> None:
        """Before each request, also after a redirect: time-outs, no compression, no token for others."""
        if request.url.path == _TELEMETRY:
            raise AnswerError("It is not asked which programs use it.")
        token = get_token()
        if token and token in request.headers.get("Authorization", ""):
            require_hub(str(request.url))
        if "whole" not in request.extensions:  # neither of the Hub, nor asked for by us
            return
        request.headers["Accept-Encoding"] = "identity"
        given = request.extensions.get("timeout", {})
        limits = {"read": TIMEOUT, "write": TIMEOUT, "connect": CONNECT_TIMEOUT}
        limits["pool"] = TIMEOUT * 10  # of many files at once some wait for others
        timeout = {name: min(given.get(name) or limit, limit) for name, limit in limits.items()}
        request.extensions = {**request.extensions, "timeout": timeout, "trace": watch}

    def look(self, response: Response) -> None:
        """At each answer, also one that redirects, before its body is read."""
        request = response.request
        self.reached = True
        if "whole" not in request.extensions:
            return
        check_head(response)
        check_names(response)
        pointed = [response.links.get(link, {}).get("url") for link in ("xet-auth", "next")]
        for target in (*pointed, response.headers.get("X-Xet-Refresh-Route")):
            if target:
                require_hub(str(request.url.join(target)))
        self._count_pages(response)
        self._measure(response)
        bound(response)

    def _measure(self, response: Response) -> None:
        """Remember what a HEAD says of a file's size, and hold the download to it and to the disk.

        The client looks only when all has come, or the disk is full.
        """
        request, said = response.request, response.headers.get("Content-Length")
        if request.method == "HEAD":
            size = response.headers.get("X-Linked-Size") or (response.is_success and said)
            if size:
                place = str(request.url.join(response.headers.get("Location", "")))
                self.sizes |= {str(request.url): int(size), place: int(size)}
        elif response.is_success and not request.extensions["whole"]:
            expected = request.extensions["size"]
            if expected is not None and (said is None or int(said) > expected):
                request.extensions["limit"] = expected
            if said and "Range" not in request.headers:  # which datasets are read with, as a stream
                _require_space(int(said))

    def _count_pages(self, response: Response) -> None:
        url = response.request.url
        count, begun = self.listed.pop(str(url), (1, clock()))
        following = response.links.get("next", {}).get("url")
        if following is None:
            return
        if count >= MAX_PAGES or clock() - begun > MAX_LISTING:
            raise AnswerError(f"{url.host} lists files without an end.")
        self.listed[str(url.join(following))] = count + 1, begun

    def _count_resumes(self, request: Request) -> None:
        """A download that breaks off after a byte, again and again, is no progress to the client's mind."""
        start = _RESUMED.fullmatch(request.headers.get("Range", ""))
        if start is None or start[1] == "0":
            return
        count, last = self.resumed.get(str(request.url), (0, 0))
        if int(start[1]) >= last + PROGRESS:
            count, last = 0, int(start[1])
        self.resumed[str(request.url)] = count + 1, last
        if count >= MAX_RESUMES:
            raise AnswerError(f"{request.url.host} broke a download off {count} times.")

    def send(self, request: Request, *, stream: bool = False, **options: object) -> Response:
        """Send a request, and send it again after a failure that may pass, as far as that is for us."""
        url = str(request.url)
        if not (_asking or url in self.sizes or _is_hub(url)):
            return self.inner(request, stream=stream, **options)
        self._count_resumes(request)
        bounds = {"whole": not stream, "size": self.sizes.get(url)}
        request.extensions = {**request.extensions, **bounds}
        patient = self._patient(request)
        for attempt in itertools.count(1):
            try:
                response = self.inner(request, stream=stream, **options)
                if not self._failed(response):
                    break
                response.read()
                if not patient:
                    if (retry_after(response.headers) or 0) > LONGEST_PAUSE:
                        response.headers.pop("Retry-After", None)
                        response.headers.pop("RateLimit", None)
                    return response
                hf_raise_for_status(response)
            except HTTPError as error:
                if not patient and not isinstance(error, errors.HfHubHTTPError):
                    raise
                self._go_on(request, error, attempt)
        if not stream and request.method == "GET" and "/api/" in request.url.path:
            require_plain_names(response)
        return response

    @staticmethod
    def _failed(response: Response) -> bool:
        # create_repo repeats this one request without a pause or an end.
        if _asking and response.status_code == _CONFLICT:
            response.read()
            return "conflicting operation" in response.text
        return response.status_code in PASSING

    @staticmethod
    def _patient(request: Request) -> bool:
        """Whether a failure is dealt with here. Of a HEAD only where it is asked for with patience.

        First the client asks with little, as it may have a file of before; if not, again with more.
        """
        given = request.extensions.get("timeout", {}).get("read")
        hasty = given is not None and given <= constants.HF_HUB_ETAG_TIMEOUT
        return request.method != "HEAD" or bool(_asking) or not hasty

    def _go_on(self, request: Request, error: Exception, attempt: int) -> None:
        """Wait before another attempt, or raise what nobody else waits for in silence."""
        answered = isinstance(error, errors.HfHubHTTPError)
        if not _asking and self.reached and _can_be_sent_again(request):
            pause = pause_after(error, attempt)
            if pause is not None:
                wait(error, "", attempt, pause)
                return
        if answered:
            raise error
        _raise_once(error)


def _require_space(size: int) -> None:
    """Refuse a download that the disk of the Hub's cache can't hold."""
    cache = Path(constants.HF_HUB_CACHE)
    free = shutil.disk_usage(existing_parent(cache)).free
    if size > free:
        raise AnswerError(
            f"it is {size_of(size)}, and the disk of {cache} has {size_of(free)} free. Free some space, or "
            "set HF_HOME to a folder on a larger disk."
        )


def _raise_once(error: Exception) -> NoReturn:
    """Raise a failed connection as what no library asks for again by itself."""
    if type(error).__name__ == "TooManyRedirects":
        raise AnswerError("It leads from one address to the next, without an end.") from None
    raise ConnectionError(str(error)) from error


def _can_be_sent_again(request: Request) -> bool:
    """Whether a request's body, if it has one, was not a file that is read by now."""
    try:
        return bool(request.content is not None)
    except Exception as error:  # httpx's, or httpx2's
        if type(error).__name__ != "RequestNotRead":
            raise
        return False


def _is_hub(url: str) -> bool:
    """Whether an address is one of the Hub's: at HF_ENDPOINT, or of those that have its name."""
    ends = (os.environ.get("HF_ENDPOINT"), constants.ENDPOINT)
    own = {urlsplit(end.lower())[:2] for end in ends if end}
    scheme, host = urlsplit(url.lower())[:2]
    known = scheme == "https" and any(host == hub or host.endswith(f".{hub}") for hub in _HUBS)
    return (scheme, host) in own or known


def require_hub(url: str) -> None:
    """Refuse to send the token to a host that is not the Hub, wherever the Hub may point.

    Raises:
        AnswerError: it would be sent there.
    """
    if not _is_hub(url):
        host = urlsplit(url).netloc
        raise AnswerError(f"It wants the token to be sent to {host}, which is another host.")


@contextmanager
def failing_at_once() -> Iterator[None]:
    """Let requests fail at once: what is asked here is asked again as a whole, or not at all."""
    bound_client()
    _asking.append(None)
    try:
        yield
    finally:
        _asking.pop()


def pause_after(error: Exception, attempt: int) -> float | None:
    """Seconds to wait before another attempt; None if none is worth it."""
    root = root_of(error)
    given_up = (RagtuneError, AnswerError, errors.OfflineModeIsEnabled)
    if attempt >= ATTEMPTS or isinstance(root, given_up):
        return None
    asked = None
    if isinstance(root, errors.HfHubHTTPError):
        if root.response.status_code not in PASSING | {_CONFLICT}:
            return None
        asked = retry_after(root.response.headers)
    elif type(root).__name__ == "TooManyRedirects" or not isinstance(
        root, (HTTPError, ConnectionError, TimeoutError)
    ):
        return None
    if asked is None:
        return PAUSE * float(2 ** (attempt - 1))
    return asked if asked <= LONGEST_PAUSE else None


def wait(error: Exception, repo: str, attempt: int, seconds: float) -> None:
    """Say what is waited for, and wait."""
    reason, _ = explain(error, repo)
    warn(f"{reason} Trying again in {seconds:.0f} s ({attempt} of {ATTEMPTS - 1}).")
    sleep(seconds)
