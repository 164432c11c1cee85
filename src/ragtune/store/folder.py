"""The run directory: where everything of a run lies."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from ragtune.base.disk import disk_errors
from ragtune.base.errors import UsageError
from ragtune.base.lock import NAMES as LOCKS
from ragtune.base.screen.visible import visible
from ragtune.store.sets import own_set, recipe_set

_OLD = ("before", "after", "controls", "checkpoints", "data/eval.jsonl", "comparison.json")
"""What runs had before evaluation sets lay beside each other."""


_OF_A_SET = (
    "questions",
    "before",
    "after",
    "merged",
    "gguf",
    "controls-before",
    "controls-after",
    "general-before",
    "general-after",
    "checkpoints",
)
"""Folders of an evaluation set."""


class RunFolder:
    """The paths of a run. What lies under one of them is whole: it came there by a rename."""

    def __init__(self, path: Path, evaluation_set: str) -> None:
        self.path = path
        self.recipe = path / "recipe.yaml"
        self.summary = path / "run.json"
        self.published = path / "published.json"
        self.data = path / "data"
        self.adapter = path / "adapter"
        self.merged = path / "merged"
        self.gguf = path / "gguf"
        self.logs = path / "logs"
        self.work = path / "work"
        self.plan = self.work / "plan.json"
        self.evaluation = path / "eval" / evaluation_set
        self.questions = self.evaluation / "questions"
        self.comparison = self.evaluation / "comparison.json"
        self.controls = self.evaluation / "controls.json"
        self.general = self.evaluation / "general.json"
        self.served = self.evaluation / "served.json"
        self.is_own = (own_set(path) or recipe_set(path)) in (None, evaluation_set)
        """Whether the evaluation set is the run's own, and not one that it was asked besides. Known from
        the beginning: an adapter that is set aside meanwhile makes another set no run's own."""

    @property
    def report(self) -> Path:
        """The report of the evaluation set; that of the run's own stands for the run."""
        return (self.path if self.is_own else self.evaluation) / "report.html"

    def judged(self, which: str) -> Path:
        """What a judge made of the answers `before` or `after` tuning."""
        return self.evaluation / "judge" / f"{which}.json"

    def answers(self, which: str) -> Path:
        """The folder of the answers `before` or `after` tuning, or of the `merged` model, or of its `gguf`."""
        return self.evaluation / which

    def begun(self) -> list[str]:
        """The names under which a run keeps what it made, as far as they are taken."""
        own = (self.recipe, self.path / "report.html", self.data, self.adapter, self.merged,
               self.gguf, self.path / "eval", self.work)  # fmt: skip
        return [path.name for path in own if path.exists()]

    def require_ours(self) -> None:
        """Raise unless what lies here was made by this version of ragtune, or nothing does.

        Raises:
            UsageError: somebody else's files, a link among them, or a run of an older layout; or a path that
                libraries can't write to.
        """
        try:
            str(self.path).encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"The run directory {visible(str(self.path))} has bytes in its path that are no UTF-8.",
                "Choose another directory with --run-dir.",
            ) from None
        self._require_own_files()
        old = [name for name in _OLD if (self.path / name).exists()]
        if old and self.summary.exists():
            raise UsageError(
                f"{self.path} was made by an older ragtune: it holds {', '.join(old)}, which now lie "
                "in eval/SET.",
                "Its files stay as they are. Go on with the version that made it (run.json names it), or "
                "let this one make its own: name=ANOTHER on the command line, or --run-dir.",
            )
        found = self.begun()
        if found and not (self.summary.exists() or any(self.path.glob("**/stage.json"))):
            raise UsageError(
                f"{self.path} holds {', '.join(found)} and no run.json: it is no run directory, and these "
                "may be somebody's own.",
                "Choose another directory with --run-dir; a recipe is named as a file, "
                "FOLDER/recipe.yaml. If it was a run, move what it holds away.",
            )

    def _require_own_files(self) -> None:
        """Raise unless everything that a run would read or write here lies here: no link, no pipe.

        The directory itself may be a link, or lie behind one. What is set aside in old-N is not looked at.

        Raises:
            UsageError: something is a link, or no file or folder, or one in the place of the other.
        """
        files = [
            self.recipe,
            self.summary,
            self.published,
            self.report,
            self.comparison,
            self.controls,
            self.general,
            self.served,
        ]
        tops = [
            self.data,
            self.adapter,
            self.merged,
            self.gguf,
            self.path / "eval",
            self.work,
            self.logs,
        ]
        folders = [*tops, self.evaluation, *(self.evaluation / name for name in _OF_A_SET)]
        locks = (self.path / name for name in LOCKS)
        with disk_errors(self.path):
            require_own_files((*files, *locks), folders, "run")


_GONE = (FileNotFoundError, NotADirectoryError)


def require_own_files(files: Iterable[Path], folders: Iterable[Path], whose: str) -> None:
    """Raise unless files and folders, with all in them, are such or aren't there: no link, no pipe.

    Args:
        files: that would be read or written.
        folders: the same, from the outermost.
        whose: they are, in a word: "run".

    Raises:
        UsageError: something is a link, or no file or folder, or one in the place of the other.
    """
    folders = [*folders]
    move = f"Move it away, or choose another {whose} directory."
    kept = (
        f"Put what it leads to in its place, or remove it. To keep a {whose} on another disk, let the whole "
        f"directory be a link, or make the {whose} there."
    )

    def look(path: Path, mode: int) -> None:
        if stat.S_ISLNK(mode):
            raise UsageError(
                f"{path} is a link to {path.readlink()}: in a {whose} directory none is followed.",
                kept,
            )
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise UsageError(f"{path} is no plain file, but a pipe, a socket or a device.", move)

    for path in (*files, *folders):
        mode = _mode(path)
        if mode and stat.S_ISDIR(mode) and path not in folders:
            raise UsageError(f"{path} is a folder, where a {whose} has a file.", move)
        if mode and stat.S_ISREG(mode) and path in folders:
            raise UsageError(f"{path} is a file, where a {whose} has a folder.", move)
        if mode is not None:
            look(path, mode)
    for entry in _strange(folders):
        look(Path(entry), entry.stat(follow_symlinks=False).st_mode)


def _mode(path: Path) -> int | None:
    """What lies there, a link as such; None if nothing does."""
    try:
        return path.lstat().st_mode
    except _GONE:
        return None


def _strange(folders: Iterable[Path]) -> Iterator[os.DirEntry[str]]:
    """What is neither a file nor a folder, in folders and all below them."""
    left: list[Path | os.DirEntry[str]] = [*folders]
    while left:
        with suppress(*_GONE), os.scandir(left.pop()) as entries:  # one may be renamed
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    left.append(entry)
                elif not entry.is_file(follow_symlinks=False):
                    yield entry
