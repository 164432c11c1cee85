"""What the Hub says of a model: licence, gating, and why it can't be asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from huggingface_hub import constants

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.model.facts import model_facts

ANSWERS: dict[str, tuple[int, dict[str, str], Any]] = {
    "open/one": (200, {}, {"id": "open/one", "gated": False, "cardData": {"license": "mit"}}),
    "named/one": (
        200, {},
        {"id": "named/one", "gated": "auto", "cardData": {"license": "other", "license_name": "gemma"}},
    ),
    "bare/one": (200, {}, {"id": "bare/one", "gated": False}),
    "gated/one": (403, {"X-Error-Code": "GatedRepo"}, {"error": "gated"}),
    "no/one": (404, {"X-Error-Code": "RepoNotFound"}, {"error": "none"}),
    "ill/one": (500, {}, {"error": "ill"}),
    "expired/one": (401, {"X-Error-Message": "Invalid credentials in Authorization header"}, {}),
    "busy/one": (429, {}, {"error": "Too many requests."}),
    "list/one": (200, {}, [1, 2]),
    "empty/one": (200, {}, {}),
    "date/one": (200, {}, {"id": "date/one", "lastModified": "yesterday"}),
}  # fmt: skip


@pytest.fixture(autouse=True)
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = "/".join(self.path.partition("/api/models/")[2].split("/")[:2])
            code, headers, body = ANSWERS[name]
            content = json.dumps(body).encode()
            self.send_response(code)
            for key, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("name", "licence", "gated"),
    [("open/one", "mit", False), ("named/one", "gemma", True), ("bare/one", None, False)],
)
def test_licence_and_gating(name: str, licence: str | None, gated: bool) -> None:
    assert model_facts(name, None) == (licence, gated)


@pytest.mark.parametrize(
    ("name", "kind", "message", "advice"),
    [
        ("gated/one", UsageError, "is gated", "Accept its terms"),
        ("no/one", UsageError, "has no model no/one", "Check the name"),
        ("ill/one", RagtuneError, r"ill/one can't be looked up\. The Hub refused \(500\): ill\.", "has a problem"),
        (
            "expired/one", RagtuneError,
            r"The Hub refused \(401\): Invalid credentials in Authorization header\.\n", "is wrong or has expired",
        ),
        ("busy/one", RagtuneError, r"The Hub refused \(429\): Too many requests\.\n", "wait some minutes"),
        ("list/one", RagtuneError, r"list/one can't be looked up\. The Hub's answer makes no sense", "HF_ENDPOINT"),
        ("empty/one", RagtuneError, "makes no sense", "HF_ENDPOINT"),
        ("date/one", RagtuneError, "makes no sense", "HF_ENDPOINT"),
    ],
)  # fmt: skip
def test_why_it_can_t_be_had(name: str, kind: type, message: str, advice: str) -> None:
    with pytest.raises(kind, match=message) as error:
        model_facts(name, None)
    assert advice in error.value.advice


def test_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        RagtuneError, match="open/one can't be looked up\\. The Hub can't be reached"
    ) as error:
        model_facts("open/one", None)
    assert error.value.advice.startswith("Check the network. ")


def test_a_token_that_can_t_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.utils._headers.get_token", lambda: "hf_ü" + "x" * 20)
    with pytest.raises(UsageError, match="holds a character that no token has") as error:
        model_facts("open/one", None)
    assert "hf_" not in str(error.value)
