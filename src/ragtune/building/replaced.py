"""What a build would write over: no corpus of a person's own."""

from __future__ import annotations

from pathlib import Path

from ragtune.base.disk import disk_errors
from ragtune.base.errors import UsageError
from ragtune.base.files import MAX_JSON
from ragtune.base.reading import read_bytes
from ragtune.building.figures import NAME
from ragtune.recipe.load import dumped, load_corpus


def require_own(path: Path) -> None:
    """Raise UsageError where a build would write over a corpus that a person wrote."""
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
