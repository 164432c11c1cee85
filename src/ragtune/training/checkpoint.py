"""Checkpoints that count only when they are whole.

Trainer writes a checkpoint's files in place, and one that lacks some of them resumes without a word
to other weights. So a manifest (files, sizes, sha256) is written last, and a checkpoint without a
true one is set aside. The training does not wait for the disk.
"""

from __future__ import annotations

import contextlib
import copy
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

from torch import Tensor

from ragtune.base.disk import disk_errors
from ragtune.base.errors import is_out_of_memory, no_thread
from ragtune.base.files import remove
from ragtune.base.lock import require_held
from ragtune.base.memory import available_memory
from ragtune.base.screen.console import warn
from ragtune.base.screen.progress import busy
from ragtune.base.stopping import Stopped
from ragtune.store.seal import ASIDE, is_whole, seal, set_aside

T = TypeVar("T")
_ROOM = 2
"""A copy is made where so many would fit into the free memory: the training takes some of it, too."""
_HEARD = 0.5
"""Seconds after which a wait begins anew: a signal in the moment in which it began is heard when it ends."""
_AT_ONCE = 4
"""Tensors that are copied at a time: new memory takes as long as the copy."""


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints in a folder as (step, path), oldest first."""
    found = [(re.fullmatch(r"checkpoint-(\d+)", p.name), p) for p in folder.glob("checkpoint-*")]
    return sorted((int(match[1]), path) for match, path in found if match and path.is_dir())


def newest_whole(folder: Path) -> Path | None:
    """The newest whole checkpoint; damaged or half-written newer ones are set aside, and said so.

    What was set aside before goes then: each kill may leave a checkpoint's bytes, and a disk has its end.
    """
    before = [*folder.glob(f"{ASIDE}checkpoint-*")]
    for _, path in reversed(checkpoints(folder)):
        if is_whole(path):
            return path
        while before:
            remove(before.pop())
        set_aside(path, "not whole; cut off while it was written?")
    return None


def keep_newest(folder: Path, count: int, best: int | None) -> None:
    """Delete all but the newest `count` checkpoints and that of the best step."""
    for step, path in checkpoints(folder)[:-count]:
        if step != best:
            remove(path)


class Writer:
    """Writes checkpoints while the training goes on: of what learns it takes a copy, and a thread writes that.

    A training is within it, so that nothing is being written any more when it has ended. What a checkpoint
    fails with is raised by whatever is called next.
    """

    def __init__(self) -> None:
        self._written = threading.Event()  # an interrupted Thread.join takes the thread for ended
        self._written.set()
        self._left: list[Callable[[], object]] = []
        """What is yet to be written of the present checkpoint."""
        self._error: BaseException | None = None
        self._given_up = False
        self._making = False

    def busy(self) -> bool:
        """Whether a checkpoint is being made, here or by the thread."""
        return self._making or not self._written.is_set()

    @contextlib.contextmanager
    def checkpoint(self, path: Path, needed: int, then: Callable[[], None]) -> Iterator[None]:
        """Let a checkpoint be written: whole, with its manifest, or not at all; waits for the one before.

        Args:
            path: its folder. Within, small files are written into it, and large ones given to `save`.
            needed: the bytes that it will take.
            then: is called when it counts.
        """
        self.wait()
        self._left = []
        self._making = True
        try:
            with _whole(path, needed):
                remove(path)  # nothing is written over
                yield
            self._begin(path.name, partial(self._finish, path, needed, self._left, then))
        finally:
            self._making = False

    def _begin(self, name: str, finish: Callable[[], None]) -> None:
        """Let a thread finish a checkpoint; it is waited for from then on, whatever cuts this off.

        Where the system refuses a thread it is finished here, before the training goes on.
        """
        begun, written = threading.Lock(), threading.Event()

        def work() -> None:
            if begun.acquire(blocking=False):
                try:
                    finish()
                finally:
                    written.set()

        try:
            self._written = written
            threading.Thread(target=work, name=name).start()
        except BaseException as error:  # there may be a thread, or none
            try:
                if no_thread(error):
                    warn(
                        f"The system refuses a thread: {name} is written before the training goes on."
                    )
                    work()
                    return
            finally:
                if begun.acquire(blocking=False):  # it doesn't work any more
                    written.set()
            raise

    def save(self, write: Callable[[T], object], value: T) -> None:
        """Let a value with tensors be written as it is now; at once, where memory or a thread lacks for it."""
        copied = None
        free = available_memory()
        if free is not None and _ROOM * sum(one.nbytes for one in _tensors(value)) <= free:
            try:
                copied = snapshot(value)
            except (MemoryError, RuntimeError) as error:  # a limit that the system doesn't tell of
                if not (is_out_of_memory(error) or no_thread(error)):
                    raise
        if copied is None:
            write(value)
        else:
            self._left.append(partial(write, copied))

    def _finish(
        self,
        path: Path,
        needed: int,
        left: list[Callable[[], object]],
        then: Callable[[], None],
    ) -> None:
        left.append(partial(seal, path))
        try:
            while left:
                require_held()  # else what lies there by now may be another machine's: it stays
                with _whole(path, needed):
                    self._require_wanted()
                    left.pop(0)()  # and with it goes the copy
            then()
        except BaseException as error:  # noqa: BLE001 - raised where somebody hears it
            left.clear()
            self._error = error

    def _require_wanted(self) -> None:
        if self._given_up:
            raise Stopped

    def look(self) -> None:
        """Raise what a checkpoint failed with, if one did."""
        error, self._error = self._error, None
        if error:
            raise error

    def wait(self) -> None:
        """Until nothing is being written; raises as `look`."""
        self._join()
        self.look()

    def _join(self) -> None:
        if not self._written.is_set():
            with busy("writing the checkpoint"):
                while not self._written.wait(_HEARD):
                    pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, other: BaseException | None, *_: object
    ) -> None:
        try:
            self._join()
        except BaseException:  # a signal once more: what is begun of a file is the last
            self._given_up = True
            while not self._written.is_set():  # a notebook may be interrupted ever again
                with contextlib.suppress(KeyboardInterrupt):
                    self._join()
            raise
        if kind is None:
            self.look()
        elif self._error and str(self._error) != str(other):
            words = getattr(self._error, "message", self._error)
            warn(f"The last checkpoint could not be written: {words}")


@contextlib.contextmanager
def _whole(checkpoint: Path, needed: int) -> Iterator[None]:
    """Within, a checkpoint of so many bytes is written: if that fails, nothing of it stays."""
    try:
        with disk_errors(checkpoint, needed):
            yield
    except BaseException:  # a stop, too
        shutil.rmtree(checkpoint, ignore_errors=True)  # half of it would fill the disk
        raise


def snapshot(value: T) -> T:
    """The same value, its tensors copied into the processor's memory: later steps don't change it."""
    tensors = _tensors(value)
    known: dict[int, object] = {}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        # The GPU's first: not every system lets the processor read what is paged while the GPU works.
        for paged in (False, True):
            part = [one for one in tensors if one.is_cpu == paged]
            copies = pool.map(lambda one: one.detach().to("cpu", copy=True), part)
            known |= dict(zip(map(id, part), copies, strict=True))
    return copy.deepcopy(value, known)  # what is shared stays so


def _tensors(value: object) -> list[Tensor]:
    """The tensors in dictionaries and lists, as state dicts have them; what is shared once."""
    parts = [value]
    found: dict[int, Tensor] = {}
    for part in parts:
        if isinstance(part, Tensor):
            found[id(part)] = part
        elif isinstance(part, dict):
            parts += part.values()
        elif isinstance(part, list | tuple):
            parts += part
    return [*found.values()]
