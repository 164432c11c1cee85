"""A source: a file, a member of an archive or a dataset of the Hub that documents are read from."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.reading import open_plain
from ragtune.base.web.network import require_network
from ragtune.building.documents.document import UnreadYetError
from ragtune.building.documents.kinds import MAX_WHOLE, READ_WHOLE

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """What `read_source` reads."""

    path: Path
    """The file; of a member of an archive, the archive."""
    name: str
    """Document.file of its documents, and what their ids begin with; unique in a corpus."""
    member: int | None = None
    """Of an archive: which of its entries, from 0."""
    sha256: str = ""
    """Of the bytes, where they are known already."""
    dataset: str = ""
    """Of the Hub, as the user named it; `path` means nothing then."""
    problem: str = ""
    """Why it can't be read, where that is known already."""
    advice: str = ""

    @property
    def suffix(self) -> str:
        """`.pdf`, `.jsonl.gz`: in small letters, with what it is packed by."""
        name = self.name.rpartition("/")[2].lower()
        stem, dot, last = name.rpartition(".")
        if not (stem and dot):
            return ""
        if last == "gz" and "." in stem.lstrip("."):
            return f".{stem.rpartition('.')[2]}.gz"
        return f".{last}"

    def digest(self) -> str:
        """The sha256 of its bytes; of a dataset of its name and commit, of what can't be read of the reason.

        Raises:
            RagtuneError: the Hub can't be asked.
        """
        if self.sha256:
            return self.sha256
        if self.dataset:
            return _of_commit(self.dataset)
        found = hashlib.sha256(self.problem.encode("utf-8", "replace"))
        if self.problem:
            return found.hexdigest()
        try:
            with open_plain(self.path) as file:
                # What is behind that is never read.
                left = MAX_WHOLE + 1 if self.suffix in READ_WHOLE else sys.maxsize
                while chunk := file.read(min(_CHUNK, left)):
                    found.update(chunk)
                    left -= len(chunk)
        except OSError as error:  # it is said when it is read
            found.update(str(error.errno).encode())
        return found.hexdigest()


def _of_commit(dataset: str) -> str:
    from ragtune.base.web.hub import api, ask  # noqa: PLC0415 - the process that reads files has no use for it

    nowhere = f"documents.files: {dataset} is no file or folder here"
    if not dataset.isascii():  # no name on the Hub
        raise UsageError(f"{nowhere}.", f"Correct the path, from {Path.cwd()}.")
    require_network(f"{nowhere}; a dataset of this name would be on the Hub")
    repo = dataset.partition(":")[0]
    try:
        commit = ask(lambda: api().dataset_info(repo).sha, repo)
    except RagtuneError as error:
        raise UsageError(
            f"{nowhere}, and of the Hub's datasets none can be had by this name: {error.message}",
            f"Correct the path, from {Path.cwd()}; or the dataset's name, or see to the network.",
        ) from error
    return hashlib.sha256(f"{dataset}@{commit}".encode()).hexdigest()


def unopened(name: str, error: OSError) -> UnreadYetError:
    """What it means that a file can't be opened."""
    return UnreadYetError(
        f"{name} can't be read ({error.strerror or error}).",
        "See that it is there, and yours to read.",
    )
