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
from ragtune.base.errors import RagtuneError, no_thread
from ragtune.base.reading import no_links, open_plain, read_text
from ragtune.base.screen.activity import BYTES
from ragtune.base.text import size_of
from ragtune.base.windows import rename

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

T = TypeVar("T")

FORMAT = 1
"""Version of every JSON file that ragtune writes."""

MAX_JSON = 64 << 20
"""Bytes of the largest JSON file that is read."""
MAX_LINE = 256 << 20
"""Bytes of the longest line of a JSONL file of ragtune's own: one record, written again."""

_LARGE, _AT_ONCE = 2**26, 2**20
"""Bytes of a file the reading of which may take its time, and of a piece of it, read or written."""
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
    """Open a text file to put lines behind those that it has.

    Another name that the file has (a hard link) keeps what it has: a copy takes the place of this one.
    """
    with disk_errors(path):
        _let_alone(path)
    with _text(path, path, "a") as file:
        yield file


def truncate(path: Path, size: int) -> None:
    """Leave the first `size` bytes of a file; another name that it has keeps all of it."""
    with disk_errors(path):
        _let_alone(path)
        os.truncate(path, size)


def whole_lines(path: Path, longest: int = MAX_LINE) -> Iterator[bytes]:
    """The whole lines of a file that grows by lines, if it is there; a half-written last one is cut off.

    A line of more than `longest` bytes can only be what a broken disk makes of a file: it ends there.
    """
    if not path.exists():
        return
    whole = 0
    with open_plain(path) as file:
        while (line := file.readline(longest)).endswith(b"\n"):
            whole += len(line)
            yield line
    if line:
        truncate(path, whole)  # not written anew: on a full disk that would lose it


def _let_alone(path: Path) -> None:
    """Put a copy in the place of a file that has another name elsewhere (a hard link)."""
    if path.is_symlink() or not path.exists() or path.stat().st_nlink == 1:
        return
    partial = _partial(path)
    remove(partial)
    with open_plain(path) as file, partial.open("xb") as copy:
        shutil.copyfileobj(file, copy)
    rename(partial, path)


def remove(path: Path) -> None:
    """Remove a file, a folder with all that is in it, or a link, which is not followed; or nothing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _partial(path: Path, more: str = "") -> Path:
    """Where something is written until it is whole."""
    return path.with_name(f".{path.name}.{more}partial")


@contextlib.contextmanager
def writing(path: Path, *, shared: bool = False) -> Iterator[IO[str]]:
    """Open a text file for writing that appears under its name only when it is whole.

    If it is `shared`, others may write it at the same time: the last one counts.
    """
    # Where one writes alone, a name that stays the same: what a kill left is removed, never opened.
    partial = _partial(path, f"{uuid.uuid4().hex}." * shared)
    try:
        with disk_errors(path):
            remove(partial)
        with _text(partial, path, "x", _AT_ONCE) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with disk_errors(path):
            rename(partial, path)
    except BaseException:  # Ctrl-C, too, leaves nothing half-written
        with contextlib.suppress(OSError):  # its folder could not be made
            partial.unlink()
        raise


@contextlib.contextmanager
def _text(
    path: Path, named: Path, mode: str, at_once: int = io.DEFAULT_BUFFER_SIZE
) -> Iterator[IO[str]]:
    """Open a text file in UTF-8; if the disk is full, the message says how much it takes at least.

    Args:
        path: that is opened.
        named: the path that messages name.
        mode: of opening it.
        at_once: bytes that are written together.
    """
    raw: _Counted | None = None
    with disk_errors(named, lambda: raw.needed if raw else 0):
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = _Counted(path, mode, opener=no_links)
        with io.TextIOWrapper(
            io.BufferedWriter(raw, at_once), encoding="utf-8", newline="\n"
        ) as file:
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
        value = json.loads(read_text(path, MAX_JSON))
    except (ValueError, OSError, RecursionError) as error:
        problem = getattr(error, "strerror", None) or error
        raise RagtuneError(
            f"{path} can't be read: {problem}.",
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


_REPEAT = "Delete the file and run the same command again."


def read_jsonl(path: Path, advice: str = _REPEAT) -> Iterator[dict[str, Any]]:
    """Read the objects of a JSONL file, by default one that ragtune wrote.

    Raises:
        RagtuneError: a line is damaged.
    """
    with open_plain(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE + 1), b""), 1):
            if len(line) > MAX_LINE:
                raise _damaged_line(path, number, f"more than {size_of(MAX_LINE)}", advice)
            try:
                value = json.loads(line.decode("utf-8"))
            except (ValueError, RecursionError) as error:
                raise _damaged_line(path, number, str(error), advice) from error
            if not isinstance(value, dict):
                raise _damaged_line(path, number, "no object", advice)
            yield value


def _damaged_line(path: Path, number: int, problem: str, advice: str) -> RagtuneError:
    return RagtuneError(f"{path}:{number}: damaged line ({problem}).", advice)


@contextlib.contextmanager
def making_folder(path: Path, needed: int | None = None) -> Iterator[Path]:
    """Fill a folder under a temporary name; it gets its own name only when it is whole.

    Args:
        path: its own name; what is there stays until the new one is whole.
        needed: the bytes that it will take, for the message on a full disk.
    """
    partial = _partial(path)
    try:
        with disk_errors(path, needed):
            remove(partial)
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
        if path.exists() or path.is_symlink():
            remove(old)
            rename(path, old)
        rename(partial, path)
        with contextlib.suppress(OSError):  # one that a kill left, too
            remove(old)


_REMEMBERED: dict[tuple[int, ...], str] = {}
"""Digests of files that were made while they were written."""


def remember(path: Path, digest: str) -> None:
    """Let `sha256` know a file that was written just now: it need not read it, once."""
    _REMEMBERED[_identity(path.stat())] = digest


def _identity(stat: os.stat_result) -> tuple[int, ...]:
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    from ragtune.base.screen.progress import busy  # noqa: PLC0415 - it loads rich, which --help does without

    with open_plain(path) as file:
        stat = os.fstat(file.fileno())
        if known := _REMEMBERED.pop(_identity(stat), None):
            return known
        size = stat.st_size
        if size < _LARGE:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()
        with busy(f"checksum of {path.name}", size, unit=BYTES) as update:
            while part := file.read(_AT_ONCE):
                digest.update(part)
                update(file.tell())
        return digest.hexdigest()


_AT_A_TIME = threading.Semaphore(max(2, min(8, os.cpu_count() or 1)))
"""A core makes the checksum of some 1.8 GB a second (AMD EPYC), and a disk may be faster."""


def later(work: Callable[[], T]) -> Future[T]:
    """Do something beside everything else, a few such at a time; the end of the program does not wait.

    Where the system refuses a thread it is done at once.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            with _AT_A_TIME:
                future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - whoever asks for the result gets it
            future.set_exception(error)

    try:
        threading.Thread(target=run, daemon=True).start()
    except RuntimeError as error:
        if not no_thread(error):
            raise
        run()
    return future
