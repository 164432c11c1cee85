"""What users of the page thought of an answer: lines of a file that `ragtune build` reads as questions."""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ragtune.asking.source import RECIPE, is_of_hub
from ragtune.base.disk import disk_errors, named_path
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.files import appending, json_line, remove, truncate
from ragtune.base.lock import making
from ragtune.base.reading import open_plain
from ragtune.base.text import one_or_many
from ragtune.data.example import Passage
from ragtune.stages.target import find_recipe

Thumb = Literal["up", "down"]
NAME = "feedback.jsonl"
_HERE = threading.Lock()
"""The file's lock counts for a process; within it the threads that answer the page take turns here."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """A thumb, and what it was about."""

    question: str
    said: str
    """What the model answered."""
    thumb: Thumb
    right: tuple[str, ...]
    """Right answers; empty if none is known."""
    model: str
    passages: tuple[Passage, ...] = ()
    """Those that the user pasted; what an index found is in the corpus already."""
    unanswerable: bool = False
    """Whether it is right that the passages hold no answer."""

    def to_dict(self) -> dict[str, object]:
        """As it stands in the file, with the time.

        No field is called as one that other formats take for a right answer.
        """
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        return {
            "question": self.question,
            "said": self.said,
            "thumb": self.thumb,
            "right": list(self.right),
            "unanswerable": self.unanswerable,
            "passages": [{"title": p.title, "text": p.text} for p in self.passages],
            "model": self.model,
            "at": now,
        }


def path_of(source: str | Path, overrides: Sequence[str] = ()) -> Path:
    """Where the feedback on a model is kept: in the directory of the run that a source names, or in its folder.

    Of one on the Hub it is in the current folder.
    """
    path = named_path(str(source))
    if path.is_file() or (path / RECIPE).is_file():
        return find_recipe(path, overrides)[1] / NAME
    if path.is_dir():
        return path / NAME
    return Path(f"{str(source).replace('/', '--')}.{NAME}")


def append(path: Path, feedback: Feedback) -> None:
    """Put one line behind the others, whole or not at all, whoever else writes at the same time.

    Raises:
        RagtuneError: it can't be written.
    """
    line = json_line(feedback.to_dict())
    with _HERE, disk_errors(path), making(path):
        size = path.stat().st_size if path.exists() else 0
        try:
            with appending(path) as file:
                file.write(line if _is_whole(path, size) else f"\n{line}")
        except BaseException:  # Ctrl-C, too, leaves no half of a line
            with contextlib.suppress(OSError, RagtuneError):  # of these two the first is told
                truncate(path, size)
            raise


def _is_whole(path: Path, size: int) -> bool:
    """Whether the last line has its end: one that a kill cut off must not swallow the next."""
    if not size:
        return True
    with open_plain(path) as file:
        file.seek(size - 1)
        return file.read() == b"\n"


def forget(path: Path) -> int | None:
    """Delete the file; returns how many lines it had, or None if there is none.

    Raises:
        RagtuneError: it can't be read or deleted.
    """
    with _HERE, disk_errors(path), making(path):
        if not (path.exists() or path.is_symlink()):
            return None
        with open_plain(path) as file:
            count = sum(1 for _ in file)
        remove(path)
    return count


def forgotten(source: str | Path, overrides: Sequence[str] = ()) -> str:
    """Delete the feedback on a model; returns what was done, in words.

    Raises:
        UsageError: there is neither feedback nor such a model.
        RagtuneError: as `forget`.
    """
    path, named = path_of(source, overrides), named_path(str(source))
    count = forget(path) if path.parent.is_dir() else None
    if count is None and not (named.exists() or is_of_hub(named)):
        raise UsageError(
            f"{source} does not exist, and there is no {path}.",
            "Name the run, or what was published, as for the page whose feedback it is.",
        )
    if count is None:
        return f"There is no {path}."
    return f"Deleted {path}: {one_or_many(count, 'thumb')}."


def pasted(text: str) -> list[Passage]:
    """The passages in a text: paragraphs, with empty lines between them."""
    parts = re.split(r"\n(?:[^\S\n]*\n)+", "\n".join(text.splitlines()))
    return [Passage(part.strip("\n")) for part in parts if part.strip()]
