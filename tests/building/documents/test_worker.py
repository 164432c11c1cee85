"""A file that crashes its reader, never ends or takes all memory is an error of its own; the next is read."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.building.documents import worker as module
from ragtune.building.documents.document import Document, Mark, UnreadableError
from ragtune.building.documents.source import Source
from ragtune.building.documents.worker import Worker
from ragtune.recipe.corpus import Documents

STAND_IN = '''
"""Python imports this first in the process; what a text says then happens to its reader."""
import os, time
def install():
    from ragtune.base.errors import UsageError
    from ragtune.building.documents import text
    plain = text.read_text
    def deep(n): return deep(n + 1)
    def read_text(content, name):
        what = content.strip()
        if what == "crash": os.abort()
        if what == "exit": os._exit(3)
        if what == "loop":
            while True: pass
        if what == "sleep": time.sleep(600)
        if what == "memory": bytearray(64 << 30)
        if what == "slow memory":
            held = [bytearray(b"x" * (8 << 20)) for _ in range(60)]
            time.sleep(600)  # until somebody looks, and within what the system allows
        if what == "deep": deep(0)
        if what == "bug": raise KeyError("a bug of a library")
        if what == "print": print("not an answer"); os.write(1, b"nor this\\\\n")
        if what == "missing": raise UsageError("Reading needs x.", "Run: pip install x")
        if what == "large": return plain("x" * (30 << 20), name)
        return plain(content, name)
    text.read_text = read_text
try:
    install()
except ImportError:
    pass  # another process of the test's
'''


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    folder = tmp_path_factory.mktemp("stand-in")
    src = Path(__file__).parents[3] / "src"
    (folder / "sitecustomize.py").write_text(STAND_IN.replace("\\\\n", "\\n"), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(src), *sys.path]))
        with Worker(Documents(files=["x"])) as made:
            yield made


def read(worker: Worker, path: Path, content: str | bytes) -> list[Document]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return worker.read(path, Source(path, path.name)).documents


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.txt"


def test_what_is_read_comes_back_whole(worker: Worker, tmp_path: Path) -> None:
    text = '# 見出し "x" \\ \u2028 \ufffd 𠮷\n\ntext\n'
    heading = '見出し "x" \\ \ufffd 𠮷'  # in one line
    path = tmp_path / "a.md"
    assert read(worker, path, text) == [
        Document("a.md", "a.md", text[2:].partition("\n")[0], text, (Mark(0, None, heading),))
    ]
    assert worker.read(path, Source(path, "a.md")).encoding == "utf-8"
    assert len(read(worker, tmp_path / "a.txt", "large")[0].text) == 30 << 20


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("crash", "its reader crashed (Fatal Python error: Aborted)"),
        ("exit", "its reader crashed (exit code 3)"),
        ("deep", "it is nested too deeply"),
        ("bug", "(KeyError: 'a bug of a library')"),
        ("memory", "it takes too much memory"),
        ("", "a.txt is empty"),
    ],
)  # fmt: skip
def test_it_happens_to_this_file_alone(
    worker: Worker, path: Path, content: str, reason: str
) -> None:
    with pytest.raises(UnreadableError) as raised:
        read(worker, path, content)
    assert raised.value.message.startswith("a.txt")
    assert reason in raised.value.message
    assert raised.value.advice
    assert read(worker, path, "fine")[0].text == "fine"


@pytest.mark.parametrize(("content", "reason"), [("loop", "1 s of computing"), ("sleep", "5 s")])
def test_what_never_ends(
    worker: Worker, path: Path, content: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(worker, path, "fine")
    begun = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr(worker, "seconds", 1.0)
        if content == "loop":  # which a busy machine lets compute only now and then
            patch.setattr(module, "WAITING", 50)
        with pytest.raises(
            UnreadableError, match=rf"a\.txt can't be read: it takes more than {reason}\."
        ):
            read(worker, path, content)
    assert time.monotonic() - begun < 60
    assert read(worker, path, "fine")[0].text == "fine"


def test_memory_is_also_watched_from_outside(
    worker: Worker, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the system limits none."""
    read(worker, path, "fine")
    monkeypatch.setattr(worker, "memory", 400 << 20)
    with pytest.raises(UnreadableError, match="it takes more than 400 MiB of memory"):
        read(worker, path, "slow memory")


def test_what_libraries_print_is_no_answer(worker: Worker, path: Path) -> None:
    assert read(worker, path, "print")[0].text == "print"


def test_a_missing_library_is_no_fault_of_the_file(worker: Worker, path: Path) -> None:
    with pytest.raises(UsageError, match=r"Reading needs x\.") as raised:
        read(worker, path, "missing")
    assert not isinstance(raised.value, UnreadableError)


def test_one_process_reads_many_files_and_is_gone_at_the_end(path: Path) -> None:
    with Worker(Documents(files=["x"])) as worker:
        read(worker, path, "a")
        assert worker._process is not None
        pid = worker._process.pid
        read(worker, path, "b")
        assert worker._process.pid == pid
    assert not psutil.pid_exists(pid)


def test_it_ends_with_the_program_that_began_it(path: Path) -> None:
    path.write_text("x", "utf-8")
    with Worker(Documents(files=["x"])) as worker:
        worker.read(path, Source(path, "a.txt"))
        process = worker._process
        assert process is not None
        assert process.stdin is not None
        process.stdin.close()  # as the system does it
        assert process.wait(30) == 0


def test_a_python_that_is_none(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setattr("sys.executable", str(path))
    with (
        pytest.raises(RagtuneError, match="can't be started"),
        Worker(Documents(files=["x"])) as worker,
    ):
        worker.read(path, Source(path, "a.txt"))


def test_tokens_are_not_passed_on(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 34)
    path.write_text("x", "utf-8")
    with Worker(Documents(files=["x"])) as worker:
        worker.read(path, Source(path, "a.txt"))
        assert worker._process is not None
        assert "HF_TOKEN" not in psutil.Process(worker._process.pid).environ()
