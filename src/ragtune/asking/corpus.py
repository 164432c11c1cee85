"""The corpus that a run's data came from, to be searched: its index is read, and never changed."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ragtune.asking.source import SETTINGS, SHELF, require_corpus
from ragtune.base.commands import command_line
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.lock import refusal
from ragtune.base.screen.console import note, warn
from ragtune.base.text import one_or_many
from ragtune.building import shelf_file
from ragtune.building.figures import NAME as BUILT
from ragtune.building.figures import Built, read_built
from ragtune.building.indexing import retriever_to_read
from ragtune.building.retrieval.retriever import Retriever
from ragtune.building.shelf import Shelf
from ragtune.data.example import Passage
from ragtune.recipe.corpus import Corpus as Settings
from ragtune.recipe.load import load_corpus
from ragtune.stages.context import Context
from ragtune.stages.order import proof_of

_INDEX = "index"
_GIVE = "Give the passages (--passages FILE), or name the folder that `ragtune build` wrote (--corpus FOLDER)."


@dataclass(eq=False)
class Corpus:
    """What `ragtune build` wrote, searched as it was for the examples; the documents of both sides."""

    folder: Path
    settings: Settings
    retriever: Retriever = field(init=False, repr=False)
    _shelf: Shelf | None = field(default=None, init=False, repr=False)
    _turn: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        self.retriever = retriever_to_read(
            self.settings.retrieval, self.folder / _INDEX, self._text
        )

    def search(self, questions: Sequence[str], most: int) -> list[list[Passage]]:
        """The passages for each question, best first: as many as the corpus says, and at most so many."""
        with self._turn, shelf_file.reading(self.folder / SHELF) as db:
            self._shelf = Shelf(self.folder / SHELF, db)
            found = self.retriever.search(questions, self.settings.retrieval.passages)
            there = self._shelf.passages(hit.passage_id for hits in found for hit in hits)
        # While it is built anew the index may have what the shelf has no more.
        return [
            [there[hit.passage_id] for hit in hits if hit.passage_id in there][:most]
            for hits in found
        ]

    def _text(self, passage_id: str) -> str:
        assert self._shelf is not None
        there = self._shelf.passages([passage_id])
        return there[passage_id].text if there else ""


def find_corpus(context: Context, named: str | Path | None) -> Corpus | UsageError:
    """The corpus to search: the one that is named, else that of the run's data.

    Returns:
        The corpus; or, where none is named, why there is none, to be raised when passages are needed.

    Raises:
        UsageError: the one that is named isn't there, or can't be asked.
    """
    then = _built_then(context)
    if named is not None:
        return open_corpus(named, then)
    folders = _folders(context)
    for folder in folders:
        if (folder / SETTINGS).is_file():
            try:
                return open_corpus(folder, then)
            except UsageError as error:
                return error
    if then is None:
        return UsageError(
            f"There are no passages to answer from: the data of {context.recipe.name} were not made by "
            "`ragtune build`, which leaves an index.",
            _GIVE,
        )
    places = " or ".join(map(str, folders)) or "nowhere"
    return UsageError(
        f"There are no passages to answer from: the corpus {then.name}, of which the data of "
        f"{context.recipe.name} were made, is not in {places} any more.",
        _GIVE,
    )


def open_corpus(folder: str | Path, then: Built | None = None) -> Corpus:
    """Open what `ragtune build` wrote into a folder.

    Args:
        folder: the corpus's.
        then: what the build said with which the model was trained.

    Raises:
        UsageError: there is none, or it can't be asked.
    """
    folder = require_corpus(folder)
    settings = load_corpus(folder / SETTINGS)
    built = read_built(folder / BUILT)
    how = built.retriever if built else settings.retrieval.retriever
    elsewhere = settings.retrieval.retriever == "file"
    if elsewhere or how.startswith("own ("):
        whose = "elsewhere (retriever: file)" if elsewhere else "by a retriever of your own"
        raise UsageError(
            f"{folder} can't be asked: its passages were found {whose}, which does not lie there.",
            "Give the passages that it finds.",
        )
    corpus = Corpus(folder, settings)
    if refusal(folder):
        note(f"{folder} is being built just now: what is found may be of before.")
    elif lacking := _lacking(folder):
        again = command_line("ragtune", "build", folder / SETTINGS)
        warn(
            f"The index of {folder} lacks {one_or_many(lacking, 'change')}: a build was stopped. "
            f"Go on: {again}"
        )
    if then is not None and then.retriever != how:
        warn(
            f"Trained with passages that were found otherwise: {then.retriever}. In {folder} they are found "
            f"now by: {how}."
        )
    return corpus


def cut_as(context: Context) -> Settings | None:
    """The settings of the corpus of a run's data, if they are there, by which other documents are cut, too."""
    for folder in _folders(context):
        if (folder / SETTINGS).is_file():
            with suppress(RagtuneError):
                return load_corpus(folder / SETTINGS)
    return None


def _lacking(folder: Path) -> int:
    with shelf_file.reading(folder / SHELF) as db:
        return shelf_file.waiting(db)


def _built_then(context: Context) -> Built | None:
    for place in (context.folder.data, context.folder.questions):
        with suppress(RagtuneError):
            if (built := read_built(place / BUILT)) is not None:
                return built
    return None


def _folders(context: Context) -> list[Path]:
    """Where the run's data lay: as its recipe has it, from here, and as it was read then."""
    data = context.recipe.data
    found = [Path(name).expanduser().parent for name in (data.train, data.eval) if name]
    for stage, key in (("data", "data.train"), ("questions", "data.eval")):
        with suppress(RagtuneError):
            proof = proof_of(context.folder, stage)
            read = proof.inputs.get(key) if proof else None
            if read and "absolute" in read:
                found.append(Path(read["absolute"]).parent)
    return list({folder.resolve(): folder for folder in reversed(found)}.values())[::-1]
