"""Reading strangers' files in a process of its own, which may crash, hang or take too much memory.

It answers with one line of JSON for each line that asks. (Never pickles: what reads strangers' files is not
believed more than these.)
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, BinaryIO, Self

import psutil

from ragtune.base.errors import RagtuneError, UsageError, is_out_of_memory, is_panic
from ragtune.base.secrets import environment_without_secrets
from ragtune.base.stopping import stop_if_asked
from ragtune.base.text import first_line, shortened, size_of
from ragtune.building.documents.document import Document, Mark, UnreadableError, UnreadYetError
from ragtune.building.documents.files import Reading, read_file
from ragtune.building.documents.source import Source
from ragtune.recipe.corpus import Documents

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]

SECONDS = 120.0
"""Of computing that one file may take; a thousand pages of PDF take ten."""
WAITING = 5
"""How many times as long it may take on the clock: the machine may be busy, a disk slow."""
MEMORY = 2 << 30
"""Bytes that the process may hold."""
DOCLING = 30
"""How many times as much time docling may take, which looks at pictures of pages with models; and it may
take six times the memory."""
_START, _END = 120.0, 5.0
"""Seconds in which a process has begun, and in which it has ended when it says nothing more."""
_LOOK = 0.1
"""Seconds between two looks at what the process takes."""
_LONGEST = 1 << 29
"""Bytes of the longest answer."""
_READY = "ready"
_ERRORS = {"file": UnreadableError, "moment": UnreadYetError, "all": UsageError}
"""By what an answer says that went wrong."""
_LEAVE_OUT = "Leave it out; or open it in the program that it is for, save it again, and try that."


class Worker:
    """A process that reads one file after the other; one that fails ends it, and another is begun."""

    def __init__(self, documents: Documents) -> None:
        self.documents = documents
        by_docling = documents.reader == "docling"
        self.seconds = SECONDS * (DOCLING if by_docling else 1)
        self.memory = MEMORY * (6 if by_docling else 1)
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._said: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def read(self, path: Path, source: Source) -> Reading:
        """As `read_file`, but whatever happens to the process happens to this file alone.

        Raises:
            UnreadableError: also if the process crashes, or takes too much time or memory.
            UsageError: a library isn't installed.
            RagtuneError: no process can be started.
        """
        process = self._started()
        question = json.dumps({"path": str(path.absolute()), "name": source.name})
        try:
            assert process.stdin is not None
            process.stdin.write(question.encode() + b"\n")
            process.stdin.flush()
        except OSError:  # it has ended, which is found below
            pass
        answer = self._wait(process, source.name)
        found = json.loads(answer)
        if "documents" in found:
            return Reading([_document(one) for one in found["documents"]], found["encoding"])
        raise _ERRORS[found["of"]](found["message"], found["advice"])

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._end()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed in _end
        begin = (
            "import sys; sys.path.insert(0, sys.argv[1]); "
            "from ragtune.building.documents.worker import main; main()"
        )
        try:
            process = subprocess.Popen(  # noqa: S603 - this Python, and this file
                [sys.executable, "-P", "-c", begin, str(Path(__file__).parents[3])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                env=environment_without_secrets() | {"PYTHONIOENCODING": "utf-8"},
                start_new_session=True,  # Ctrl-C is heard here, and ends no reading halfway
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0)
                | getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        except OSError as error:
            raise _unstarted(str(error)) from None
        self._process, self._answers = process, queue.SimpleQueue()
        assert process.stdin is not None
        assert process.stdout is not None
        threading.Thread(target=_listen, args=(process.stdout, self._answers), daemon=True).start()
        settings = {
            "documents": self.documents.model_dump(), "memory": self.memory, "seconds": WAITING * self.seconds,
        }  # fmt: skip
        with contextlib.suppress(OSError):
            process.stdin.write(json.dumps(settings).encode() + b"\n")
            process.stdin.flush()
        try:
            ready = self._answers.get(timeout=_START)
        except queue.Empty:
            ready = b""
        if ready.strip() != _READY.encode():
            why = self._last_words()
            self._end()
            raise _unstarted(why)
        return process

    def _wait(self, process: subprocess.Popen[bytes], name: str) -> bytes:
        """The answer; else what became of the process is raised."""
        begun, used = time.monotonic(), _seconds(process.pid)
        while True:
            try:
                answer = self._answers.get(timeout=_LOOK)
            except queue.Empty:
                stop_if_asked()
                waited = time.monotonic() - begun
                problem, error = self._excess(process.pid, used), UnreadableError
                if not problem and waited > WAITING * self.seconds:
                    problem, error = (
                        f"it takes more than {WAITING * self.seconds:.0f} s",
                        UnreadYetError,
                    )
                if not problem:
                    continue
            else:
                if answer.endswith(b"\n"):
                    return answer
                problem, error = self._ended(process), UnreadYetError
            self._end()
            raise error(f"{name} can't be read: {problem}.", _LEAVE_OUT)

    def _excess(self, pid: int, used: float) -> str:
        """What of time or memory the process takes too much of; "" if nothing."""
        if _seconds(pid) - used > self.seconds:
            return f"it takes more than {self.seconds:.0f} s of computing"
        if _memory(pid) > self.memory:
            return f"it takes more than {size_of(self.memory)} of memory"
        return ""

    def _ended(self, process: subprocess.Popen[bytes]) -> str:
        try:
            code = process.wait(_END)
        except subprocess.TimeoutExpired:
            return "its reader gave no answer"
        words = self._last_words()
        return f"its reader crashed ({words or f'exit code {code}'})"

    def _last_words(self) -> str:
        if self._said is None:
            return ""
        self._said.seek(0)
        lines = self._said.read(1 << 20).decode("utf-8", "replace").strip().splitlines()
        fatal = next((line for line in lines if line.startswith("Fatal Python error:")), "")
        return shortened(fatal or (lines[-1] if lines else ""), 200)

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    if pipe is not None:
                        pipe.close()
        if self._said is not None:
            self._said.close()
        self._process = self._said = None


def _unstarted(why: str) -> RagtuneError:
    return RagtuneError(
        f"Documents are read in a process of its own, and {sys.executable} can't be started: {why}",
        "Is that a whole Python, with its standard library? Then is there memory for one more process?",
    )


def _listen(pipe: IO[bytes], answers: queue.SimpleQueue[bytes]) -> None:
    """Pass on each line; what has no line's end is the end of the process."""
    line = b"\n"
    while line.endswith(b"\n"):
        try:
            line = pipe.readline(_LONGEST)
        except (OSError, ValueError):  # it is being closed
            line = b""
        answers.put(line)


def _seconds(pid: int) -> float:
    try:
        used = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(used.user + used.system)


def _memory(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def _document(found: dict[str, Any]) -> Document:
    return Document(**{**found, "marks": tuple(Mark(**mark) for mark in found["marks"])})


# Within the process.


def main() -> None:
    """Read what is asked for, until nobody asks any more."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    faulthandler.enable()
    questions: BinaryIO = sys.stdin.buffer
    settings = json.loads(questions.readline())
    documents = Documents.model_validate(settings["documents"])
    if documents.reader == "auto":
        _limit_memory(settings["memory"])
    _say(answers, _READY)
    for line in questions:
        asked = json.loads(line)
        # Also if nobody is there any more to end it.
        faulthandler.dump_traceback_later(settings["seconds"] + _START, exit=True)
        found = _answer(Path(asked["path"]), asked["name"], documents)
        _say(answers, json.dumps(found, ensure_ascii=False))
        faulthandler.cancel_dump_traceback_later()


def _say(answers: BinaryIO, text: str) -> None:
    answers.write(text.encode("utf-8", "replace") + b"\n")
    answers.flush()


def _answer(path: Path, name: str, documents: Documents) -> dict[str, object]:
    try:
        found = read_file(path, Source(path, name), documents)
    except UnreadableError as error:
        momentary = isinstance(error, UnreadYetError)
        return _failure("moment" if momentary else "file", error.message, error.advice)
    except RagtuneError as error:
        return _failure("all", error.message, error.advice)
    except RecursionError:
        return _failure("file", f"{name} can't be read: it is nested too deeply.", _LEAVE_OUT)
    except BaseException as error:
        if is_out_of_memory(error):
            return _failure("file", f"{name} can't be read: it takes too much memory.", _LEAVE_OUT)
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        why = f"{type(error).__name__}: {shortened(first_line(error), 200)}"
        return _failure("file", f"{name} can't be read ({why}).", _LEAVE_OUT)
    return {"documents": [asdict(one) for one in found.documents], "encoding": found.encoding}


def _failure(of: str, message: str, advice: str) -> dict[str, object]:
    return {"of": of, "message": message, "advice": advice}


def _limit_memory(most: int) -> None:
    """Where the system can do it: between two looks from outside a file can take much."""
    if resource is None:
        return
    now = psutil.Process().memory_info().vms
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = now + most
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(
            resource.RLIMIT_AS,
            (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard),
        )
