"""A Hub, and a server with OpenAI's interface, that answer with hostility: drawn by a seed, request by request."""

from __future__ import annotations

import contextlib
import gzip
import json
import random
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.conftest import make_records
from tests.standin import TOKEN, Hub, _Handler

KEY = "sk-standInForARealKey"
CODES = [400, 401, 403, 404, 408, 409, 410, 416, 418, 429, 451, 500, 502, 503, 504]
ERRORS = ["RepoNotFound", "GatedRepo", "EntryNotFound", "RevisionNotFound", "x" * 9000, "\x1b[2J"]
PAUSES = [
    "999999",
    "-5",
    "0",
    "3",
    "soon",
    "9" * 400,
    "nan",
    "inf",
    "Wed, 21 Oct 2099 07:28:00 GMT",
    "١٢",
]
WRONG: list[Any] = [
    {}, [], None, 5, "x", [[]], [5], {"error": {"message": ["x"]}}, {"error": 5}, {"errors": 5},
    {"name": 5, "auth": 5, "orgs": 5}, {"name": "a", "orgs": [5]}, {"siblings": 5}, {"siblings": [5]},
    {"id": 5, "sha": [], "siblings": [{"rfilename": None}]}, {"files": 5}, {"objects": [5]},
    {"choices": 5}, {"choices": [5]}, {"choices": [{"message": 5}]}, {"choices": {"0": 1}},
    {"choices": [{"message": {"content": [{"text": 5}, 5]}}]}, {"choices": [{"message": {"content": {}}}]},
    {"data": 5}, {"data": [5]}, {"data": [{"id": 5}, {"id": None}, {}]}, {"url": 5}, {"gated": "\x1b[2J" * 99},
]  # fmt: skip
NAMES = ["../../evil", "/etc/evil", "a/../../../evil", "..\\..\\evil", "C:\\evil", "a\0b", "additional_chat_templates/../../../e.jinja"]  # fmt: skip
HEADS = [
    {"X-Repo-Commit": "../../../evil"}, {"X-Repo-Commit": "main"}, {"ETag": '"../../../../evil"'},
    {"X-Linked-Etag": '"../../../../evil"'}, {"X-Linked-Etag": "/" + "e" * 9}, {"X-Linked-Size": "-1"},
    {"X-Linked-Size": "many"}, {"X-Linked-Size": "9" * 30}, {"Content-Range": "bytes 0-/x"},
    {"X-Xet-Hash": "../evil", "X-Xet-Refresh-Route": "/x"}, {f"X-{i}": "x" * 50 for i in range(1500)},
    {"X-Long": "x" * 300_000}, {"Content-Encoding": "br"}, {"Content-Encoding": "gzip, gzip, gzip"},
]  # fmt: skip


class Hostile(Hub):
    """The stand-in, of which `rate` of the answers are hostile; all by the seed.

    It also has a dataset, `owner/data`, and answers questions at /v1. `thief` is another host: what it is
    sent is in `stolen`.
    """

    def __init__(self, seed: int, rate: float = 1.0) -> None:
        super().__init__()
        self.random, self.rate = random.Random(seed), rate
        self.before = self.answered
        self.lock = threading.Lock()
        self.modes = [m for name, m in sorted(vars(Hostile).items()) if name.startswith("mode_")]
        self.only: Callable[..., None] | None = None
        """The mode of every hostile answer, in place of a drawn one."""
        self.served: Counter[str] = Counter()
        """Bytes that each mode could send before the client went away; at most, of one answer.

        They are counted when they are sent: who looks while the last answer is written may find none.
        """
        self.stolen: list[str] = []

    @property
    def most(self) -> int:
        """The bytes of the longest answer so far, 0 if none is counted yet."""
        return max(self.served.values(), default=0)

    def __enter__(self) -> Self:
        hub = self

        class Thief(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.stolen.append(f"{self.path}\n{self.headers}")
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"{}")

            do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 - http.server's names

            def log_message(self, *_: Any) -> None:
                pass

        self.thief = ThreadingHTTPServer(("127.0.0.1", 0), Thief)
        threading.Thread(target=self.thief.serve_forever, args=(0.02,), daemon=True).start()
        return super().__enter__()

    def __exit__(self, *arguments: object) -> None:
        super().__exit__(*arguments)
        self.thief.shutdown()
        self.thief.server_close()

    def answered(self, handler: _Handler, body: bytes) -> bool:
        """Answer a request with hostility, or as what the stand-in lacks; whether it was answered."""
        with self.lock:
            hostile = self.random.random() < self.rate
            mode = self.only or self.random.choice(self.modes)
            drawn = random.Random(self.random.random())
        if hostile:
            handler.wfile = _Counting(handler.wfile, self.served, mode.__name__)  # type: ignore[assignment]
            with contextlib.suppress(OSError):
                mode(self, handler, drawn)
            handler.close_connection = True
            return True
        return _honest(self, handler, body)

    # How answers are hostile; each is drawn. A head is written by hand where http.server would mind.

    def mode_refusal(self, to: _Handler, draw: random.Random) -> None:
        head = {}
        if draw.random() < 0.5:
            head["X-Error-Code"] = draw.choice(ERRORS)
        if draw.random() < 0.3:
            head["X-Error-Message"] = draw.choice(["\x1b[31m", "x" * 5000, "no", TOKEN])
        if draw.random() < 0.5:
            head["Retry-After"] = draw.choice(PAUSES)
        if draw.random() < 0.2:
            head["RateLimit"] = '"api";r=0;t=' + draw.choice(["999999", "9" * 50, "2"])
        body = draw.choice(
            [b"", b"<html>no</html>", b"\xff\xfe\x00", b'{"error": 5}', b"[[" * 9, b"x" * 9999]
        )
        _write(to, draw.choice(CODES), head, body)

    def mode_wrong(self, to: _Handler, draw: random.Random) -> None:
        _write(
            to, 200, {"Content-Type": "application/json"}, json.dumps(draw.choice(WRONG)).encode()
        )

    def mode_no_json(self, to: _Handler, draw: random.Random) -> None:
        deep, number = b"[" * 200_000, b'{"n": ' + b"9" * 20_000 + b"}"
        text = draw.choice(
            [b"", b"<!DOCTYPE html><p>no", b'{"a": ', b"\xff\xfe", b'"\xed\xa0\x80"', deep, number]
        )
        _write(to, 200, {"Content-Type": draw.choice(["application/json", "text/html"])}, text)

    def mode_endless(self, to: _Handler, draw: random.Random) -> None:
        length: dict[str, Any] = draw.choice(
            [{}, {"Content-Length": 1 << 40}, {"Transfer-Encoding": "chunked"}]
        )
        _write(to, draw.choice([200, 200, 404, 206]), {**_file(draw), **length})
        chunk = b"x" * (64 << 10)
        while not self.closing.is_set() and to.wfile.bytes < 1 << 30:  # type: ignore[attr-defined]
            to.wfile.write(b"10000\r\n%b\r\n" % chunk if "Transfer-Encoding" in length else chunk)

    def mode_short(self, to: _Handler, draw: random.Random) -> None:
        _write(to, 200, {**_file(draw), "Content-Length": 1000}, b"{" + b" " * draw.randrange(900))

    def mode_drip(self, to: _Handler, draw: random.Random) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
        to.wfile.write(head if draw.random() < 0.5 else head[:20])
        while not self.closing.wait(0.02):
            to.wfile.write(b"x")

    def mode_silent(self, to: _Handler, draw: random.Random) -> None:
        self.closing.wait(draw.choice([0.0, 0.5]))

    def mode_bomb(self, to: _Handler, draw: random.Random) -> None:
        packed = b" " * (20 << 20)
        for _ in range(draw.choice([1, 2])):
            packed = gzip.compress(packed, 1)
        _write(
            to,
            200,
            {**_file(draw), "Content-Encoding": draw.choice(["gzip", "deflate", "gzip, gzip"])},
            packed,
        )

    def mode_head(self, to: _Handler, draw: random.Random) -> None:
        _write(to, draw.choice([200, 200, 404]), {**_file(draw), **draw.choice(HEADS)}, b"{}")

    def mode_no_head(self, to: _Handler, draw: random.Random) -> None:
        line = draw.choice(
            [b"HTTP/9.9 200 OK\r\n\r\n", b"\0\1\2", b"HTTP/1.1 200 OK\r\nA B: c\r\n\r\n"]
        )
        to.wfile.write(line)

    def mode_endless_head(self, to: _Handler, draw: random.Random) -> None:
        to.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not self.closing.is_set() and to.wfile.bytes < 1 << 26:  # type: ignore[attr-defined]
            to.wfile.write(b"X-More: x\r\n" * 1000)

    def mode_names(self, to: _Handler, draw: random.Random) -> None:
        rows = [
            {"rfilename": n, "path": n, "type": "file", "size": 1, "oid": "0" * 40}
            for n in draw.sample(NAMES, 3)
        ]
        if draw.random() < 0.2:
            rows = draw.choice([[5], [{"rfilename": 5, "path": 5}], [{}], [None], [[]]])  # type: ignore[list-item]
        made = {"id": "owner/base", "sha": "0" * 40, "siblings": rows}
        _write(to, 200, {}, json.dumps(made if draw.random() < 0.5 else rows).encode())

    def mode_elsewhere(self, to: _Handler, draw: random.Random) -> None:
        thief = f"http://127.0.0.1:{self.thief.server_port}/stolen"
        again = f"{self.url}{to.path}"
        place = draw.choice(
            [
                thief,
                thief,
                again,
                "file:///etc/passwd",
                "http://[",
                "//" + thief[7:],
                "",
                "x" * 9000,
            ]
        )
        _write(to, draw.choice([301, 302, 307, 308]), {"Location": place})

    def mode_pages(self, to: _Handler, draw: random.Random) -> None:
        thief = f"http://127.0.0.1:{self.thief.server_port}/page"
        next_page = draw.choice(
            [f"{self.url}{to.path.partition('?')[0]}?cursor={draw.random()}", thief]
        )
        _write(to, 200, {"Link": f'<{next_page}>; rel="next"'}, b"[]")


class _Counting:
    """Counts what could be written."""

    def __init__(self, inner: Any, served: Counter[str], mode: str) -> None:
        self.inner, self.served, self.mode, self.bytes = inner, served, mode, 0

    def write(self, data: bytes) -> int:
        self.inner.write(data)
        self.bytes += len(data)
        self.served[self.mode] = max(self.served[self.mode], self.bytes)
        return len(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def _file(draw: random.Random) -> dict[str, Any]:
    """The head of a file, so that a client goes on to its body."""
    return {
        "ETag": f'"{draw.randrange(1 << 64):040x}"',
        "X-Repo-Commit": f"{draw.randrange(1 << 64):040x}",
    }


def _write(to: _Handler, code: int, head: dict[str, Any], body: bytes = b"") -> None:
    if body or code >= 300:
        head = {"Content-Length": len(body), **head}
    lines = [
        f"HTTP/1.1 {code} X",
        "Connection: close",
        *(f"{name}: {value}" for name, value in head.items()),
    ]
    to.wfile.write("\r\n".join([*lines, "", ""]).encode("utf-8", "replace"))
    if to.command != "HEAD":
        to.wfile.write(body)


ROWS = "".join(json.dumps(r) + "\n" for r in make_records(6)).encode()


def _honest(hub: Hostile, to: _Handler, body: bytes) -> bool:
    """What the stand-in lacks: a dataset, a list of files, and a server with OpenAI's interface."""
    path = to.path.partition("?")[0]
    row = {"type": "file", "path": "train.jsonl", "size": len(ROWS), "oid": "1" * 40}
    if path == "/v1/models":
        to.answer({"object": "list", "data": [{"id": "m", "object": "model"}]})
    elif path == "/v1/chat/completions":
        to.answer(
            {"choices": [{"index": 0, "message": {"content": "red"}, "finish_reason": "stop"}]}
        )
    elif path.startswith("/api/datasets/owner/data/tree/"):
        to.answer([row])
    elif path.startswith("/api/datasets/owner/data/paths-info/"):
        wanted = [name for name in ("train.jsonl",) if name.encode() in body]
        to.answer([row for _ in wanted])
    elif path.startswith("/api/datasets/owner/data"):
        made = {"id": "owner/data", "sha": "2" * 40, "siblings": [{"rfilename": "train.jsonl"}]}
        to.answer({**made, "private": False, "tags": []})
    elif path.startswith("/datasets/owner/data/resolve/") and path.endswith("train.jsonl"):
        _write(
            to,
            200,
            {"ETag": '"' + "1" * 40 + '"', "X-Repo-Commit": "2" * 40, "Content-Length": len(ROWS)},
            ROWS,
        )
    elif path.startswith(("/datasets/", "/api/models/owner/base/tree/")):
        to.refuse(404, X_Error_Code="EntryNotFound")
    else:
        return False
    to.close_connection = True
    return True
