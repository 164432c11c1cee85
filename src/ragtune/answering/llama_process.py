"""llama.cpp in a process of its own, which reads a GGUF file: what it gets wrong ends that process alone.

It also writes to the terminal as it likes, and gives its memory back only at its end.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import queue
import re
import secrets
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, Any, Self

import httpx

from ragtune.base.commands import install
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.secrets import environment_without_secrets
from ragtune.base.stopping import stop_if_asked
from ragtune.base.text import shortened

INSTALL = f"Run: {install('xllamacpp')}"
_LOOK = 0.1
"""Seconds between two looks whether the file is loaded."""
_LONGEST = 3600.0
"""Seconds that an answer may take: a large model reads a long prompt for minutes."""
_MOST = 1 << 20
"""Bytes of what it wrote in which an error is looked for."""
_ERROR = re.compile(r"^[\d.]+ E (.*)$", re.MULTILINE)
"""An error, as llama.cpp writes its log."""


def installed() -> bool:
    """Whether llama.cpp is here, as the package xllamacpp has it."""
    return importlib.util.find_spec("xllamacpp") is not None


class Llama:
    """A GGUF file loaded by llama.cpp, which is asked through its own server.

    That listens on this machine alone, on a port that is free, and answers who knows a key of this process.

    Args:
        file: the model.
        context: tokens of the longest prompt and its answer.
        threads: of computing.

    Raises:
        UsageError: xllamacpp is not installed.
        RagtuneError: llama.cpp can't load the file.
    """

    def __init__(self, file: Path, context: int, threads: int) -> None:
        if not installed():
            raise UsageError("llama.cpp is not here: xllamacpp is not installed.", INSTALL)
        self.file = file
        self._key = secrets.token_hex()
        self._settings = {"file": str(file.absolute()), "context": context, "threads": threads}

    def __enter__(self) -> Self:
        self._said = tempfile.TemporaryFile()
        begin = (
            "import sys; sys.path.insert(0, sys.argv[1]); "
            "from ragtune.answering.llama_process import main; main()"
        )
        try:
            self._process = subprocess.Popen(  # noqa: S603 - this Python, and this file
                [sys.executable, "-P", "-c", begin, str(Path(__file__).parents[2])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                env=environment_without_secrets(),
                start_new_session=True,  # Ctrl-C is heard here, and no answer ends halfway
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0)
                | getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        except OSError as error:
            raise RagtuneError(
                f"llama.cpp needs a process of its own, and {sys.executable} can't be started: {error}",
                "Is there memory for one more process?",
            ) from None
        try:
            address = self._begun()
        except BaseException:  # Ctrl-C, too, leaves no process behind: `with` has not begun
            self.__exit__()
            raise
        self._client = httpx.Client(
            base_url=address,
            headers={"Authorization": f"Bearer {self._key}"},
            timeout=_LONGEST,
            trust_env=False,  # no proxy stands between two processes of one machine
        )
        return self

    def __exit__(self, *_: object) -> None:
        if hasattr(self, "_client"):
            self._client.close()
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._said):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()

    def _begun(self) -> str:
        """The server's address, once the model is loaded."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=_pass_on, args=(self._process.stdout, lines), daemon=True).start()
        with contextlib.suppress(OSError):  # it has ended, which is found below
            settings = json.dumps(self._settings | {"key": self._key})
            self._process.stdin.write(settings.encode() + b"\n")
            self._process.stdin.flush()
        while True:
            try:
                address = lines.get(timeout=_LOOK)
            except queue.Empty:
                stop_if_asked()
                continue
            if address.endswith(b"\n"):
                return address.decode().strip()
            raise self._failed("can't load")

    def ask(self, path: str, question: dict[str, object]) -> dict[str, Any]:
        """What the server answers at one of its addresses.

        Raises:
            RagtuneError: it refuses, or has crashed.
        """
        try:
            answer = self._client.post(path, json=question)
            answer.raise_for_status()
            found: dict[str, Any] = answer.json()
        except httpx.HTTPStatusError as error:
            raise RagtuneError(
                f"llama.cpp refuses a question to {self.file}: {shortened(error.response.text, 300)}"
            ) from None
        except httpx.TransportError:
            raise self._failed("crashed with") from None
        return found

    def ids(self, text: str) -> list[int]:
        """A text's token ids; special tokens that stand in it are read as such, and none is added."""
        question = {"content": text, "add_special": False, "parse_special": True}
        found: list[int] = self.ask("/tokenize", question)["tokens"]
        return found

    def _failed(self, what: str) -> RagtuneError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        self._said.seek(0)
        text = self._said.read(_MOST).decode("utf-8", "replace").strip()
        found = _ERROR.search(text)
        words = found[1] if found else (text.splitlines() or ["it ended"])[-1]
        return RagtuneError(
            f"llama.cpp {what} {self.file}: {shortened(words, 300)}",
            "Is there memory for it? Else please report it, with the model's name.",
        )


def _pass_on(pipe: IO[bytes], lines: queue.SimpleQueue[bytes]) -> None:
    """One line; what has no line's end is the end of the process."""
    try:
        lines.put(pipe.readline(1 << 12))
    except (OSError, ValueError):  # it is being closed
        lines.put(b"")


# Within the process.


def main() -> None:
    """Load a file, say where it can be asked, and stay until nobody is there any more."""
    import xllamacpp  # noqa: PLC0415 - an extra

    said = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what llama.cpp prints is no address
    settings = json.loads(sys.stdin.buffer.readline())
    params = xllamacpp.CommonParams()
    params.model.path = settings["file"]
    params.n_ctx = settings["context"]
    params.n_parallel = 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["threads"]
    params.api_keys = [settings["key"]]
    params.fit_params = params.warmup = params.ui = False
    server = xllamacpp.Server(params)
    said.write(server.listening_address.encode() + b"\n")
    said.flush()
    sys.stdin.buffer.read()
    os._exit(0)
