"""Who may reach the page, and what of Gradio: a gate before it, and a policy for what the browser may do."""

from __future__ import annotations

import asyncio
import base64
import hmac
import re
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_READ = re.compile(
    r"/|/favicon\.ico|/theme\.css|/assets/[\w.-]+|/gradio_api/(heartbeat/\w+|queue/data)", re.ASCII
)
_WRITTEN = "/gradio_api/queue/join"
"""All that the page needs. Gradio has some fifty routes more: files, uploads, a proxy, monitoring, its API."""
_EMPTY = "/static/js/iframeResizer.contentWindow.min.js"
"""What the page asks for and does without: a script for pages in frames, which this one refuses to be in."""

MAX_BODY = 2 << 20
"""Bytes of a request: a question with pasted passages."""
_PAUSE = 1.0
"""Seconds after a wrong password before the same machine may try another one."""
_FAILED = 10_000
"""Machines that are remembered for that."""

_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
}
_POLICY = (
    "default-src 'none'; connect-src 'self'; img-src 'self' data:; font-src 'self' data:; "
    "style-src 'self' 'unsafe-inline'; "
    # Gradio makes functions of its components' templates, which are ours and hold no text of strangers.
    "script-src 'self' 'nonce-{nonce}' 'unsafe-eval'; "
    "base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
)
_ELSEWHERE = re.compile(
    r'<(?:meta|link)\b[^<>]*\b(?:content|href)="(?:https?:|/manifest\.json)[^<>]*>', re.ASCII
)
"""In Gradio's page: what names addresses elsewhere, or is not served here."""


class Guard:
    """Lets through what the page needs, from who may ask for it.

    Args:
        app: Gradio's application.
        hosts: the names by which the page may be called; empty: any. A page of somebody else's whose name
            leads to this machine (DNS rebinding) is then refused.
        password: that a browser has to give, by HTTP's basic authentication; None: none.
    """

    def __init__(self, app: App, hosts: frozenset[str], password: str | None) -> None:
        self._app = app
        self._hosts = hosts
        self._password = password.encode() if password is not None else None
        self._trying: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # Gradio's page has no web sockets
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = {bytes(name).lower(): bytes(value) for name, value in scope["headers"]}
        refused = _refusal(scope, headers, self._hosts)
        if refused is None and not await self._may(scope, headers):
            refused = 401
        if refused is not None:
            await _answer(send, refused)
        elif scope["path"] == _EMPTY:
            await _answer(send, 200)
        else:
            is_page = scope["path"] == "/"
            dropped = (
                (*_DROPPED, b"accept-encoding") if is_page else _DROPPED
            )  # it is changed below
            scope["headers"] = [(n, v) for n, v in scope["headers"] if n.lower() not in dropped]
            sent = _Page(send) if is_page else _Policy(send)
            await self._app(scope, _limited(receive), sent)

    async def _may(self, scope: Scope, headers: dict[bytes, bytes]) -> bool:
        """Whether no password is needed, or the right one was given; wrong ones are slow to try."""
        if self._password is None:
            return True
        given = _password(headers.get(b"authorization", b""))
        if given is None:
            return False
        machine = str((scope.get("client") or ("",))[0])
        if len(self._trying) > _FAILED:
            self._trying.clear()
        async with self._trying[machine]:
            right = hmac.compare_digest(given, self._password)
            if not right:
                await asyncio.sleep(_PAUSE)
        return right


_DROPPED = (b"authorization", b"x-forwarded-host", b"x-forwarded-proto", b"x-gradio-server")
"""What Gradio is not told: it would believe in whatever proxy is named."""


def _refusal(scope: Scope, headers: dict[bytes, bytes], hosts: frozenset[str]) -> int | None:
    """The status with which a request is refused, before anybody is asked for a password."""
    host = headers.get(b"host", b"").decode("latin-1")
    if hosts and name_of(host) not in hosts:
        return 421
    origin = headers.get(b"origin")
    if origin is not None and origin.decode("latin-1").partition("://")[2] != host:
        return 403  # a page of somebody else's, in the same browser
    method, path = scope["method"], scope["path"]
    if method == "POST" and path == _WRITTEN:
        length = headers.get(b"content-length", b"0")
        return 413 if not length.isdigit() or int(length) > MAX_BODY else None
    if method in ("GET", "HEAD") and (_READ.fullmatch(path) or path == _EMPTY):
        return None
    return 404


def name_of(host: str) -> str:
    """A Host header without its port."""
    return re.sub(r":\d*$", "", host).strip("[]").lower()


def _password(header: bytes) -> bytes | None:
    """The password of a header `Authorization: Basic …`; whatever the user's name is."""
    kind, _, value = header.partition(b" ")
    if kind.lower() != b"basic":
        return None
    try:
        given = base64.b64decode(value, validate=True)
    except ValueError:
        return None
    return given.partition(b":")[2]


def _limited(receive: Receive) -> Receive:
    """Without a length, or with a wrong one, no more is read either."""
    read = 0

    async def limited() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        return {"type": "http.disconnect"} if read > MAX_BODY else message

    return limited


async def _answer(send: Send, status: int) -> None:
    words = _WORDS.get(status, "").encode()
    kind = b"text/plain; charset=utf-8" if words else b"text/javascript"
    headers = [*_HEADERS.items(), (b"content-type", kind), (b"content-length", b"%d" % len(words))]
    if status == 401:  # noqa: PLR2004 - of HTTP
        headers.append((b"www-authenticate", b'Basic realm="ragtune demo", charset="UTF-8"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": words})


_WORDS = {
    401: "A password is needed.",
    403: "Another site's page may not ask here.",
    404: "There is no such page.",
    413: "That is too much text.",
    421: "The page is not known by this name.",
}


class _Policy:
    """Adds the headers that limit what the browser does with an answer."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._nonce = secrets.token_urlsafe(16)

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start(message)
        await self._send(message)

    def _start(self, message: Message) -> None:
        policy = _POLICY.format(nonce=self._nonce).encode()
        kept = [(n, v) for n, v in message["headers"] if n.lower() != b"server"]
        message["headers"] = [*kept, *_HEADERS.items(), (b"content-security-policy", policy)]


class _Page(_Policy):
    """The page itself: its scripts are marked as those that may run, and nothing in it leads elsewhere."""

    _head: Message | None = None
    _body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._head = message
            return
        self._body += message.get("body", b"")
        if message.get("more_body"):
            return
        assert self._head is not None
        text = _ELSEWHERE.sub("", self._body.decode("utf-8"))
        body = text.replace("<script", f'<script nonce="{self._nonce}"').encode()
        self._start(self._head)
        self._head["headers"] = [
            (n, b"%d" % len(body) if n.lower() == b"content-length" else v)
            for n, v in self._head["headers"]
        ]
        await self._send(self._head)
        await self._send({"type": "http.response.body", "body": body})
