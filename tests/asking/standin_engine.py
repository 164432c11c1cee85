"""A program in vLLM's place: it listens where it is told, answers what a file says, and misbehaves as it is told.

It is started by itself, and imports nothing that isn't Python's own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ["STANDIN"])
"""Where it finds answers.json, and writes told.json: what it was started with."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        name = next((w.split("=")[1] for w in sys.argv if w.startswith("--lora-modules")), "x")
        self.reply({"data": [{"id": name, "object": "model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = body["messages"][-1]["content"].rpartition("Question: ")[2]
        text, finish = json.loads((FOLDER / "answers.json").read_text())[said]
        message = {"role": "assistant", "content": text}
        self.reply({"choices": [{"index": 0, "message": message, "finish_reason": finish}]})

    def reply(self, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def talk() -> None:
    while True:
        sys.stdout.write("still here\n")
        sys.stdout.flush()
        time.sleep(0.05)


def main() -> None:
    mode = os.environ.get("STANDIN_MODE")
    helper = subprocess.Popen(["sleep", "600"], start_new_session=mode != "fails")
    told = {"words": sys.argv[1:], "pids": [os.getpid(), helper.pid]}
    (FOLDER / "told.json").write_text(json.dumps(told))
    for part in (
        b"the engine says \x1b[2Jhello \xe5\xaf",
        b"\x8c\xc2\x9c\r\n",
    ):  # cut in a character
        sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()
    if mode == "talks":
        threading.Thread(target=talk, daemon=True).start()
    if mode == "fails":
        sys.stderr.write("it has no GPU\n")
        sys.exit(3)
    if mode == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    host, port = (
        next(w.partition("=")[2] for w in sys.argv if w.startswith(f"--{key}="))
        for key in ("host", "port")
    )
    ThreadingHTTPServer((host, int(port)), Handler).serve_forever(0.05)


if __name__ == "__main__":
    main()
