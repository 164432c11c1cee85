"""What run.json says: a summary of the stages' proofs, for people; nothing reads it back."""

from __future__ import annotations

from typing import TypedDict

from pydantic import JsonValue

from ragtune.scoring.reasked import Reasked


class Summary(TypedDict, total=False):
    """A run in short; a key is missing where nothing is known yet."""

    recipe: dict[str, JsonValue]
    versions: dict[str, str]
    date: str
    """What chat templates write as today's date."""
    commit: str
    """Of a model from the Hub."""
    plan: dict[str, JsonValue]
    data: dict[str, str]
    """sha256 of the prepared examples, by split."""
    times: dict[str, float]
    """Seconds, by stage."""
    peak_gib: dict[str, float]
    asked: dict[str, dict[str, str]]
    """How questions were asked, and why so, by stage."""
    train: dict[str, JsonValue]
    merge: Reasked
    """The merged model's answers against the adapter's."""
    gguf: Reasked
    """The same of llama.cpp's, with the GGUF file."""
    push: dict[str, str]
    sets: dict[str, JsonValue]
    """`data.eval` of every evaluation set that was asked, by its name below eval/."""
