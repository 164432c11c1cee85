"""A stand-in for a server with OpenAI's interface, on 127.0.0.1, that misbehaves as it is told."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.ports import free_port


class Gone:
    """Where nobody listens: the port of a server that ended could be another's by now."""

    def __init__(self) -> None:
        self.endpoint = f"http://127.0.0.1:{free_port()}/v1"


class Chat:
    """A server with OpenAI's interface; a context manager.

    It answers `re: ` and the last message, or what `says` makes of it. `faults` holds, for a message, what is answered first in
    place of an answer: a status with a body (and headers), `cut` (the connection) or `hang`; with
    `late` it takes its time.
    """

    def __init__(self, *models: str) -> None:
        self.models: list[str] | int = [*models]
        self.says = "re: {}".format
        self.usage: Any = None
        self.faults: dict[str, list[Any]] = {}
        self.asked: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.active = self.most = 0
        self.together: threading.Barrier | None = None
        self.lock = threading.Lock()
        self.end = threading.Event()

    def __enter__(self) -> Self:
        chat = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                chat.keys.add(self.headers["Authorization"])
                if isinstance(chat.models, int):
                    self.reply(chat.models, {"error": "no list"})
                else:
                    rows = [{"id": m, "object": "model"} for m in chat.models]
                    self.reply(200, {"object": "list", "data": rows})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                said = body["messages"][-1]["content"]
                with chat.lock:
                    chat.keys.add(self.headers["Authorization"])
                    chat.bodies.append(body)
                    chat.asked.append(said)
                    chat.active += 1
                    chat.most = max(chat.most, chat.active)
                    fault = (chat.faults.get(said) or [None]).pop(0)
                if chat.together:
                    chat.together.wait(120)
                    chat.end.wait(0.05)  # time for one too many to come
                with chat.lock:
                    chat.active -= 1
                self.answer(body, said, fault)

            def answer(self, body: dict[str, Any], said: str, fault: Any) -> None:
                if fault == "late":
                    chat.end.wait(0.3)
                if fault == "cut":
                    self.close_connection = True
                elif fault == "hang":
                    chat.end.wait(30)
                    self.close_connection = True
                elif fault is not None and fault != "late":
                    self.reply(*fault)
                elif isinstance(chat.models, list) and body["model"] not in chat.models:
                    self.reply(404, {"error": {"message": "The model does not exist."}})
                else:
                    choice = {
                        "index": 0,
                        "message": {"role": "assistant", "content": chat.says(said)},
                        "finish_reason": "length" if "long" in said else "stop",
                    }
                    usage = {} if chat.usage is None else {"usage": chat.usage}
                    self.reply(200, {"object": "chat.completion", "choices": [choice], **usage})

            def reply(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
                text = body if isinstance(body, str | bytes) else json.dumps(body)
                data = text.encode() if isinstance(text, str) else text
                self.send_response(status)
                headers = {"Content-Type": "application/json", **(headers or {})}
                for name, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/v1"

    def __exit__(self, *_: object) -> None:
        self.end.set()
        self.http.shutdown()
        self.http.server_close()
