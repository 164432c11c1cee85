"""Files that are either whole or not there, and their fingerprints."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from ragtune.base.disk import disk_errors
from ragtune.base.errors import RagtuneError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

T = TypeVar("T")

FORMAT = 1
"""Version of every JSON file that ragtune writes."""


# It can be read only by setting it, and is the same for the whole process.
_UMASK = os.umask(0)
os.umask(_UMASK)


class _Counted(io.FileIO):
    """A file that knows how many bytes it has, or would have with those that it could not write."""

    needed = 0

    def write(self, data: ReadableBuffer) -> int:
        self.needed = self.tell() + memoryview(data).nbytes
        return super().write(data)


@contextlib.contextmanager
def appending(path: Path) -> Iterator[IO[str]]:
    """Open a text file to put lines behind those that it has."""
    with _text(path, path, "a") as file:
        yield file


@contextlib.contextmanager
def writing(path: Path, *, shared: bool = False) -> Iterator[IO[str]]:
    """Open a text file for writing that appears under its name only when it is whole.

    If it is `shared`, others may write it at the same time: the last one counts.
    """
    # Where one writes alone, a name that stays the same: what a kill left is written over.
    partial = path.with_name(f".{path.name}.{f'{uuid.uuid4().hex}.' * shared}partial")
    try:
        with _text(partial, path, "w") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with disk_errors(path):
            partial.replace(path)
    except BaseException:  # Ctrl-C, too, leaves nothing half-written
        with contextlib.suppress(OSError):  # its folder could not be made
            partial.unlink()
        raise


@contextlib.contextmanager
def _text(path: Path, named: Path, mode: str) -> Iterator[IO[str]]:
    """Open a text file in UTF-8; if the disk is full, the message says how much it takes at least."""
    raw: _Counted | None = None
    with disk_errors(named, lambda: raw.needed if raw else 0):
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = _Counted(path, mode)
        with io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", newline="\n") as file:
            yield file


def write_json(path: Path, value: Mapping[str, object], *, shared: bool = False) -> None:
    """Write `value` as indented JSON, with `format` first; `shared` as of `writing`."""
    with writing(path, shared=shared) as file:
        json.dump({"format": FORMAT, **value}, file, ensure_ascii=False, indent=2)
        file.write("\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that ragtune wrote.

    Raises:
        RagtuneError: the file is damaged.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise RagtuneError(
            f"{path} can't be read: {error}.",
            "Delete it and run the same command again: the stage that makes it is then repeated.",
        ) from error
    if not isinstance(value, dict):
        raise RagtuneError(f"{path} holds no JSON object.", "Delete it and run the command again.")
    return value


def read_if_whole(path: Path) -> dict[str, Any]:
    """Read a JSON object that can be made again, or done without: {} where it isn't there, or damaged."""
    try:
        return read_json(path)
    except RagtuneError:
        return {}


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write one compact JSON object a line; return how many."""
    count = 0
    with writing(path) as file:
        for row in rows:
            file.write(json_line(row))
            count += 1
    return count


def json_line(row: dict[str, Any]) -> str:
    # A line separator inside a string would end the line for str.splitlines in other tools.
    text = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
    return (
        text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").replace("\x85", "\\u0085")
        + "\n"
    )


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Read the objects of a JSONL file that ragtune wrote.

    Raises:
        RagtuneError: a line is damaged.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                value = json.loads(line.decode("utf-8"))
            except (ValueError, RecursionError) as error:
                raise _damaged_line(path, number, str(error)) from error
            if not isinstance(value, dict):
                raise _damaged_line(path, number, "no object")
            yield value


def _damaged_line(path: Path, number: int, problem: str) -> RagtuneError:
    return RagtuneError(
        f"{path}:{number}: damaged line ({problem}).",
        "Delete the file and run the same command again.",
    )


@contextlib.contextmanager
def making_folder(path: Path, needed: int | None = None) -> Iterator[Path]:
    """Fill a folder under a temporary name; it gets its own name only when it is whole.

    Args:
        path: its own name; what is there stays until the new one is whole.
        needed: the bytes that it will take, for the message on a full disk.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with disk_errors(path, needed):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            yield partial
    except BaseException:  # Ctrl-C, too, leaves nothing half-written
        shutil.rmtree(partial, ignore_errors=True)
        raise
    with disk_errors(path):
        for file in partial.rglob("*"):
            if file.is_file():
                # safetensors makes its files readable for their owner alone.
                file.chmod(0o666 & ~_UMASK)
        old = path.with_name(f".{path.name}.old")
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
            path.replace(old)
        partial.replace(path)
        shutil.rmtree(old, ignore_errors=True)  # one that a kill left, too


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_AT_A_TIME = threading.Semaphore(4)


def later(work: Callable[[], T]) -> Future[T]:
    """Do something beside everything else, a few such at a time; the end of the program does not wait."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            with _AT_A_TIME:
                future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - whoever asks for the result gets it
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
