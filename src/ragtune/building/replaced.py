"""What a build would write over: no corpus of a person's own."""

from __future__ import annotations

from pathlib import Path

from ragtune.base.disk import disk_errors
from ragtune.base.errors import UsageError
from ragtune.base.files import MAX_JSON
from ragtune.base.lock import NAMES as LOCKS
from ragtune.base.reading import read_bytes
from ragtune.building.figures import NAME
from ragtune.recipe.load import dumped, load_corpus
from ragtune.store.folder import require_own_files

_FILES = (
    NAME, "corpus.yaml", "corpus.sqlite", "corpus.sqlite-journal", "corpus.sqlite-wal", "corpus.sqlite-shm",
    "train.jsonl", "eval.jsonl", *LOCKS,
)  # fmt: skip
_FOLDERS = ("index", "work")


def require_own(folder: Path) -> None:
    """Require that what a build would write over in a folder is its own.

    Raises:
        UsageError: a person wrote the corpus there; or something is a link, or no file or folder.
    """
    with disk_errors(folder):
        files, folders = (map(folder.joinpath, names) for names in (_FILES, _FOLDERS))
        require_own_files(files, folders, "corpus")
    path = folder / "corpus.yaml"
    if not path.is_file() or any(path.with_name(n).exists() for n in (NAME, "corpus.sqlite")):
        return
    try:
        written = dumped(load_corpus(path))
    except UsageError:
        written = ""
    with disk_errors(path):
        if read_bytes(path, MAX_JSON) != written.encode():
            raise UsageError(
                f"{path} would be written over by what build keeps of a corpus.",
                "Name another folder with --folder.",
            )
