"""Where the page is served: its address, its password, and the server that ends with Ctrl-C."""

from __future__ import annotations

import errno
import getpass
import ipaddress
import logging
import os
import socket
import sys
import threading
from pathlib import Path

from ragtune.asking.feedback import path_of
from ragtune.asking.page import Page, library, look
from ragtune.asking.page_guard import App, Guard
from ragtune.asking.reader import Reader
from ragtune.base.disk import require_writable
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.screen.console import note, warn
from ragtune.base.stopping import stop_if_asked
from ragtune.base.text import one_or_many

HOST, PORT = "127.0.0.1", 7860
PASSWORD = "RAGTUNE_DEMO_PASSWORD"  # noqa: S105 - a variable's name
SHORTEST = 12
"""Characters of a password."""
MAX_OPEN = 256
"""Connections at a time; each open page holds two or three."""
LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))
_BRIEFLY = 0.2
"""Seconds between two looks whether the server is still there."""
_LONGEST = 5
"""Seconds that it may take to end: uvicorn gives open pages one, and an answer ends with its next token."""


def demo(
    source: str,
    *overrides: str,
    corpus: str | Path | None = None,
    host: str = HOST,
    port: int = PORT,
) -> None:
    """Serve the page of a reader until Ctrl-C.

    Args:
        source: a run directory, or what was published.
        overrides: changes to its recipe.
        corpus: the folder whose index is searched.
        host: an address of this machine; beyond loopback only with a password.
        port: of it; 0: any that is free.

    Raises:
        UsageError: the address can't be had, there is no password or too short a one, no such reader.
    """
    library()  # what is missing is said before a model is loaded
    with listening(host, port) as listener:
        near = ipaddress.ip_address(listener.getsockname()[0]).is_loopback
        password = password_for(host, near=near)
        feedback = path_of(source, overrides)
        require_writable(feedback.parent)
        reader = Reader.load(source, *overrides, corpus=corpus)
        page = application(Page(reader, feedback))
        hosts = LOOPBACK | {host.lower()} if near else frozenset[str]()
        if not near:
            _warn_of_listeners()
        serve(Guard(page, hosts, password), listener, host)


def application(page: Page) -> App:
    """Gradio's application for a page, with all that it offers besides switched off."""
    from fastapi import FastAPI  # noqa: PLC0415 - comes with Gradio

    outer = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    blocks = page.blocks()
    blocks.queue(api_open=False)
    return library().mount_gradio_app(  # type: ignore[no-any-return]
        outer,
        blocks,
        path="/",
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        show_error=False,
        max_file_size=1,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        **look(),
    )


def listening(host: str, port: int) -> socket.socket:
    """A socket at an address of this machine. Raises UsageError: it can't be had."""
    family, address = _resolved(host)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere it would let two servers have one port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen()  # else another could do the same; who comes early waits until the model is there
    except OSError as error:
        listener.close()
        raise _not_had(error, host, port) from error
    return listener


def _resolved(host: str) -> tuple[socket.AddressFamily, str]:
    """An address as numbers; a name is looked up only if it isn't this machine's own."""
    if host.lower() == "localhost":
        host = HOST
    try:
        number = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return (socket.AF_INET6 if number.version == 6 else socket.AF_INET), host  # noqa: PLR2004 - IPv6
    try:
        family, _, _, _, address = socket.getaddrinfo(host or " ", None, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise UsageError(
            f"--host {host}: there is no such address.",
            f"Leave it out ({HOST}: this machine alone), or give an address of this machine.",
        ) from error
    return family, str(address[0])


def _not_had(error: OSError, host: str, port: int) -> UsageError:
    if error.errno == errno.EADDRINUSE:
        return UsageError(
            f"Port {port} of {host} is in use.",
            f"Stop what uses it, or choose another: --port {port + 1 if port < _LAST else PORT} "
            "(0: any that is free).",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return UsageError(
            f"Port {port} of {host} is not allowed.", f"Choose one from 1024 on: --port {PORT}."
        )
    return UsageError(
        f"--host {host}: this machine can't be reached by it ({error.strerror}).",
        f"Leave it out ({HOST}: this machine alone), or give an address of this machine.",
    )


_LAST = 65_535


def password_for(host: str, *, near: bool) -> str | None:
    """The password of the page: from the environment, or asked for; of loopback none is needed.

    Raises:
        UsageError: there is none, or it is too short.
    """
    given = os.environ.get(PASSWORD) or None
    if given is None and near:
        return None
    if given is None:
        if sys.stdin is None or not sys.stdin.isatty():
            raise UsageError(
                f"--host {host} can be reached from other machines, and there is no password.",
                f"Set {PASSWORD} in the environment ({SHORTEST} characters or more), or leave --host out.",
            )
        given = getpass.getpass(f"Password for the page ({SHORTEST} characters or more): ")
    if len(given) < SHORTEST:
        raise UsageError(
            f"The page's password is too short: {one_or_many(len(given), 'character')}.",
            f"Take {SHORTEST} or more: whoever has it can ask the model, and read what it retrieves.",
        )
    return given


def serve(app: App, listener: socket.socket, host: str) -> None:
    """Serve until a signal comes. Raises Stopped, or RagtuneError: the server ended by itself."""
    import uvicorn  # noqa: PLC0415 - comes with Gradio

    config = uvicorn.Config(
        app, log_config=None, access_log=False, ws="none", lifespan="on", proxy_headers=False,
        server_header=False, timeout_graceful_shutdown=1, log_level="error", limit_concurrency=MAX_OPEN,
    )  # fmt: skip
    server = uvicorn.Server(config)
    port = listener.getsockname()[1]
    ended = threading.Event()

    def run() -> None:
        try:
            server.run([listener])
        finally:
            ended.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        # Not by `join`: before 3.13 a thread whose `join` is interrupted passes for one that has ended.
        while not server.started and not ended.wait(_BRIEFLY):
            pass
        if server.started:
            _tell(host, port)
        while not ended.wait(_BRIEFLY):
            pass
    except KeyboardInterrupt:
        stop_if_asked("The page is closed; what thumbs kept stays.")
        raise
    finally:
        # Open pages are cut off, of which uvicorn would tell.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        server.should_exit = True
        thread.join(_LONGEST)
    raise RagtuneError("The page's server ended by itself.", "Start the command again.")


def _tell(host: str, port: int) -> None:
    shown = f"[{host}]" if ":" in host else host
    note(f"The page is at http://{shown}:{port} until Ctrl-C.")
    if name := {"0.0.0.0": "IPv4", "::": "IPv6"}.get(host):  # noqa: S104 - what the user asked for
        note(f"It answers at every {name} address of this machine.")


def _warn_of_listeners() -> None:
    warn(
        "Questions, passages and the password go over the network unencrypted. Where others could listen, "
        "put a proxy with TLS before it, or leave --host out and use a tunnel (ssh -L)."
    )
