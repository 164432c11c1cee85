"""What reads files that others made, each as a function of bytes: they end in records or a message."""

from __future__ import annotations

from pathlib import Path

from ragtune.base.errors import RagtuneError
from ragtune.building.questions import read_questions
from ragtune.data.read import read_examples
from ragtune.model.source import ModelSource
from ragtune.publish.licences import base_licence
from ragtune.recipe.corpus import Questions
from ragtune.recipe.load import load_recipe, save
from ragtune.recipe.schema import Model, Recipe
from ragtune.stages.predictions import score_file
from tests.conftest import make_records, write_records

KINDS = {
    "jsonl": "a.jsonl",
    "jsonl.gz": "a.jsonl.gz",
    "json": "a.json",
    "json.gz": "a.json.gz",
    "parquet": "a.parquet",
    "questions": "q.jsonl",
    "csv": "q.csv",
    "tsv": "q.tsv",
    "xlsx": "q.xlsx",
    "recipe": "a.yaml",
    "predictions": "p.jsonl",
    "card": "README.md",
}
"""Each reader, and a name for its files."""

DOCUMENTS = {
    f"doc{ending}": f"d{ending}"
    for ending in (
        ".txt", ".md", ".html", ".csv", ".tsv.gz", ".jsonl", ".pdf", ".docx", ".pptx", ".xlsx", ".zip", ".tar.gz"
    )
}  # fmt: skip
"""The readers of documents, which tests/fuzz/documents.py calls."""

NO_PLACE = ("prompt.", "model.", "evaluate.")
"""How a message about a recipe may begin: with a key instead of a file."""


class NoPlaceError(AssertionError):
    """A message that does not say where something is wrong."""


def reader(kind: str, folder: Path) -> Reader:
    """A reader whose files lie in a folder, which must be there."""
    return Reader(kind, folder)


class Reader:
    """Calls one reader with file after file."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self.path = folder / KINDS[kind]
        if kind == "predictions":
            self.recipe = _recipe(folder)

    def __call__(self, content: bytes) -> str | None:
        """None if the content could be read, else the message.

        Raises:
            NoPlaceError: the message names no place; and whatever else a reader raises, a bug.
        """
        self.path.write_bytes(content)
        try:
            self.read()
        except RagtuneError as error:
            if str(self.path) not in error.message and not error.message.startswith(NO_PLACE):
                raise NoPlaceError(error.message) from error
            if len(str(error)) > 20_000:
                raise NoPlaceError(f"a message of {len(str(error)):,} characters") from error
            str(error).encode()  # it can be shown
            return str(error)
        return None

    def read(self) -> None:
        if self.kind == "recipe":
            recipe = load_recipe(self.path)
            save(recipe, self.folder / "saved.yaml")
            assert load_recipe(self.folder / "saved.yaml") == recipe
        elif self.kind == "predictions":
            score_file(self.recipe, str(self.path), self.folder / "no-run")
        elif self.kind == "card":  # whatever is wrong with it, its licence is only unknown
            base = str(self.folder)
            if base_licence(Model(id=base), ModelSource(base, None), ask=False) is None:
                raise RagtuneError(f"{self.path} names no licence.")
        elif self.path.name.startswith("q."):
            asked = Questions(files=[str(self.path)])
            for question in read_questions(asked.files, asked):
                str(question).encode()
        else:
            for example in read_examples(str(self.path), "train"):
                example.to_dict()


def _recipe(folder: Path) -> Recipe:
    questions = str(write_records(folder / "eval.jsonl", make_records(2, "e")))
    return load_recipe(
        {
            "name": "fuzz",
            "model": {"id": "none"},
            "data": {"train": questions, "eval": questions},
            "prompt": {"preset": "english"},
            "train": {"steps": 1},
        }
    )
