"""No token is in anything that a run writes or says, whatever goes wrong."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from tests.conftest import make_records, write_records
from tests.ready import Ready
from tests.safety.children import run_all, write_recipe

ENVIRONMENT = "hf_CanaryOfTheEnvironment0123456789"
STORE = "hf_CanaryOfTheStore0123456789abcdef"
CACHE = "hub-canaryOfTheCache0123456789abcdef"  # no pattern knows it
KEY = "sk-canary/Key+with=signs&more%0123456789"
RECIPE = "hf_CanaryOfTheRecipe0123456789abcde"
PASSWORD = "canaryPasswordOfAnAddress"
CANARIES = (ENVIRONMENT, STORE, CACHE, KEY, RECIPE, PASSWORD)


def forms(token: str) -> set[bytes]:
    """A token as it may stand somewhere: plain, in an address, in base64 from any place on."""
    found = {token.encode(), quote(token, safe="").encode(), quote_plus(token).encode()}
    found.add(json.dumps(token)[1:-1].encode())
    for before in range(3):
        content = b"\0" * before + token.encode()
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            # The first and the last signs depend on what stands around it.
            found.add(encode(content)[(before * 8 + 5) // 6 : len(content) * 8 // 6])
    return found


def leaks(content: bytes) -> list[str]:
    """The tokens that a content holds in some form."""
    return [token for token in CANARIES if any(form in content for form in forms(token))]


@pytest.mark.parametrize("token", CANARIES)
def test_a_leak_would_be_found(token: str) -> None:
    for before in (b"", b"a", b"ab", b"Bearer ", b"user:"):
        whole = before + token.encode() + b" x"
        assert leaks(whole) == [token]
        assert leaks(b"x" + base64.b64encode(whole)) == [token]
        assert leaks(base64.urlsafe_b64encode(whole)) == [token]
    assert leaks(quote(f"a={token}", safe="").encode()) == [token]
    assert leaks(b"nothing") == []


class _Echo(BaseHTTPRequestHandler):
    """Refuses everything, and repeats the token as some servers do."""

    def refuse(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        said = f"Incorrect key provided: {self.headers.get('Authorization')}"
        body = json.dumps({"error": {"message": said}, "detail": said}).encode()
        self.server.asked.append(self.headers.get("Authorization"))  # type: ignore[attr-defined]
        self.send_response(401)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Error-Message", said)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)

    do_GET = do_POST = do_HEAD = do_PUT = refuse  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture
def echo() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    server.asked = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_no_token_is_written_or_said(
    tiny_recipe: dict[str, Any], tmp_path: Path, echo: ThreadingHTTPServer, ready: Ready
) -> None:
    """A whole run, and runs that fail at the Hub, at a server, at the data and at the recipe."""
    given, out = tmp_path / "given", tmp_path / "out"
    address = f"http://127.0.0.1:{echo.server_port}"
    good = write_recipe(given / "good.yaml", tiny_recipe)
    with_token = {**tiny_recipe["prompt"], "system": f"Use {RECIPE}."}
    tokens = write_recipe(given / "tokens.yaml", tiny_recipe, prompt=with_token)
    unknown = write_recipe(given / "unknown.yaml", tiny_recipe, publish={"token": PASSWORD})
    broken = given / "broken.yaml"
    broken.write_text(f"name: x\nmodel: !{RECIPE} [\n", "utf-8")
    template = given / "t.jinja"
    template.write_text(f"{{{{ question }}}} {RECIPE}", "utf-8")
    (given / "bad.jsonl").write_text(f'{{"question": {KEY}', "utf-8")
    store = given / "hf" / "token"
    store.parent.mkdir()
    store.write_text(f"{STORE}\n", "utf-8")
    run = ["--run-dir", str(out / "run")]

    def other(name: str) -> list[str]:
        return ["--run-dir", str(out / name)]

    served = [
        "evaluate.engine=openai", f"evaluate.endpoint={address}/v1", "evaluate.served_before=a",
        "evaluate.served_after=b",
    ]  # fmt: skip
    stored = {"HF_TOKEN": None}
    back = {"HF_TOKEN": ENVIRONMENT}
    commands: list[tuple[dict[str, str | None], list[str]]] = [
        ({}, ["run", good, *run]),
        ({}, ["run", good, "publish.repo=alice/x", *other("hub")]),
        ({}, ["--debug", "push", good, "publish.repo=alice/x", *run]),
        (stored, ["--debug", "run", good, "publish.repo=alice/x", *other("store")]),
        (back, ["--debug", "check", good, "model.id=some/gated", *other("gated")]),
        ({}, ["--debug", "check", good, "data.train=some/data", *other("data")]),
        ({}, ["check", good, *served, *other("served")]),
        ({}, ["--debug", "evaluate", good, *served, *other("asked")]),
        ({}, ["run", tokens, *other("tokens")]),
        ({}, ["--debug", "run", unknown, *other("unknown")]),
        ({}, ["--debug", "run", str(broken), *other("broken")]),
        ({}, ["run", good, "prompt.preset=null", f"prompt.template={template}", *other("template")]),
        ({}, ["run", good, f"model.revision={RECIPE}", *other("override")]),
        ({}, ["run", good, f"publish.password={PASSWORD}", *other("password")]),
        ({}, ["run", good, f"data.train=https://user:{PASSWORD}@example.org/x.jsonl", *other("url")]),
        ({}, ["--debug", "run", good, f"data.train={given / 'bad.jsonl'}", *other("bad")]),
        ({}, ["run", good, f"train.steps={RECIPE}", *other("wrong")]),
    ]  # fmt: skip
    environment = {
        "HF_TOKEN": ENVIRONMENT,
        "OPENAI_API_KEY": KEY,
        "HF_HOME": str(store.parent),
        "HF_ENDPOINT": address,
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1",
        "RAGTUNE_CACHE": str(out / "cache"),
    }
    codes, outputs, errors = run_all(out, commands, environment, ready=ready)
    assert codes[0] == 0, errors[0]
    assert all(codes[1:]), [c for c, code in zip(commands, codes, strict=True) if not code]
    for number in (8, 9, 10, 11, 12, 13, 14, 16):
        assert "holds" in errors[number], errors[number]
        assert "Remove it there" in errors[number]
    asked = set(echo.asked)  # type: ignore[attr-defined]
    assert asked >= {f"Bearer {token}" for token in (ENVIRONMENT, STORE, KEY)}
    for number, text in enumerate([*outputs, *errors]):
        assert not leaks(text.encode()), commands[number % len(commands)]
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"adapter_model.safetensors", "report.html", "optimizer.pt"} <= {p.name for p in written}
    mine = {Path(tokens), Path(unknown), broken, template, given / "bad.jsonl", store}
    for path in set(written) - mine:
        assert not leaks(path.read_bytes()), path


def test_the_token_of_another_cache_is_not_said(
    tiny_recipe: dict[str, Any], tmp_path: Path, echo: ThreadingHTTPServer, ready: Ready
) -> None:
    store = tmp_path / "xdg" / "huggingface" / "token"
    store.parent.mkdir(parents=True)
    store.write_text(f"{CACHE}\n", "utf-8")
    recipe = write_recipe(tmp_path / "given" / "r.yaml", tiny_recipe)
    environment = {
        "XDG_CACHE_HOME": str(tmp_path / "xdg"),
        "HF_ENDPOINT": f"http://127.0.0.1:{echo.server_port}",
        "NO_PROXY": "127.0.0.1",
        "RAGTUNE_CACHE": str(tmp_path / "cache"),
    }
    commands: list[tuple[dict[str, str | None], list[str]]] = [
        ({}, ["--debug", "check", recipe, "publish.repo=alice/x"]),
        ({}, ["--debug", "check", recipe, "model.id=some/gated"]),
    ]
    codes, outputs, errors = run_all(tmp_path / "out", commands, environment, ready=ready)
    assert all(codes), outputs
    assert f"Bearer {CACHE}" in echo.asked  # type: ignore[attr-defined]
    for text in (*outputs, *errors):
        assert not leaks(text.encode())


STOPPED = """
from ragtune.stages import terminal
def stopped(*_, **__):
    raise KeyboardInterrupt
terminal.unread = stopped
"""


def test_no_token_of_the_command_line_is_repeated(tmp_path: Path, ready: Ready) -> None:
    address = f"https://user:{PASSWORD}@example.org/x.jsonl"
    commands: list[tuple[dict[str, str | None], list[str]]] = [
        ({}, ["schema", RECIPE]),
        ({}, [RECIPE]),
        ({}, ["report", "r.yaml", "--format", KEY]),
        ({}, ["--debug", "prepare", "r.yaml", f"--{RECIPE}"]),
        ({}, ["schema", address]),
        ({}, ["schema", f"http://localhost:8000/v1?key={PASSWORD}"]),
        ({}, ["check", "r.yaml", f"data.train={address}", f"model.id={RECIPE}", KEY]),
    ]
    codes, outputs, errors = run_all(tmp_path, commands, {"OPENAI_API_KEY": KEY}, STOPPED, ready)
    assert codes == [2, 2, 2, 2, 2, 2, 130], errors
    for text in (*outputs, *errors):
        assert not leaks(text.encode())
    assert all("[hidden]" in text for text in errors)
    assert errors[0].splitlines()[-1] == "Error: Got unexpected extra argument(s) ([hidden])"
    assert (
        errors[-1]
        .splitlines()[-1]
        .endswith(
            "goes on: ragtune check r.yaml 'data.train=https://[hidden]@example.org/x.jsonl' "
            "'model.id=[hidden]' '[hidden]'"
        )
    )


def test_nothing_of_the_data_is_used_as_a_path(
    tiny_recipe: dict[str, Any], tmp_path: Path, ready: Ready
) -> None:
    """Every field that could be mistaken for a name is one that leads elsewhere."""
    names = [
        "../../../../escaped",
        "/tmp/escaped-from-ragtune",
        "..",
        "a/../../escaped",
        "C:\\escaped",
    ]
    inner = tmp_path / "a" / "b" / "c"
    inner.mkdir(parents=True)
    for split, count in (("train", 12), ("eval", 5)):
        records = make_records(count)
        for number, record in enumerate(records):
            record["qid"] = f"{names[number % 5]}{number}"
            record["split"] = record["file"] = record["name"] = names[number % 5]
            record["passages"][0]["title"] = names[number % 5]
            record["passages"][0]["passage_id"] = names[number % 5]
        write_records(Path(tiny_recipe["data"][split]), records)
    recipe = write_recipe(
        inner / "given" / "r.yaml", tiny_recipe, train={"steps": 1, "batch_size": 2}
    )
    before = {p for p in tmp_path.rglob("*") if inner not in p.parents}
    environment = {"RAGTUNE_CACHE": str(inner / "cache"), "HF_HUB_OFFLINE": "1"}
    commands = [({}, ["run", recipe]), ({}, ["evaluate", "--controls", recipe])]
    codes, _, errors = run_all(inner / "out", commands, environment, ready=ready)
    assert codes == [0, 0], errors
    assert {p for p in tmp_path.rglob("*") if inner not in p.parents} - {inner} == before - {inner}
    assert not list(Path("/tmp").glob("escaped*"))
    assert (inner / "out" / "runs" / "tiny" / "report.html").exists()
    assert {p.name for p in (inner / "out").iterdir()} == {"runs"}
