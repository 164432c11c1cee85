"""What an answer from the network may be: how large, how slow, and what its head may say.

For clients of httpx and of httpx2, which are alike but for their classes: huggingface_hub and openai come
with either.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from ragtune.base.text import shortened, size_of

MAX_ANSWER = 32 << 20
"""Bytes of an answer that is read as a whole, or does not say how long it is: a list of 300,000 files."""
WHOLE_SECONDS = 60.0
"""Seconds that such an answer may take from its head to its end."""
SLOWEST = 1024
"""Bytes a second of whatever has begun to come, counted over WINDOW: one that drips holds a client for days."""
WINDOW = 30.0
"""Seconds of waiting for the network; what is done between two reads is not counted."""
LONGEST_PAUSE = 120.0
"""Seconds: if a server asks for a longer pause, the user decides when to go on."""

Request = Any
Response = Any
"""httpx's, or httpx2's."""

clock = time.monotonic

_NAME = r"[A-Za-z0-9_+=-][A-Za-z0-9._+=-]{0,127}"
_HEAD = {
    # The client makes names of files and folders of these three, unseen.
    "X-Repo-Commit": re.compile(r"[0-9a-f]{40}"),
    "X-Linked-Etag": re.compile(rf'(W/)?"?{_NAME}"?'),
    "X-Xet-Hash": re.compile(r"[0-9a-f]{64}"),
    "X-Linked-Size": re.compile(r"\d{1,15}"),
    "Content-Range": re.compile(r"bytes (\d{1,15}-\d{1,15}|\*)/\d{1,15}"),
}
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")
_NO_FILE = re.compile(r"(^|[/\\])\.\.([/\\]|$)|^[/\\]|^[A-Za-z]:[/\\]|\0")
"""Of a name that would lead out of its folder."""


class AnswerError(ConnectionError):
    """An answer that is not read on: too long, too slow, or one that no honest server gives."""


def check_head(response: Response) -> None:
    """Refuse an answer by its head, before its body is read.

    Raises:
        AnswerError: it is compressed, which nobody asked for, or leads from https to http.
    """
    request, head = response.request, response.headers
    packed = head.get("Content-Encoding", "identity").strip().lower()
    if packed not in ("", "identity") and request.method != "HEAD":
        raise AnswerError(
            f"{request.url.host} sent an answer that is compressed ({shortened(packed)}), unasked: of some "
            "bytes it makes gigabytes."
        )
    target = urlsplit(head.get("Location", "")).scheme.lower()
    if request.url.scheme == "https" and target == "http":
        raise AnswerError(f"{request.url.host} leads from https to http.")


def check_names(response: Response) -> None:
    """Refuse what huggingface_hub would believe of the head of an answer of the Hub.

    Raises:
        AnswerError: it holds a hash or a size that is none. Of hashes names of files are made, unseen.
    """
    request = response.request
    files = request.method == "HEAD" or "/resolve/" in request.url.path
    for name, pattern in {**_HEAD, **({"ETag": _HEAD["X-Linked-Etag"]} if files else {})}.items():
        value = response.headers.get(name)
        if value is not None and not pattern.fullmatch(value.strip()):
            raise AnswerError(
                f"{request.url.host} sent a {name} that is none: {shortened(value)!r}."
            )


def bound(response: Response, longest: float = WHOLE_SECONDS) -> None:
    """Let a body be read only as far and as long as it may be: as a whole within `longest` seconds.

    `response.request.extensions` says as `whole` whether it is read as a whole (the default), into memory,
    and as `limit` how many bytes may come. One that is streamed and says how long it is has else no limit
    but that.

    Raises:
        AnswerError: at once, if it says that it is too long; otherwise while it is read.
    """
    request, said = response.request, response.headers.get("Content-Length")
    whole = request.extensions.get("whole", True) or not response.is_success
    asked = _RANGE.fullmatch(request.headers.get("Range", ""))
    limit = None if said and not whole else MAX_ANSWER
    limit = request.extensions.get("limit", limit)
    seconds = longest if whole else None
    if asked and response.is_success:
        limit, seconds = int(asked[2]) - int(asked[1]) + 1, None
    if limit is None or request.method == "HEAD":
        return
    meter = _Meter(request.url.host, limit, seconds)
    meter.add(int(said) if said and said.isdigit() else 0)
    meter.bytes = 0
    library = sys.modules[type(response).__module__.partition(".")[0]]
    sync, other = _streams(library.SyncByteStream, library.AsyncByteStream)
    kind = sync if isinstance(response.stream, library.SyncByteStream) else other
    response.stream = kind(response.stream, meter)


class _Meter:
    """Counts what comes."""

    def __init__(self, host: str, limit: int, seconds: float | None) -> None:
        self.host, self.limit, self.seconds = host, limit, seconds
        self.bytes, self.begun = 0, clock()

    def add(self, count: int) -> None:
        self.bytes += count
        if self.bytes > self.limit:
            raise AnswerError(f"{self.host} sent more than the {size_of(self.limit)} that it may.")
        if self.seconds and clock() - self.begun > self.seconds:
            raise AnswerError(f"{self.host} did not end its answer within {self.seconds:g} s.")


@cache
def _streams(sync: type, other: type) -> tuple[type, type]:
    """Streams that count, as one of the libraries wants them: for a client that waits, and for asyncio's."""

    class Stream(sync):  # type: ignore[misc]
        def __init__(self, inner: Iterator[bytes], meter: _Meter) -> None:
            self.inner, self.meter = inner, meter

        def __iter__(self) -> Iterator[bytes]:
            for chunk in self.inner:
                self.meter.add(len(chunk))
                yield chunk

        def close(self) -> None:
            self.inner.close()  # type: ignore[attr-defined]

    class Other(other):  # type: ignore[misc]
        def __init__(self, inner: AsyncIterator[bytes], meter: _Meter) -> None:
            self.inner, self.meter = inner, meter

        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for chunk in self.inner:
                self.meter.add(len(chunk))
                yield chunk

        async def aclose(self) -> None:
            await self.inner.aclose()  # type: ignore[attr-defined]

    return Stream, Other


def watch(event: str, found: Mapping[str, Any]) -> None:
    """Cut off a connection that drips, also in the head of an answer: httpcore's `trace`, for new ones."""
    if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
        stream = found["return_value"]
        pace = _Pace(stream.read, stream.write)
        stream.read, stream.write = pace.read, pace.write


class _Pace:
    """A connection's reading and writing; what comes first after a request may take its time."""

    def __init__(self, read: Callable[..., bytes], write: Callable[..., None]) -> None:
        self._read, self._write = read, write
        self.waited, self.bytes, self.begun = 0.0, 0, False

    def write(self, *arguments: object, **options: object) -> None:
        self.waited, self.bytes, self.begun = 0.0, 0, False
        self._write(*arguments, **options)

    def read(self, *arguments: object, **options: object) -> bytes:
        since = clock()
        came = self._read(*arguments, **options)
        if self.begun:
            self.waited += clock() - since
            self.bytes += len(came)
        self.begun = True
        if self.waited >= WINDOW:
            if self.bytes < SLOWEST * self.waited:
                raise AnswerError(
                    f"The connection brought {self.bytes} bytes in {self.waited:.0f} s, and was cut."
                )
            self.waited, self.bytes = 0.0, 0
        return came


def require_plain_names(response: Response) -> None:
    """Refuse a list of files, or what is said of a repository, with a name that leads out of its folder.

    Raises:
        AnswerError: it has one.
    """
    try:
        said = response.json()
    except (ValueError, RecursionError):
        return  # whoever asked looks at it again, and says so
    listed = "/tree/" in response.request.url.path
    rows = said if listed else said.get("siblings") if isinstance(said, dict) else None
    for row in rows if isinstance(rows, list) else ():
        name = row.get("path" if listed else "rfilename") if isinstance(row, dict) else row
        if not isinstance(name, str) or _NO_FILE.search(name):
            host = response.request.url.host
            raise AnswerError(f"{host} names a file that can be none: {shortened(repr(name))}.")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that an answer asks to wait, by Retry-After (a number or a date) or RateLimit."""
    text = str(headers.get("Retry-After", "")).strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    if text:
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
        except (ValueError, OverflowError):
            return None
    limited = re.search(r"\br\s*=\s*0\s*;\s*t\s*=\s*([0-9]{1,9})", headers.get("RateLimit", ""))
    return float(limited[1]) if limited else None
