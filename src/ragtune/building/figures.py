"""What a build found, typed, as it is written into build.json beside the examples, and read again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from ragtune.base.errors import UsageError
from ragtune.base.files import FORMAT, MAX_JSON, write_json
from ragtune.base.reading import read_text
from ragtune.base.text import shortened
from ragtune.building.retrieval.compare import Comparison
from ragtune.data.counts import SplitName
from ragtune.data.example import Passage
from ragtune.scoring.statistics import Figure

NAME = "build.json"
FILES: dict[SplitName, str] = {"train": "train.jsonl", "eval": "eval.jsonl"}
"""The examples, beside it."""
SHOWN = 50
"""Entries of a list that are kept; how many there are is counted beside it."""
_DIGITS = 15
"""Of a number, at most: no build counts more."""
_TEXT = 160
"""Characters of a text that are kept."""

Whose = Literal["real", "synthetic"]


@dataclass(frozen=True, slots=True)
class Recall:
    """How often a right passage is among the first that were retrieved."""

    of: Literal["answer", "gold"]
    """Right is a passage in which an answer stands, or which is the one (or of the document) that the
    question names."""
    asked: Whose
    """What people asked, or questions that a model wrote of these very passages: they are easier."""
    n: int
    """Questions that have an answer, or that name a passage or document."""
    at: dict[int, Figure]
    """By how many first passages are looked at."""


@dataclass(frozen=True, slots=True)
class Unread:
    """A file that could not be read."""

    file: str
    reason: str


@dataclass(frozen=True, slots=True)
class DocumentFigures:
    """What was read."""

    read: int
    kinds: dict[str, int]
    """How many of each ending, such as `.pdf`."""
    empty: int
    """Read, and without any text."""
    unread: int
    unread_files: tuple[Unread, ...]
    """The first of them."""
    unasked: int
    """Documents that answer no question: none of their passages is a positive."""
    unasked_files: tuple[str, ...]
    """The first of them."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Characters of the passages."""

    min: int
    median: float
    p95: float
    max: int
    total: int


@dataclass(frozen=True, slots=True)
class Twin:
    """Two passages that are the same, or nearly."""

    text: str
    """The beginning of the first."""
    place: str
    other_place: str
    """Where the two stand, in words."""


@dataclass(frozen=True, slots=True)
class TwinFigures:
    """Passages of which there is another.

    Of all passages it is one that comes before, of those that evaluation asks for one that is trained.
    """

    of: int
    exact: int
    """The same text but for white space, width and case."""
    near: int
    """Four in five of their shingles, or more, in common, and not the same."""
    examples: tuple[Twin, ...] = ()


@dataclass(frozen=True, slots=True)
class PassageFigures:
    """What the documents were cut into."""

    n: int
    length: Lengths | None
    twins: TwinFigures


@dataclass(frozen=True, slots=True)
class Nearest:
    """The passage that was retrieved first."""

    title: str
    text: str
    """Its beginning."""
    place: str
    """In words: `manual.pdf, p. 12`."""

    @classmethod
    def of(cls, passage: Passage) -> Nearest:
        return cls(passage.title, shortened(passage.text, _TEXT), where(passage))


@dataclass(frozen=True, slots=True)
class Unfound:
    """A question whose answer stands in none of the passages that were retrieved for it."""

    qid: str
    question: str
    answers: tuple[str, ...]
    nearest: Nearest | None
    """None where nothing was retrieved."""
    elsewhere: bool | None = None
    """Whether the answer stands in another passage of the corpus; None if it was not looked for."""


@dataclass(frozen=True, slots=True)
class Synthetic:
    """Questions that a model wrote."""

    model: str
    train: int
    eval: int
    dropped: dict[str, int]
    """How many were written and not kept, by why."""
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class QuestionFigures:
    """What is asked."""

    train: int
    eval: int
    dropped: dict[str, int]
    """How many were left out, by why in words."""
    by_answer: int
    """Questions with a positive because an answer stands in it."""
    by_gold: int
    """Questions with a positive because they name it."""
    unfound: int
    unfound_first: tuple[Unfound, ...]
    """The first by their qid."""
    synthetic: Synthetic | None = None


@dataclass(frozen=True, slots=True)
class BuildFigures:
    """Everything that a build counted."""

    recall: tuple[Recall, ...]
    documents: DocumentFigures
    passages: PassageFigures
    questions: QuestionFigures
    trained: TwinFigures
    """Of the passages that evaluation asks for: those that training shows."""

    @property
    def answerable(self) -> int:
        """Questions that have an answer, which may stand in a passage."""
        return sum(one.n for one in self.recall if one.of == "answer")


@dataclass(frozen=True, slots=True)
class Built:
    """What build.json says."""

    name: str
    """The corpus's."""
    seal: dict[str, str]
    """sha256 of the files of examples, by their names."""
    language: str
    retriever: str
    """In words."""
    figures: BuildFigures
    license: str | None = None
    """Of the documents, as the user states it."""
    attribution: str | None = None
    """Where the documents come from, as the user states it."""
    compared: Comparison | None = None
    """Retrievers on these questions, where they were compared."""
    format: int = FORMAT


def write_built(folder: Path, built: Built) -> None:
    """Write build.json into a folder."""
    write_json(folder / NAME, asdict(built))


def read_built(path: Path) -> Built | None:
    """What a build.json says; None where there is none, or another program's.

    Raises:
        UsageError: it is ragtune's, and damaged, or of a newer ragtune.
    """
    try:
        value = json.loads(read_text(path, MAX_JSON), parse_int=_count)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} can't be read: {error}.", _AGAIN) from error
    if not (isinstance(value, dict) and {"format", "seal", "figures"} <= value.keys()):
        return None
    if isinstance(value["format"], int) and value["format"] > FORMAT:
        raise UsageError(f"{path} was made by a newer ragtune.", "Use that one here.")
    try:
        return _BUILT.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UsageError(f"{path} is damaged: {place}: {first['msg']}.", _AGAIN) from None


def _count(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ValueError(f"a number of {len(digits)} digits counts nothing")
    return int(digits)


def built_beside(file: Path, digest: str) -> Built | None:
    """What build wrote beside a file of examples, if it wrote this very file.

    Args:
        file: of examples.
        digest: its sha256.

    Raises:
        UsageError: as `read_built`; or the file is another than build wrote.
    """
    path = file.with_name(NAME)
    built = read_built(path)
    if built is None or file.name not in built.seal:
        return None
    if built.seal[file.name] != digest:
        raise UsageError(
            f"{path} is not of this {file.name}, which was changed after `ragtune build` wrote it.",
            "Report and card can't say what these examples were made from. Build them again, or move "
            f"{NAME} away.",
        )
    return built


_BUILT = TypeAdapter(Built)
_AGAIN = "Run `ragtune build` again, or move this file away: the examples beside it can do without."


def corpora(builds: Mapping[SplitName, Built]) -> list[Built]:
    """Each of what was built once: both splits may be of one corpus."""
    return list({tuple(built.seal.items()): built for built in builds.values()}.values())


def where(passage: Passage) -> str:
    """The place of a passage in words; its id where it has none."""
    return passage.place.in_words() if passage.place else str(passage.passage_id or "")
