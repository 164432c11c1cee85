"""Sources of several files: names with *, and folders that `save_to_disk` of `datasets` wrote."""

from __future__ import annotations

import glob
import json
import re
from contextlib import suppress
from pathlib import Path

from ragtune.base.errors import UsageError
from ragtune.base.reading import read_text

MAX_FILES = 10_000
_STATE, _SPLITS = "state.json", "dataset_dict.json"
_LARGEST = 16 << 20
_NAME = re.compile(r"[\w.-]+\.arrow")


def files_of(text: str, split: str = "") -> list[Path]:
    """The files on this machine that a source names, in their order; none where it names none.

    A source is a file, a name with * ? [] for several, or a folder that `save_to_disk` wrote; of one that
    holds splits, `split` is meant.

    Raises:
        UsageError: too many files.
        OSError, ValueError, RuntimeError: no system could have such a path.
    """
    path = Path(text).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        return saved_files(path / split if split in saved_splits(path) else path)
    if not glob.has_magic(text):
        return []
    found = []
    for name in glob.iglob(str(path), recursive=True):  # noqa: PTH207 - Path.glob takes no absolute ones
        if Path(name).is_file():
            found.append(Path(name))
        if len(found) > MAX_FILES:
            raise UsageError(f"{text} names more than {MAX_FILES:,} files.", "Name fewer.")
    return sorted(found, key=_in_order)


def fixed_part(pattern: Path) -> Path:
    """The folder in which a name with * begins."""
    parts = pattern.parts
    first = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    return Path(*parts[:first])


def _in_order(path: Path) -> list[tuple[int, str | int]]:
    """shard-2 before shard-10."""
    parts = re.split(r"(\d+)", str(path))
    return [(1, int(part)) if part.isdecimal() else (0, part) for part in parts]


def saved_files(folder: Path) -> list[Path]:
    """The data of a folder that `Dataset.save_to_disk` wrote; none where it is no such folder."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        state = json.loads(read_text(folder / _STATE, _LARGEST))
        names = [entry["filename"] for entry in state["_data_files"]]
        # Whoever wrote the folder may name files elsewhere.
        if all(isinstance(name, str) and _NAME.fullmatch(name) for name in names):
            return [folder / name for name in names]
    return []


def saved_splits(folder: Path) -> list[str]:
    """The splits of a folder that `DatasetDict.save_to_disk` wrote; none where it is no such folder."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        names = json.loads(read_text(folder / _SPLITS, _LARGEST))["splits"]
        return [name for name in names if saved_files(folder / Path(name).name)]
    return []
