"""Folders and disks: full, gone, not to be written, and what that means to the user."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from ragtune.base.errors import CONNECT, RagtuneError, UsageError, lost_disk
from ragtune.base.text import shortened, size_of

_MIB = 2**20


class ReadOnlyError(RagtuneError):
    """A place that may be read only: what is finished there can still be looked at."""


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
    """Whether an error means a full disk; safetensors, torch and numpy have words of their own for it."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    text = str(error)
    if any(sign in text for sign in ("No space left on device", "os error 28", "os error 122")):
        return True
    # torch.save and numpy's tofile say only that they could not write; then hardly anything is free.
    unsaid = any(s in text for s in ("inline_container", "iostream error", " requested and "))
    return unsaid and _free(path) < 64 * _MIB


def _free(path: Path) -> int:
    return shutil.disk_usage(existing_parent(path)).free


@contextlib.contextmanager
def disk_errors(path: Path, needed: Needed = None) -> Iterator[None]:
    """Turn a full or lost disk, or a folder that can't be written or made, into a message."""
    try:
        with full_disk(path, needed):
            yield
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise ReadOnlyError(
                f"Not allowed to write {path} ({error.strerror}).",
                f"See that you may write there, or {_elsewhere(path)}.",
            ) from error
        if error.errno == errno.ELOOP:
            raise RagtuneError(
                f"{error.filename} is a link, through which nothing is written.",
                f"Remove it, or put there what it leads to; or {_elsewhere(path)}.",
            ) from error
        if error.errno == errno.EISDIR:
            raise RagtuneError(
                f"Could not write {path}: a folder has this name.",
                f"Move that folder away, or {_elsewhere(path)}.",
            ) from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            raise RagtuneError(
                f"Can't make the folder for {path}: {error.filename} is a file.",
                f"Move that file away, or {_elsewhere(path)}.",
            ) from error
        if error.errno == errno.ENOENT and _concerns(error.filename, path):
            raise RagtuneError(
                f"Could not write {path}: there is no {error.filename}, and it can't be made.",
                f"{CONNECT} Otherwise {_elsewhere(path)}.",
            ) from error
        lost = _too_large(error, path) or lost_disk(error, path)
        if lost is None:
            raise
        raise lost from error


def _too_large(error: OSError, path: Path) -> RagtuneError | None:
    """What it means that a file can't grow; of one that is too large to be read the name is given."""
    if error.errno != errno.EFBIG or error.filename is not None:
        return None
    return RagtuneError(
        f"Could not write {path}: {error.strerror}.",
        "A disk in FAT32 takes files of less than 4 GiB, and `ulimit -f` may allow less: "
        f"{_elsewhere(path, larger=True)}, or raise the limit.",
    )


def _elsewhere(path: Path, *, larger: bool = False) -> str:
    """Where something that can't be written could be instead; `larger` if its disk is full."""
    for folder, variable in ((cache_dir(), "RAGTUNE_CACHE"), (_hub_cache(), "HF_HOME")):
        if path.absolute().is_relative_to(folder.absolute()):
            return f"set {variable} to a folder {'on a larger disk' if larger else 'elsewhere'}"
    if larger:
        return "move the run directory to a larger disk, and name it there with --run-dir"
    return "choose another run directory with --run-dir (for a corpus, another --folder)"


def _concerns(name: object, path: Path) -> bool:
    """Whether a file is `path`, in it, on the way to it, or its unfinished form."""
    if not isinstance(name, str):
        return False
    file = Path(name)
    unfinished = file.parent == path.parent and file.name.startswith(f".{path.name}.")
    return unfinished or file.is_relative_to(path) or path.is_relative_to(file)


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
            f"{where}{shortened(text)!r} can't be a path ({problem}).", "Correct it."
        ) from None
    return path


def existing_parent(path: Path) -> Path:
    """The nearest folder on the way to `path` that exists."""
    path = path.absolute()
    while not _there(path):
        path = path.parent
    return path


def require_writable(folder: Path) -> None:
    """Raise unless a folder can be written, or made; nothing is.

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
