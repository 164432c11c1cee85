"""One run at a time in a run directory: a lease of filelock's, renewed while the run is at work.

Made for any file system, a mounted Drive included: it takes neither flock nor hard links, and compares no
clocks. A lock whose process is gone is taken over at once, one of another machine when it was watched for
as long as a lease lasts and was not renewed. filelock decides that, and does it; what is said is ours.
"""

from __future__ import annotations

import errno
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from filelock import LeaseCompromise, LeaseSettingsMismatch, SoftFileLease, Timeout

from ragtune.base.disk import disk_errors
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.reading import no_links, read_bytes
from ragtune.base.screen.console import note, warn
from ragtune.base.screen.progress import busy
from ragtune.base.stopping import finishing

LEASE = 60.0
"""Seconds without a sign of life after which who watches may take over. Written into the lock, and the same
in all versions: who finds another number than its own is refused."""
BEAT = 15.0
"""Seconds between two signs of life."""
_PAUSE = 0.5
"""Seconds between two looks at a lock that another process holds."""
_TRIES = 5
_NAME = "run.lock"
_OLD_NAME = "lock.json"
"""The lock of an older ragtune."""
_OLD_SILENT = 120.0
"""Seconds without a sign of life after which that counted as left behind."""
NAMES = (_NAME, _OLD_NAME)
_LARGEST = 4096
"""Bytes of a lock; who reads one that is larger knows that it is none."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, as its file says; all empty if that is damaged."""

    pid: int = 0
    host: str = "an unknown host"
    token: str = ""
    place: str = ""
    since: float = 0.0

    def __str__(self) -> str:
        return f"process {self.pid or '?'} on {self.host}"

    @property
    def near(self) -> bool:
        """Whether it is of this machine, so that its process can be looked for."""
        return self.place == _place()

    @property
    def is_possible(self) -> bool:
        """Whether there can be such a process, and such a time."""
        return 0 < self.pid < 2**31 and 0 <= self.since < 2**35

    @property
    def running(self) -> bool:
        """Whether this machine has such a process, and not only its exit code."""
        try:
            return bool(psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False


class Lock:
    """A run directory's lock. It counts for this process: who holds it may take it again.

    Args:
        folder: the directory.
        waiting: what to say once while another process is at work; without it one is refused.
    """

    _held: dict[Path, Lock] = {}  # noqa: RUF012 - one for the process

    def __init__(self, folder: Path, waiting: str = "") -> None:
        self.folder = folder
        self.path = folder / _NAME
        self.lost = False
        self.looked = time.time()
        self._waiting, self._told, self._told_of_watching = waiting, False, False
        self._token: str | None = None
        self._other: Holder | None = None
        self._watched: tuple[float, tuple[int, int]] | None = None
        """Since when the lock of another machine is watched, and how it looked then."""
        self._lease = SoftFileLease(
            self.path,
            lease_duration=LEASE,
            heartbeat_interval=BEAT,
            on_compromise=self._lose,
            thread_local=False,
        )

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            UsageError: another run is at work here, and `waiting` is empty.
            RagtuneError: the directory can't be written.
        """
        with disk_errors(self.path):
            while older := _older(self.folder):
                if not self._waits():
                    raise _refusal(self.folder, older)
                time.sleep(_PAUSE)
            self._other = _read(self.path)
            while self._is_namesake(self._other) and not self._watched_enough():
                if self._refused():
                    raise _refusal(self.folder, self._other)
                time.sleep(_PAUSE)
            try:
                self._take()
            except (Timeout, LeaseSettingsMismatch):
                raise _refusal(self.folder, self._other) from None
            self._token = self._lease.token
            with open(self.path, "a", encoding="ascii", opener=no_links) as file:
                # filelock ignores such lines.
                file.write(f"place={_place()}\nsince={round(time.time())}\n")
        if self._other:
            silent = f"it gave no sign of life for {LEASE:.0f} s"
            reason = silent if self._watched else "its process is gone"
            warn(f"Took over the lock of {self._other}: {reason}.")
        if (older := _read(self.folder / _OLD_NAME)) and older.token:  # else it is somebody's own
            (self.folder / _OLD_NAME).unlink(missing_ok=True)

    def _take(self) -> None:
        for tries in range(_TRIES, 0, -1):
            try:
                # Never without an end: filelock refuses at once to wait for this very thread.
                self._lease.acquire(threading.TIMEOUT_MAX, _PAUSE, cancel_check=self._refused)
                return
            except (FileNotFoundError, FileExistsError):
                # Who gave the folder back may have removed it this moment.
                if tries == 1:
                    raise

    def release(self) -> None:
        """Give the lock back; a directory in which nothing was made goes, too."""
        with suppress(OSError):
            self._lease.release()
        with suppress(OSError):
            self.folder.rmdir()

    def check(self) -> None:
        """Raise unless the lock is still ours.

        Raises:
            RagtuneError: another machine took it while this one was asleep, or could have.
        """
        if abs(time.time() - self.looked) > BEAT and not self._is_ours():  # this machine was asleep
            time.sleep(_PAUSE)  # who looks whether a lock is stale puts it aside for a moment
            self.lost = self.lost or not self._is_ours()
        self.looked = time.time()
        if not self.lost:
            return
        what = f"was taken over by {_read(self.path) or 'another run'} while this run gave no sign of life"
        if self._is_ours():
            what = "could not be reached for a while, so another run may be at work in it"
        raise RagtuneError(
            f"{self.folder} {what}.",
            "What is finished is kept. Go on where it runs now, or stop that run first.",
        )

    def _is_ours(self) -> bool:
        return (_read(self.path) or Holder()).token == self._token

    def _is_namesake(self, other: Holder | None) -> bool:
        """Whether another machine has the name of this one: filelock would take its process for dead."""
        if other is None or other.place in ("", _place()):
            return False
        return other.host == socket.gethostname()

    def _refused(self) -> bool:
        """Whether another is known to be at work, and not waited for; asked between two attempts."""
        self._other = _read(self.path)
        return self._other is not None and self._at_work(self._other) and not self._waits()

    def _waits(self) -> bool:
        if self._waiting and not self._told:
            note(self._waiting)
            self._told = True
        return bool(self._waiting)

    def _at_work(self, other: Holder) -> bool:
        """Whether a process runs, or the lock of another machine has changed since it was first seen."""
        if other.near:
            self._watched = None
            return other.running
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return False
        look, first = (stat.st_ino, stat.st_mtime_ns), self._watched is None
        if self._watched is None:
            self._watched = time.monotonic(), look
        elif look != self._watched[1]:
            return True
        # One that doesn't say its place may just be in writing: then it does at the next look.
        if not self._told_of_watching and (other.place or not first):
            note(f"{self.folder} is locked by {other}; watching it …")
            self._told_of_watching = True
        if not other.pid and self._watched_enough():  # filelock leaves an empty one alone
            self._lease.break_lock()
        return False

    def _watched_enough(self) -> bool:
        return self._watched is not None and time.monotonic() - self._watched[0] >= LEASE

    def _lose(self, _: LeaseCompromise) -> None:
        """Called by filelock, from a thread of its own, when the lock can't be renewed."""
        self.lost = True


@contextmanager
def locked(folder: Path, waiting: str = "") -> Iterator[Lock]:
    """Hold a run directory's lock; within it the same process may take it again. Raises as `acquire`."""
    key = folder.resolve()
    held = Lock._held.get(key)  # noqa: SLF001 - the class's own registry
    if held is not None:
        held.check()
        yield held
        return
    lock = Lock(folder, waiting)
    try:
        with busy(f"waiting for {folder}"):
            lock.acquire()
        Lock._held[key] = lock  # noqa: SLF001 - the class's own registry
        yield lock
    finally:
        with finishing():  # a signal in the middle of this would leave the lock behind
            Lock._held.pop(key, None)  # noqa: SLF001 - the class's own registry
            lock.release()


@contextmanager
def making(path: Path) -> Iterator[None]:
    """Make something in the cache alone; while another process makes it, wait.

    Who comes second has to look whether it is there by now.
    """
    words = f"Another run is making {path}; waiting for it …"
    with locked(path.with_name(f".{path.name}.lock"), words):
        yield


def require_held() -> None:
    """Raise unless what this process has locked is still its own. Raises as `check`."""
    for held in [*Lock._held.values()]:  # noqa: SLF001 - the class's own registry; others may lock meanwhile
        held.check()


def refusal(folder: Path) -> UsageError | None:
    """What a run in this directory would be refused with now, or None; nothing is waited for."""
    if folder.resolve() in Lock._held:  # noqa: SLF001 - the class's own registry
        return None
    other = _older(folder) or _living(folder / _NAME, LEASE)
    return _refusal(folder, other) if other else None


def _place() -> str:
    """Where a process id means something: this boot of this machine, and this container of it."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return socket.gethostname()


def _read(path: Path) -> Holder | None:
    """Who holds a lock, an older ragtune's (JSON) or ours (lines); None if it is not there.

    Raises:
        UsageError: it is a folder, a pipe or a device.
    """
    try:
        text = read_bytes(path, _LARGEST).decode("ascii", "replace")
        lines = (line.partition("=") for line in text.splitlines())
        fields = json.loads(text) if text.startswith("{") else {key: v for key, _, v in lines}
        holder = Holder(
            int(fields["pid"]),
            fields["host"].partition("?pidns-")[0],  # a container's process namespace is behind it
            str(fields["token"]),
            str(fields.get("place", "")),
            float(fields.get("since", 0)),
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.EFBIG:
            return Holder()
        if error.errno not in (errno.EISDIR, errno.EINVAL):
            raise
        raise UsageError(f"{path} is no lock: {error.strerror}.", "Move it away.") from None
    # Cut off by a power failure, for example.
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Holder()
    return holder if holder.is_possible else Holder()


def _older(folder: Path) -> Holder | None:
    """Who holds an older ragtune's lock; a file of this name that says nobody is somebody's own."""
    holder = _living(folder / _OLD_NAME, _OLD_SILENT)
    return holder if holder and holder.token else None


def _living(path: Path, silent: float) -> Holder | None:
    """Who holds a lock, unless its process is gone, or it is of another machine and long silent."""
    other = _read(path)
    try:
        age = abs(time.time() - path.stat().st_mtime)
    except OSError:
        return None
    return other if other and (other.running if other.near else age < silent) else None


def _refusal(folder: Path, other: Holder | None) -> UsageError:
    other = other or Holder()
    since = time.strftime(", since %Y-%m-%d %H:%M:%S", time.localtime(other.since))
    return UsageError(
        f"Another run is at work in {folder}: {other}{since if other.since else ''}.",
        "Wait until it is done, stop it there with Ctrl-C (what is finished is kept), or give this run "
        "its own directory (name=ANOTHER, or --run-dir; a corpus: --folder). The lock of another machine is "
        f"taken over after {LEASE:.0f} s without a sign of life.",
    )
