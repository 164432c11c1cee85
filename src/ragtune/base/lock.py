"""One run at a time in a run directory: a lock file with a heartbeat.

Made for any file system, a mounted Drive included: no flock, only the creation of a file that must not
exist, and renaming. A lock whose process is gone, or that is of another machine and silent, is stale.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from ragtune.base.console import note, warn
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.files import disk_errors
from ragtune.base.stopping import finishing

BEAT = 15.0
"""Seconds between two signs of life."""
SILENT = 120.0
"""Seconds of silence after which the lock of another machine counts as stale."""
WATCH = 20.0
"""Seconds that a silent lock of another machine is watched: its clock may differ from ours."""

_PAUSE = 0.5
"""Seconds between two looks whether another process is done."""


class Lock:
    """A run directory's lock. It counts for this process: who holds it may take it again."""

    _held: dict[Path, Lock] = {}  # noqa: RUF012 - one for the process

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "lock.json"
        self.owner = {"token": uuid.uuid4().hex, "since": round(time.time()), **_self()}
        self.lost: str | None = None
        self.beat = time.time()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lock", daemon=True)

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            UsageError: another run is at work here.
            RagtuneError: the directory can't be written.
        """
        with disk_errors(self.path):
            while not self._create():
                other = _read(self.path)
                if other is not None:
                    self._take_over(other, _stale(self.path, other))
            mine = _read(self.path)
        if mine is None or mine.get("token") != self.owner["token"]:
            raise _refusal(self.folder, mine or {})
        for left in self.folder.glob(".lock.*"):  # by a run that was killed
            left.unlink(missing_ok=True)
        self._thread.start()

    def release(self) -> None:
        """Give the lock back; a directory in which nothing was made goes, too."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        with suppress(OSError):
            if (_read(self.path) or {}).get("token") == self.owner["token"]:
                self.path.unlink()
            self.folder.rmdir()

    def check(self) -> None:
        """See that the lock is still ours.

        Raises:
            RagtuneError: another machine took it while this one was asleep.
        """
        if time.time() - self.beat > 3 * BEAT:  # this machine was asleep
            self._look()
        if self.lost:
            raise RagtuneError(
                f"{self.folder} was taken over by {self.lost} while this run gave no sign of life.",
                "What is finished is kept. Go on where it runs now, or stop that run first.",
            )

    def _create(self) -> bool:
        """Make the lock file, whole at once; False if there is one."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            if os.path.lexists(self.folder) and not self.folder.is_dir():
                raise
            return False  # it was there, and who gave it back has removed it
        ready = self.path.with_name(f".lock.{self.owner['token']}")
        try:
            ready.write_bytes(self._content())
            os.link(ready, self.path)
        except (FileExistsError, FileNotFoundError):
            # The latter: swept away by who has the lock, or with the folder by who gave it back.
            return False
        except OSError:  # a Drive has no links
            return self._create_in_place()
        finally:
            ready.unlink(missing_ok=True)
        return True

    def _create_in_place(self) -> bool:
        try:
            descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except (FileExistsError, FileNotFoundError):
            return False
        try:
            os.write(descriptor, self._content())
        except OSError:
            self.path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        return True

    def _content(self) -> bytes:
        return (json.dumps({**self.owner, "beat": round(time.time())}) + "\n").encode()

    def _take_over(self, other: dict[str, Any], reason: str | None) -> None:
        if reason is None:
            raise _refusal(self.folder, other)
        aside = self.path.with_name(f".lock.{self.owner['token']}.stale")
        try:
            self.path.rename(aside)
        except FileNotFoundError:  # it was given back, or another took it over first
            return
        moved = _read(aside) or {}
        if moved.get("token") != other.get("token"):
            # Another run was quicker, and this is its new lock.
            with suppress(OSError):
                aside.rename(self.path)
            raise _refusal(self.folder, moved)
        aside.unlink(missing_ok=True)
        warn(f"Took over the lock of {_name(other)}: {reason}.")

    def _beat(self) -> None:
        while not self._stop.wait(BEAT):
            with suppress(OSError):  # a full disk or a network that is away for a moment
                self._look()
                if self.lost:
                    return
                with self.path.open("r+b") as file:  # of the same length: nothing is cut off
                    file.write(self._content())

    def _look(self) -> None:
        now = _read(self.path)
        if now is not None and now.get("token") != self.owner["token"]:
            self.lost = _name(now)
        self.beat = time.time()


@contextmanager
def locked(folder: Path) -> Iterator[Lock]:
    """Hold a run directory's lock; within it the same process may take it again. Raises as `acquire`."""
    key = folder.resolve()
    held = Lock._held.get(key)  # noqa: SLF001 - the class's own registry
    if held is not None and held.owner["pid"] == os.getpid():
        held.check()
        yield held
        return
    lock = Lock(folder)
    try:
        lock.acquire()
        Lock._held[key] = lock  # noqa: SLF001
        yield lock
    finally:
        with finishing():  # a signal in the middle of this would leave the lock behind
            Lock._held.pop(key, None)  # noqa: SLF001
            lock.release()


@contextmanager
def making(path: Path) -> Iterator[None]:
    """Make something in the cache alone; while another process makes it, wait.

    Who comes second has to look whether it is there by now.
    """
    folder = path.with_name(f".{path.name}.lock")
    told = False
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(folder))
                break
            except UsageError:
                if not told:
                    note(f"Another run is making {path}; waiting for it …")
                told = True
                time.sleep(_PAUSE)
        yield


def see_held() -> None:
    """See that what this process has locked is still its own. Raises as `check`."""
    for held in Lock._held.values():  # noqa: SLF001
        held.check()


def refusal(folder: Path) -> UsageError | None:
    """What a run in this directory would be refused with now, or None; nothing is waited for."""
    held, path = Lock._held.get(folder.resolve()), folder / "lock.json"  # noqa: SLF001
    other = None if held is not None else _read(path)
    return _refusal(folder, other) if other is not None and not _gone(path, other) else None


def _self() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "place": _place(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
    }


def _place() -> str:
    """Where a process id means something: this boot of this machine, and this container of it."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return socket.gethostname()


def _started(pid: int) -> str | None:
    """When a process started, in the system's ticks, so that a pid that is used again is noticed."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *rest = fields.rpartition(")")[2].split()
    return None if state in "ZX" else rest[18]


def _alive(other: dict[str, Any]) -> bool:
    pid = int(other["pid"])
    if Path("/proc/self/stat").exists():
        return other.get("started") is not None and _started(pid) == other["started"]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _gone(path: Path, other: dict[str, Any]) -> str | None:
    """Why a lock seems not to count any more; None if it counts."""
    if _near(other):
        return None if _alive(other) else "its process is gone"
    silent = _silence(path, other)
    if silent <= -SILENT:  # how long it is silent can't be told, only watched
        return f"its last sign of life is dated {-silent:.0f} s ahead of the clock here"
    return None if silent < SILENT else f"it gave no sign of life for {silent:.0f} s"


def _stale(path: Path, other: dict[str, Any]) -> str | None:
    """Why a lock no longer counts; None if it does. One of another machine is watched first."""
    reason = _gone(path, other)
    if reason is None or _near(other):
        return reason
    note(f"{path.parent} is locked by {_name(other)}, and {reason}; watching it …")
    time.sleep(WATCH)
    now = _read(path)
    return None if now is None or now.get("beat") != other.get("beat") else reason


def _near(other: dict[str, Any]) -> bool:
    """Whether a lock is of this machine, so that its process can be looked for."""
    return other.get("place") == _place() and os.name == "posix"


def _silence(path: Path, other: dict[str, Any]) -> float:
    with suppress(OSError):
        return time.time() - max(float(other.get("beat", 0)), path.stat().st_mtime)
    return 0.0


def _read(path: Path) -> dict[str, Any] | None:
    """What a lock says; {} if it is empty or damaged, None if it is not there."""
    for _ in range(3):  # one that was made this moment is still empty
        try:
            value = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError:
            time.sleep(0.1)
            continue
        return value if isinstance(value, dict) and isinstance(value.get("pid"), int) else {}
    return {}


def _name(other: dict[str, Any]) -> str:
    return f"process {other.get('pid', '?')} on {other.get('host', 'an unknown host')}"


def _refusal(folder: Path, other: dict[str, Any]) -> UsageError:
    since = other.get("since")
    when = f", since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(since))}" if since else ""
    return UsageError(
        f"Another run is at work in {folder}: {_name(other)}{when}.",
        "Wait until it is done, stop it there with Ctrl-C (what is finished is kept), or give this run "
        f"its own directory (name=ANOTHER, or --run-dir). A lock of another machine counts for "
        f"{SILENT:.0f} s after its last sign of life.",
    )
