"""The recipes that come with ragtune, as files to start from; with one, its corpus and documents."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

from ragtune.base.commands import command_line
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.files import making_folder, writing
from ragtune.base.text import nearest
from ragtune.recipe.starter import ELSEWHERE, require_free

_ELSE = ("skypilot",)
"""Files beside the recipes that are none."""
INPUT = Path("corpora/input")
"""Where a shipped corpus looks for its documents and questions."""


def folder() -> Path:
    """Where the recipes lie: in the package, or in the checkout that it is run from."""
    package = Path(__file__).parents[1]
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parents[1] / "recipes"


def names() -> list[str]:
    """The names of the recipes, without `.yaml`."""
    files = (path.name.removesuffix(".yaml") for path in folder().glob("*.yaml"))
    return sorted(name for name in files if not name.endswith(".corpus") and name not in _ELSE)


@dataclass(frozen=True)
class Shipped:
    """What was written of a recipe."""

    recipe: Path
    corpus: Path | None
    """The corpus whose examples it is trained on."""
    input: Path | None
    """The folder of the corpus's documents and questions."""
    input_kept: bool = False
    """Whether that folder was there already."""

    def told(self) -> str:
        """What there is now, and the commands that use it."""
        written = [self.recipe, self.corpus, None if self.input_kept else self.input]
        files = [str(path) for path in written if path]
        listed = " and ".join([", ".join(files[:-1]), files[-1]] if files[1:] else files)
        kept = f" {self.input} was there already, and stays as it is." if self.input_kept else ""
        commands = [command_line("ragtune", "build", self.corpus)] if self.corpus else []
        commands.append(command_line("ragtune", "run", self.recipe))
        return f"Wrote {listed}.{kept} Then: {', and '.join(commands)}"


def write_shipped(name: str, path: Path | None, *, force: bool) -> Shipped:
    """Write a recipe that comes with ragtune, and what it needs of documents.

    Args:
        name: one of `names()`.
        path: the file to write; NAME.yaml in the current folder by default.
        force: replace files that are there. A folder of documents that is there stays as it is.

    Raises:
        UsageError: there is no such recipe, or a file is there.
        RagtuneError: it can't be written.
    """
    if name not in names():
        near = nearest(name[:100], names())
        raise UsageError(
            f"There is no recipe {name!r} in ragtune.",
            (f"Did you mean {near}? " if near else "") + f"There are: {', '.join(names())}.",
        )
    path = path or Path(f"{name}.yaml")
    corpus = path.with_name(f"{path.stem}.corpus.yaml")
    wanted = {f"{name}.yaml": path, f"{name}.corpus.yaml": corpus}
    sources = {
        there: out for source, out in wanted.items() if (there := folder() / source).is_file()
    }
    for out in sources.values():
        require_free(out, force=force)
    archive = folder() / f"{name}.zip"
    kept = archive.is_file() and INPUT.exists()
    try:
        if archive.is_file() and not kept:
            with making_folder(INPUT) as partial, zipfile.ZipFile(archive) as packed:
                packed.extractall(partial)
        for source, out in sources.items():
            with writing(out) as file:
                file.write(source.read_text("utf-8"))
    except RagtuneError as error:  # its advice is for a run
        raise RagtuneError(error.message, ELSEWHERE) from error
    has_corpus = corpus in sources.values()
    return Shipped(path, corpus if has_corpus else None, INPUT if archive.is_file() else None, kept)
