from __future__ import annotations

import contextlib
import gzip
import os
import random
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ragtune.base.errors import RagtuneError
from ragtune.data import aio
from ragtune.data.aio import FILES, download, fetch, gzip_problem

WHOLE = gzip.compress(random.Random(0).randbytes(300_000))
SIZE = len(WHOLE)


class Handler(BaseHTTPRequestHandler):
    """Sends `content`, from where it is asked to; each request may first take a turn of `script`."""

    protocol_version = "HTTP/1.1"
    content = WHOLE
    script: list[Callable[[Handler], None]]
    requests: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.requests.append((self.path, self.headers.get("Range")))
        self.close_connection = True
        turn = self.script.pop(0) if self.script else Handler.serve
        turn(self)

    def serve(
        self, *, upto: int | None = None, most: int | None = None, length: bool = True
    ) -> None:
        """The rest of the file.

        Cut after byte `upto` of the file, though the rest was promised; or no more than `most` bytes
        promised at a time; or of a length that is not told.
        """
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        if start >= len(self.content):
            return self.refuse(416, f"bytes */{len(self.content)}")
        body = self.content[start:][:most]
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header(
                "Content-Range", f"bytes {start}-{start + len(body) - 1}/{len(self.content)}"
            )
        if length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if upto is None else body[: max(0, upto - start)])
        return None

    def refuse(self, code: int, content_range: str | None = None) -> None:
        self.send_response(code)
        if content_range:
            self.send_header("Content-Range", content_range)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def serve_whole(self) -> None:
        """As a server that knows no Range."""
        del self.headers["Range"]
        self.serve()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass


def cut(upto: int) -> Callable[[Handler], None]:
    return lambda handler: handler.serve(upto=upto)


def refuse(code: int) -> Callable[[Handler], None]:
    return lambda handler: handler.refuse(code)


@pytest.fixture
def handler() -> type[Handler]:
    return type("Served", (Handler,), {"script": [], "requests": []})


@pytest.fixture
def url(handler: type[Handler], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/file.gz"
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made; nobody waits for them."""
    made: list[float] = []
    monkeypatch.setattr(aio.time, "sleep", made.append)
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "file.gz"


def partial(path: Path) -> Path:
    return path.with_name("file.gz.partial")


def put_partial(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    partial(path).write_bytes(content)


def no_tick(*_: int) -> None:
    pass


def failure(url: str, path: Path) -> str:
    with pytest.raises(RagtuneError) as caught:
        download(url, path, no_tick)
    assert not path.exists()
    assert url in caught.value.message
    assert f"Download it by hand from {url} and give its path as data.train or data.eval." in str(
        caught.value
    )
    return str(caught.value)


def test_whole_file(url: str, handler: type[Handler], path: Path) -> None:
    ticks: list[tuple[int, int]] = []
    download(url, path, lambda *at: ticks.append(at))
    assert path.read_bytes() == WHOLE
    assert sorted(p.name for p in path.parent.iterdir()) == ["file.gz", "file.gz.manifest.json"]
    assert handler.requests == [("/file.gz", None)]
    assert ticks[-1] == (SIZE, SIZE)
    assert {total for _, total in ticks} == {SIZE}
    assert sorted(ticks) == ticks


def test_cut_and_resumed_in_the_same_call(
    url: str, handler: type[Handler], path: Path, pauses: list[float]
) -> None:
    handler.script += [cut(100_000), cut(200_000)]
    ticks: list[tuple[int, int]] = []
    download(url, path, lambda *at: ticks.append(at))
    assert path.read_bytes() == WHOLE
    assert [wanted for _, wanted in handler.requests] == [None, "bytes=100000-", "bytes=200000-"]
    assert ticks[-1] == (SIZE, SIZE)
    assert {total for _, total in ticks} == {SIZE}
    assert pauses == [2.0, 4.0]


def test_resumed_in_a_later_call(
    url: str, handler: type[Handler], path: Path, pauses: list[float]
) -> None:
    handler.script += [cut(50_000)] * aio.ATTEMPTS
    text = failure(url, path)
    assert "RemoteProtocolError" in text
    assert "What came so far is kept.\nCheck the network and run the same command again." in text
    assert partial(path).read_bytes() == WHOLE[:50_000]
    assert len(handler.requests) == aio.ATTEMPTS == 5
    assert pauses == [2.0, 4.0, 6.0, 8.0]
    download(url, path, no_tick)
    assert path.read_bytes() == WHOLE
    assert handler.requests[-1] == ("/file.gz", "bytes=50000-")
    assert not partial(path).exists()


def test_stopped_by_the_user(url: str, handler: type[Handler], path: Path) -> None:
    handler.script += [lambda h: h.serve(most=50_000)]

    def stop(have: int, _: int) -> None:
        if have:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(url, path, stop)
    kept = partial(path).stat().st_size
    assert kept > 0
    download(url, path, no_tick)
    assert path.read_bytes() == WHOLE
    assert handler.requests[-1][1] == f"bytes={kept}-"


def test_server_that_ignores_range(url: str, handler: type[Handler], path: Path) -> None:
    handler.script += [cut(100_000), Handler.serve_whole]
    download(url, path, no_tick)
    assert path.read_bytes() == WHOLE


def test_server_that_sends_a_part_at_a_time(url: str, handler: type[Handler], path: Path) -> None:
    """What it sends ends where it said, but that is not the file's end."""
    put_partial(path, WHOLE[:50_000])
    handler.script += [lambda h: h.serve(most=100_000)]
    download(url, path, no_tick)
    assert path.read_bytes() == WHOLE
    assert [wanted for _, wanted in handler.requests] == ["bytes=50000-", "bytes=150000-"]


@pytest.mark.parametrize("have", [0, 50_000])
def test_server_that_tells_no_length(
    url: str, handler: type[Handler], path: Path, have: int
) -> None:
    put_partial(path, WHOLE[:have])
    handler.script += [lambda h: h.serve(length=False)]
    download(url, path, no_tick)
    assert path.read_bytes() == WHOLE
    assert len(handler.requests) == 1


def test_partial_file_was_whole(url: str, handler: type[Handler], path: Path) -> None:
    put_partial(path, WHOLE)
    download(url, path, no_tick)
    assert path.read_bytes() == WHOLE
    assert len(handler.requests) == 1


def test_partial_file_longer_than_the_file(url: str, handler: type[Handler], path: Path) -> None:
    put_partial(path, WHOLE + b"more")
    download(url, path, no_tick)
    assert path.read_bytes() == WHOLE
    assert [wanted for _, wanted in handler.requests] == [f"bytes={SIZE + 4}-", None]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"<html>please log in</html>", r"Not a gzipped file (b'<h')"),
        (WHOLE[:-10_000], "Compressed file ended before the end-of-stream marker was reached"),
        (WHOLE[:-8] + b"\0\0\0\0" + WHOLE[-4:], "CRC check failed"),
        (b"", "it is empty"),
    ],
    ids=["html", "cut", "checksum", "empty"],
)
def test_damaged(
    url: str, handler: type[Handler], path: Path, content: bytes, problem: str
) -> None:
    handler.content = content
    handler.script += [Handler.serve_whole] if content else [refuse(200)]
    text = failure(url, path)
    assert f"what came is damaged ({problem}" in text
    assert "it was deleted" in text
    assert list(path.parent.iterdir()) == []
    handler.content = WHOLE
    download(url, path, no_tick)
    assert path.read_bytes() == WHOLE


def test_partial_file_of_another_version(url: str, path: Path) -> None:
    put_partial(path, os.urandom(50_000))
    assert "damaged" in failure(url, path)
    assert list(path.parent.iterdir()) == []


def test_not_found(url: str, handler: type[Handler], path: Path) -> None:
    handler.script += [refuse(404)]
    assert failure(url, path).startswith(f"{url}: the server answered 404.\n")
    assert len(handler.requests) == 1  # asking again would not help


@pytest.mark.parametrize("code", [429, 503])
def test_trouble_that_passes(
    url: str, handler: type[Handler], path: Path, pauses: list[float], code: int
) -> None:
    handler.script += [refuse(code)]
    download(url, path, no_tick)
    assert path.read_bytes() == WHOLE
    assert pauses == [2.0]


def test_trouble_that_stays(url: str, handler: type[Handler], path: Path) -> None:
    put_partial(path, WHOLE[:50_000])
    handler.script += [refuse(503)] * aio.ATTEMPTS
    assert failure(url, path).startswith(f"{url}: the server answered 503.\n")
    assert len(handler.requests) == aio.ATTEMPTS
    assert partial(path).read_bytes() == WHOLE[:50_000]


def test_an_answer_without_an_end(
    url: str, handler: type[Handler], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is it told how long it is, nor does it end; and of a bomb nothing is unpacked."""
    monkeypatch.setattr("ragtune.base.web.answers.MAX_ANSWER", 1 << 20)
    sent = []

    def endless(self: Handler) -> None:
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):
            while len(sent) < 10_000:
                self.wfile.write(b"x" * 65536)
                sent.append(1)

    def packed(self: Handler) -> None:
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.end_headers()

    handler.script = [endless]
    with pytest.raises(
        RagtuneError, match=r"sent more than the 1 MiB that it may\.\nDownload it by hand"
    ):
        download(url, path, lambda *_: None)
    assert len(sent) < 200
    handler.script = [packed]
    with pytest.raises(RagtuneError, match=r"sent an answer that is compressed"):
        download(url, path, lambda *_: None)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/file.gz", "mirror/file.gz", "http://[/file.gz"]
)
def test_server_that_is_not_there(url: str, path: Path) -> None:
    assert "What came so far is kept.\nCheck the network" in failure(url, path)


def test_fetch_keeps_the_file(
    url: str, handler: type[Handler], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAGTUNE_CACHE", str(tmp_path))
    monkeypatch.setenv("RAGTUNE_AIO_URL", url.replace("file.gz", "mirror/"))
    for split in ("train", "eval", "train"):
        assert fetch(split) == tmp_path / "aio" / FILES[split]
        assert fetch(split).read_bytes() == WHOLE
    assert [where for where, _ in handler.requests] == [
        f"/mirror/{FILES[s]}" for s in ("train", "eval")
    ]


def test_fetch_from_the_release_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAGTUNE_CACHE", str(tmp_path))
    monkeypatch.delenv("RAGTUNE_AIO_URL", raising=False)
    asked: list[str] = []
    monkeypatch.setattr(aio, "download", lambda url, *_: asked.append(url))
    fetch("eval")
    fetch("eval", base_url="http://127.0.0.1/x")
    name = "datasets.jawiki-20220404-c400-large.aio_02_dev.jsonl.gz"
    release = "https://github.com/cl-tohoku/quiz-datasets/releases/download/v1.0.0"
    assert asked == [f"{release}/{name}", f"http://127.0.0.1/x/{name}"]


def test_gzip_problem_of_a_whole_file(tmp_path: Path) -> None:
    (tmp_path / "x.gz").write_bytes(WHOLE)
    assert gzip_problem(tmp_path / "x.gz") is None


TWO = """
import sys, time
from pathlib import Path
from ragtune.base import lock
from ragtune.data import aio

say, waits, end = lock.note, Path(sys.argv[1]), time.monotonic() + 100

def note(words):
    say(words)
    if "waiting for it" in words:
        waits.touch()

def until_another_waits(*_):
    while not waits.exists():
        assert time.monotonic() < end
        time.sleep(0.01)

lock.note = note
print(len(aio.fetch("eval", until_another_waits).read_bytes()))
"""


def test_two_processes_that_need_the_same_file_download_it_once(
    url: str, handler: type[Handler], tmp_path: Path
) -> None:
    environment = os.environ | {
        "RAGTUNE_CACHE": str(tmp_path / "cache"),
        "RAGTUNE_AIO_URL": url.rpartition("/")[0],
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWO, str(tmp_path / "waits")],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
        )
        for _ in range(3)
    ]  # fmt: skip
    said = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    assert all(words.splitlines()[-1] == str(SIZE) for words in said)
    assert len(handler.requests) == 1
    assert sum("waiting for it" in words for words in said) >= 1
    names = sorted(p.name for p in (tmp_path / "cache" / "aio").iterdir())
    assert names == [FILES["eval"], f"{FILES['eval']}.manifest.json"]
