"""The AI王 data of llm-book/aio-retriever: the two release files that its script read.

Current versions of `datasets` run no scripts, so the files are fetched from where the script had
them: release v1.0.0 of cl-tohoku/quiz-datasets. Questions: AI王 (CC BY-SA 4.0); passages: Japanese
Wikipedia (CC BY-SA 3.0).
"""

from __future__ import annotations

import gzip
import os
import re
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import httpx

from ragtune.base.disk import cache_dir, disk_errors
from ragtune.base.errors import RagtuneError
from ragtune.base.lock import making
from ragtune.base.reading import no_links
from ragtune.base.screen.console import warn
from ragtune.base.web.answers import AnswerError, bound, check_head, watch
from ragtune.base.web.network import PASSING, require_network
from ragtune.base.windows import rename
from ragtune.store.seal import cached, seal, unchanged

BASE_URL = "https://github.com/cl-tohoku/quiz-datasets/releases/download/v1.0.0"
FILES = {
    "train": "datasets.jawiki-20220404-c400-large.aio_02_train.jsonl.gz",
    "eval": "datasets.jawiki-20220404-c400-large.aio_02_dev.jsonl.gz",
}
ATTEMPTS = 5
PAUSE = 2.0
"""Seconds before the second attempt; one more of them before each later one."""


def is_there(split: str) -> bool:
    """Whether a split has been downloaded."""
    return _path(split).exists()


def _path(split: str) -> Path:
    return cache_dir() / "aio" / FILES[split]


def fetch(
    split: str, tick: Callable[[int, int], None] = lambda *_: None, base_url: str | None = None
) -> Path:
    """The path of a split's file, downloaded into the cache if it is not there yet.

    A broken download goes on where it stopped, also in a later call. The file gets its name only
    after its size and its gzip checksum have been found right; one that was damaged since is set
    aside and downloaded again. Of two processes one downloads, and the other waits for it.

    Args:
        split: train or eval.
        tick: called with the bytes so far and the total.
        base_url: where the two files lie; by default the release, or `RAGTUNE_AIO_URL` (a mirror).

    Raises:
        RagtuneError: the server can't be reached or sends something else.
    """
    name = FILES[split]
    path = _path(split)
    if unchanged(path):
        return path
    with making(path):
        if not cached(path):
            require_network(f"{name} has to be downloaded")
            base = base_url or os.environ.get("RAGTUNE_AIO_URL", BASE_URL)
            download(f"{base.rstrip('/')}/{name}", path, tick)
    return path


def download(url: str, path: Path, tick: Callable[[int, int], None]) -> None:
    """Stream `url` to `path`, resuming a partial file, and check size and gzip integrity."""
    partial = path.with_name(f"{path.name}.partial")
    manual = f"Download it by hand from {url} and give its path as data.train or data.eval."
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                _stream(url, partial, tick)
                break
            except httpx.HTTPStatusError as error:
                code = error.response.status_code
                if code not in PASSING or attempt == ATTEMPTS:
                    raise RagtuneError(f"{url}: the server answered {code}.", manual) from None
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                if attempt == ATTEMPTS:
                    raise RagtuneError(
                        f"{url}: {type(error).__name__}: {error}. What came so far is kept.",
                        f"Check the network and run the same command again. Or: {manual}",
                    ) from None
            except AnswerError as error:
                raise RagtuneError(f"{url}: {error}", manual) from None
            warn(
                f"{url} does not come: trying again in {PAUSE * attempt:.0f} s ({attempt} of {ATTEMPTS - 1})."
            )
            time.sleep(PAUSE * attempt)
        problem = gzip_problem(partial)
        if problem:
            partial.unlink()
            raise RagtuneError(f"{url}: what came is damaged ({problem}); it was deleted.", manual)
        rename(partial, path)
        seal(path)


def _stream(url: str, partial: Path, tick: Callable[[int, int], None]) -> None:
    have = partial.stat().st_size if partial.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    # The body is stored as it comes: httpx must not unpack what a server labels Content-Encoding.
    headers["Accept-Encoding"] = "identity"
    hooks = {"response": [check_head, bound]}
    client = httpx.Client(event_hooks=hooks, follow_redirects=True, timeout=30)
    how = {"trace": watch, "whole": False}
    with client, client.stream("GET", url, headers=headers, extensions=how) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            size = re.fullmatch(r"bytes \*/(\d+)", response.headers.get("Content-Range", ""))
            if size and int(size[1]) == have:
                return  # it was complete already
            partial.unlink()
            raise httpx.ReadError("the partial file did not fit and was deleted")
        response.raise_for_status()
        resumed = response.status_code == httpx.codes.PARTIAL_CONTENT
        have = have if resumed else 0
        total = _total(response, have)
        missing = total - have if total else None
        mode = "ab" if resumed else "wb"
        with disk_errors(partial, missing), open(partial, mode, opener=no_links) as file:
            tick(have, total)
            for chunk in response.iter_raw():  # in larger pieces a cut would lose the last one
                file.write(chunk)
                have += len(chunk)
                tick(have, total)
        if total and have != total:
            raise httpx.ReadError(f"the connection ended after {have} of {total} bytes")


def _total(response: httpx.Response, have: int) -> int:
    """The size of the whole file, or 0 where the server does not tell."""
    whole = re.fullmatch(r"bytes .*/(\d+)", response.headers.get("Content-Range", ""))
    if whole:  # a server may send less than was asked for
        return int(whole[1])
    length = response.headers.get("Content-Length")
    return have + int(length) if length else 0


def gzip_problem(path: Path) -> str | None:
    """What is wrong with a gzip file, or None; reads all of it, checksum included."""
    try:
        with gzip.open(path) as file:
            while file.read(1 << 20):
                pass
        if path.stat().st_size == 0:  # to gzip nothing is as good as a whole file
            return "it is empty"
    except (OSError, EOFError, zlib.error) as error:
        return str(error)
    return None
