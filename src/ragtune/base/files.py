"""Files that are either whole or not there, and their fingerprints."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Any, TypeVar

from ragtune.base.errors import RagtuneError, UsageError

T = TypeVar("T")

_SHOWN = 60
"""How much of a wrong path an error message shows, in characters."""
FORMAT = 1
"""Version of every JSON file that ragtune writes."""


# It can be read only by setting it, and is the same for the whole process.
_UMASK = os.umask(0)
os.umask(_UMASK)


Needed = int | Callable[[], int] | None
"""The bytes that something will take; or what tells how many it takes at least, asked when it failed."""


@contextlib.contextmanager
def full_disk(path: Path, needed: Needed = None) -> Iterator[None]:
    """Turn a full disk into a message with the path, the space left, and the bytes needed if known.

    What was half-written must still be there: that hardly anything is free is a sign.
    """
    try:
        yield
    except Exception as error:
        if not _is_full_disk(error, path):
            raise
        named = getattr(error, "filename", None)  # a download lies elsewhere than the run
        path = Path(named) if isinstance(named, str) else path
        how = "at least" if callable(needed) else "about"
        size = needed() if callable(needed) else needed
        words = f"{how} {size_of(size)} needed, " if size else ""
        raise RagtuneError(
            f"The disk is full: could not write {path} ({words}{_free(path) / _MIB:.0f} MiB free).",
            "Free some space: the same command then goes on from what is finished. "
            f"Or {_elsewhere(path, larger=True)}.",
        ) from error


def _is_full_disk(error: Exception, path: Path) -> bool:
    """Whether an error means a full disk; safetensors and torch have words of their own for it."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    text = str(error)
    if any(sign in text for sign in ("No space left on device", "os error 28", "os error 122")):
        return True
    # torch.save says only that it could not write; then hardly anything is free.
    unsaid = "inline_container" in text or "iostream error" in text
    return unsaid and _free(path) < 64 * _MIB


def _free(path: Path) -> int:
    return shutil.disk_usage(existing_parent(path)).free


def size_of(count: float) -> str:
    """Bytes in words: 12.3 GiB, 293 MiB, 4 KiB."""
    if count >= 2**30:
        return f"{count / 2**30:.1f} GiB"
    return f"{count / _MIB:.0f} MiB" if count >= _MIB else f"{-(-int(count) // 1024)} KiB"


@contextlib.contextmanager
def disk_errors(path: Path, needed: Needed = None) -> Iterator[None]:
    """Turn a full or lost disk, or a folder that can't be written or made, into a message."""
    try:
        with full_disk(path, needed):
            yield
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise RagtuneError(
                f"Not allowed to write {path} ({error.strerror}).",
                f"See that you may write there, or {_elsewhere(path)}.",
            ) from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            raise RagtuneError(
                f"Can't make the folder for {path}: {error.filename} is a file.",
                f"Move that file away, or {_elsewhere(path)}.",
            ) from error
        if error.errno == errno.ENOENT and _concerns(error.filename, path):
            raise RagtuneError(
                f"Could not write {path}: there is no {error.filename}, and it can't be made.",
                f"{_CONNECT} Otherwise {_elsewhere(path)}.",
            ) from error
        lost = lost_disk(error, path)
        if lost is None:
            raise
        raise lost from error


def _elsewhere(path: Path, *, larger: bool = False) -> str:
    """Where something that can't be written could be instead; `larger` if its disk is full."""
    for folder, variable in ((cache_dir(), "RAGTUNE_CACHE"), (_hub_cache(), "HF_HOME")):
        if path.absolute().is_relative_to(folder.absolute()):
            return f"set {variable} to a folder {'on a larger disk' if larger else 'elsewhere'}"
    if larger:
        return "move the run directory to a larger disk, and name it there with --run-dir"
    return "choose another run directory with --run-dir"


def lost_disk(error: Exception, path: Path | None = None) -> RagtuneError | None:
    """What an error means if a disk, or a Drive, is away, or can't have such a name; None otherwise."""
    if not isinstance(error, OSError):
        return None
    where = error.filename if isinstance(error.filename, str) else path
    if error.errno in _AWAY:
        return RagtuneError(
            f"{where or 'A file'} can't be reached any more ({error.strerror}).", _CONNECT
        )
    if error.errno == errno.ENAMETOOLONG:
        return RagtuneError(
            f"{_shortened(str(where))}: a name is too long for the file system.",
            "Choose a shorter one: the recipe's name, or another run directory with --run-dir.",
        )
    return None


_MIB = 2**20
_AWAY = (errno.ENOTCONN, errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO)
"""What a mounted Drive, a network's disk or a stick answers when it is gone."""
_CONNECT = (
    "If its disk or Drive went away, connect it again: the same command then goes on from what is "
    "finished."
)


def _concerns(name: Any, path: Path) -> bool:
    """Whether a file is `path`, in it, on the way to it, or its unfinished form."""
    if not isinstance(name, str):
        return False
    file = Path(name)
    unfinished = file.parent == path.parent and file.name.startswith(f".{path.name}.")
    return unfinished or file.is_relative_to(path) or path.is_relative_to(file)


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def named_path(text: str, key: str = "") -> Path:
    """The path that a user named.

    Args:
        text: it may begin with ~.
        key: the recipe's key that holds it, for the message.

    Raises:
        UsageError: no system could have it: too long, a user that isn't there.
    """
    try:
        path = Path(text).expanduser()
        path.exists()
    except (OSError, ValueError, RuntimeError) as error:
        problem = getattr(error, "strerror", None) or str(error).rstrip(".")
        where = f"{key}: " if key else ""
        raise UsageError(
            f"{where}{_shortened(text)!r} can't be a path ({problem}).", "Correct it."
        ) from None
    return path


def existing_parent(path: Path) -> Path:
    """The nearest folder on the way to `path` that exists."""
    path = path.absolute()
    while not _there(path):
        path = path.parent
    return path


def see_writable(folder: Path) -> None:
    """See that a folder can be written, or made; nothing is.

    Raises:
        RagtuneError: a file is in the way, or it is not allowed.
    """
    place = existing_parent(folder)
    with disk_errors(folder):
        if not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
        if not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))


def _there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long, a Drive that is gone
        return False


class _Counted(io.FileIO):
    """A file that knows how many bytes it has, or would have with those that it could not write."""

    needed = 0

    def write(self, data: Any) -> int:
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


def write_json(path: Path, value: dict[str, Any], *, shared: bool = False) -> None:
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


def cache_dir() -> Path:
    """Where downloads and converted models are kept between runs (`RAGTUNE_CACHE` moves it)."""
    named = os.environ.get("RAGTUNE_CACHE")
    if named:
        return Path(named).expanduser()
    return _user_cache() / "ragtune"


def _hub_cache() -> Path:
    """Where huggingface_hub and datasets keep what they download."""
    named = os.environ.get("HF_HOME")
    return Path(named).expanduser() if named else _user_cache() / "huggingface"


def _user_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return Path(base) if base else Path.home() / ".cache"
