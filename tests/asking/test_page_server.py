"""Who reaches the page, with which password, what of Gradio is there; the command from start to Ctrl-C."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from ragtune.asking import page_guard, page_server
from ragtune.asking.page_guard import MAX_BODY, Guard
from ragtune.asking.page_server import PASSWORD, listening, password_for
from ragtune.base.errors import RagtuneError, UsageError
from tests.asking.served_page import served
from tests.asking.standin import StandIn
from tests.safety.test_offline import REFUSE_SOCKETS

SECRET = "correct horse 電池"


async def _gradio(scope: Any, receive: Any, send: Any) -> None:
    """In the place of Gradio: says which path it was asked for, and reads what it is sent."""
    read = 0
    while (message := await receive())["type"] == "http.request":
        read += len(message["body"])
        if not message.get("more_body"):
            break
    body = f"<script>{scope['path']} {read} {dict(scope['headers'])}</script>".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"server", b"x")]})
    await send({"type": "http.response.body", "body": body})


Asked = tuple[int, dict[bytes, bytes], str]


def request(
    guard: Guard,
    path: str = "/",
    method: str = "GET",
    client: str = "a",
    sent: int = 0,
    **headers: str,
) -> Asked:
    """The answer to a request."""
    named = {"host": "127.0.0.1:7860", **headers}
    pieces = [{"type": "http.request", "body": b"x" * min(sent, 2**18), "more_body": True}] * max(
        1, sent // 2**18
    )
    answer: list[Any] = []

    async def receive() -> Any:
        return pieces.pop() if pieces else {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        answer.append(message)

    scope = {
        "type": "http", "method": method, "path": path, "client": (client, 1),
        "headers": [(k.encode(), v.encode("latin-1")) for k, v in named.items()],
    }  # fmt: skip
    asyncio.run(guard(scope, receive, send))
    return answer[0]["status"], dict(answer[0]["headers"]), answer[1]["body"].decode()


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"me:{password}".encode()).decode()


@pytest.fixture
def open_guard() -> Guard:
    return Guard(_gradio, page_server.LOOPBACK, None)


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({}, 200),
        ({"host": "localhost"}, 200),
        ({"host": "[::1]:80"}, 200),
        ({"host": "evil.example"}, 421),  # a name that leads to this machine
        ({"host": ""}, 421),
        ({"origin": "http://127.0.0.1:7860"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"path": "/gradio_api/queue/join", "method": "POST"}, 200),
        ({"path": "/gradio_api/queue/join", "method": "POST", "content-length": str(MAX_BODY + 1)}, 413),
        ({"path": "/gradio_api/queue/join", "method": "POST", "content-length": "-1"}, 413),
        ({"path": "/gradio_api/queue/join", "method": "POST", "origin": "http://evil.example"}, 403),
        ({"path": "/gradio_api/queue/data"}, 200),
        ({"path": "/assets/index-a.js"}, 200),
        ({"path": "/assets/../config"}, 404),
        ({"method": "PUT"}, 404),
    ],
)  # fmt: skip
def test_who_may_ask(open_guard: Guard, asked: dict[str, str], status: int) -> None:
    found, headers, _ = request(open_guard, **asked)
    assert found == status
    assert headers[b"x-frame-options"] == b"DENY"


def test_nothing_else_of_gradio_is_there(open_guard: Guard) -> None:
    """All its routes, as its application lists them, but for those that the page needs."""
    pytest.importorskip("gradio", reason="no Gradio here")
    from gradio.routes import App

    app = page_server.application(
        page_server.Page(StandIn(), Path("f.jsonl"))  # type: ignore[arg-type]
    )
    inner = next(r.app for r in app.routes if isinstance(getattr(r, "app", None), App))
    routes = [
        one for r in inner.routes for one in getattr(r, "original_router", inner).routes
    ] + inner.routes
    paths = {re.sub(r"\{[^}]*\}", "x", route.path) for route in routes if hasattr(route, "path")}
    assert len(paths) > 50
    reached = {p for p in paths for m in ("GET", "POST") if request(open_guard, p, m)[0] == 200}
    assert reached == {
        "/", "/favicon.ico", "/theme.css", "/assets/x", "/gradio_api/heartbeat/x",
        "/gradio_api/queue/data", "/gradio_api/queue/join",
    }  # fmt: skip
    config = inner.get_blocks().config
    assert not any(d["api_visibility"] != "private" for d in config["dependencies"])
    assert config["footer_links"] == []


def test_no_more_is_read_than_is_taken(open_guard: Guard) -> None:
    asked = {"path": "/gradio_api/queue/join", "method": "POST"}
    assert f" {2**19} " in request(open_guard, sent=2**19, **asked)[2]
    _, _, body = request(open_guard, sent=MAX_BODY + 2**19, **asked)
    assert int(body.split()[1]) <= MAX_BODY


def test_the_page_says_what_may_run_and_leads_nowhere_else(open_guard: Guard) -> None:
    _, headers, body = request(
        open_guard, authorization="x", **{"x-forwarded-host": "evil.example"}
    )
    policy = headers[b"content-security-policy"].decode()
    nonce = re.search(r"'nonce-([^']+)'", policy)
    assert nonce
    assert body.startswith(f'<script nonce="{nonce[1]}">')
    assert "evil" not in body
    assert b"server" not in headers
    assert (
        request(open_guard)[1][b"content-security-policy"].decode() != policy
    )  # another each time


def test_with_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    paused: list[float] = []

    async def sleep(seconds: float) -> None:
        paused.append(seconds)

    monkeypatch.setattr(page_guard.asyncio, "sleep", sleep)
    guard = Guard(_gradio, frozenset(), SECRET)
    for path in ("/", "/assets/a.js", "/gradio_api/queue/data"):
        status, headers, _ = request(guard, path)
        assert (status, headers[b"www-authenticate"][:5]) == (401, b"Basic")
    assert request(guard, host="demo.example:80")[0] == 401  # by any name, but never without it
    for wrong in (
        basic("correct horse"),
        basic(""),
        "Basic !",
        "Basic",
        "Bearer x",
        basic(SECRET)[:-2],
    ):
        assert request(guard, authorization=wrong)[0] == 401
    assert paused == [1.0] * 3
    status, _, body = request(guard, authorization=basic(SECRET))
    assert status == 200
    assert "authorization" not in body  # Gradio isn't told
    assert len(paused) == 3


def test_where_the_password_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PASSWORD, raising=False)
    assert password_for("127.0.0.1", near=True) is None
    with pytest.raises(
        UsageError, match="can be reached from other machines, and there is no password"
    ):
        password_for("0.0.0.0", near=False)
    monkeypatch.setenv(PASSWORD, "short")
    for near in (True, False):
        with pytest.raises(UsageError, match=r"too short: 5 characters.\nTake 12 or more"):
            password_for("0.0.0.0", near=near)
    monkeypatch.setenv(PASSWORD, "x")
    with pytest.raises(UsageError, match=r"too short: 1 character\."):
        password_for("0.0.0.0", near=False)
    monkeypatch.setenv(PASSWORD, SECRET)
    assert password_for("0.0.0.0", near=False) == SECRET
    assert password_for("127.0.0.1", near=True) == SECRET
    monkeypatch.delenv(PASSWORD)
    asked: list[str] = []
    monkeypatch.setattr(page_server.sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(page_server.getpass, "getpass", lambda words: asked.append(words) or SECRET)
    assert password_for("0.0.0.0", near=False) == SECRET
    assert asked == ["Password for the page (12 characters or more): "]


def test_an_address_that_can_t_be_had_is_said() -> None:
    with listening("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(UsageError) as raised:
            listening("localhost", port)
        assert str(raised.value) == (
            f"Port {port} of localhost is in use.\n"
            f"Stop what uses it, or choose another: --port {port + 1 if port < 65535 else 7860} (0: any that is free)."
        )
    for host in ("192.0.2.1", "no such host", "", "x" * 300):
        with pytest.raises(UsageError, match=re.escape(f"--host {host}: ")):
            listening(host, 0)


def has_ipv6() -> bool:
    """Whether this machine can listen at ::1; in a container often not."""
    try:
        with socket.socket(socket.AF_INET6) as one:
            one.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine can't listen at ::1")
def test_ipv6_is_this_machine_too() -> None:
    with listening("::1", 0) as found:
        assert found.family == socket.AF_INET6


def test_a_real_page_needs_the_password(tmp_path: Path) -> None:
    with served(StandIn(), tmp_path / "f.jsonl", SECRET) as address:
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(address)
        asked = urllib.request.Request(address, headers={"Authorization": basic(SECRET)})
        page = urllib.request.urlopen(asked).read().decode()
    assert "gradio" in page
    assert set(re.findall(r"https?://[\w.-]+", page.partition("window.gradio_config")[0])) == set()


def test_without_gradio_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(RagtuneError) as raised:
        page_server.demo("runs/x")
    assert str(raised.value).startswith("The page needs Gradio (")
    assert str(raised.value).endswith("\nRun: pip install 'gradio>=6.31,<7'")


LOCAL_ONLY = REFUSE_SOCKETS.replace(
    "local = event",
    "ours = event == 'socket.bind' and arguments[1] == ('127.0.0.1', 0)\n    local = ours or event",
)
"""Nothing but the page's own socket."""


def through_the_page(address: str, question: str, passage: str) -> str:
    """What the page's own request for an answer brings, as it comes."""
    wanted = {"data": [question, passage, True], "fn_index": 0, "session_hash": "abc"}
    asked = urllib.request.Request(
        f"{address}/gradio_api/queue/join",
        json.dumps(wanted).encode(),
        {"Content-Type": "application/json"},
    )
    urllib.request.urlopen(asked).read()
    return (
        urllib.request.urlopen(f"{address}/gradio_api/queue/data?session_hash=abc").read().decode()
    )


def test_the_command_serves_asks_nobody_and_ends(tuned: Path, tmp_path: Path) -> None:
    """With a real reader, and without --offline: asked through the page's own interface, then Ctrl-C."""
    pytest.importorskip("gradio", reason="no Gradio here")
    (tmp_path / "sitecustomize.py").write_text(f"import sys\n{LOCAL_ONLY}", "utf-8")
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]), "COLUMNS": "80",
        "GRADIO_ANALYTICS_ENABLED": "True", "GRADIO_SHARE": "True", "GRADIO_MCP_SERVER": "True",
    }  # fmt: skip
    environment.pop("HF_HUB_OFFLINE", None)
    process = subprocess.Popen(
        [sys.executable, "-m", "ragtune", "demo", str(tuned), "--port", "0"],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    said = ""
    try:
        while "until Ctrl-C" not in said and (line := process.stdout.readline()):
            said += line
        address = re.search(r"http://127\.0\.0\.1:\d+", said)
        assert address, process.communicate(timeout=60)
        answers = through_the_page(address[0], "What colour is house 3?", "House 3 is red.")
        still = urllib.request.urlopen(f"{address[0]}/gradio_api/heartbeat/abc")  # an open page
    finally:
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    assert time.monotonic() - begun < 20
    still.close()
    assert answers.count("process_generating") > 2, answers
    assert "House 3 is" in answers
    assert "Base model" in answers
    assert process.returncode == 130, errors
    assert errors.strip().startswith(
        "Stopped by Ctrl-C. The page is closed; what thumbs kept stays."
    )
    assert len(errors.strip().splitlines()) == 1
    assert not (tmp_path / "connections").exists(), (tmp_path / "connections").read_text("utf-8")
    assert (said + out).count("http://") == 1
    assert not (tuned / "feedback.jsonl").exists()
