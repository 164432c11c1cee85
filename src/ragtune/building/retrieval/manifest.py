"""What an index was made with: an index that something else made would find other passages, or none."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path

from ragtune.base.files import FORMAT, read_if_whole, write_json
from ragtune.building.retrieval import terms

NAME = "manifest.json"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an index was made with. Whatever differs, the index is made again."""

    language: str
    terms: int = terms.VERSION
    """The version of the rules by which a text becomes terms: tantivy stores none."""
    engine: str = "tantivy"
    engine_version: str = ""
    k1: float = 1.2
    """BM25's, constants of tantivy: how soon a repeated term counts no more."""
    b: float = 0.75
    """How much a passage's length counts."""

    @classmethod
    def here(cls, language: str) -> Manifest:
        """What an index is made with on this machine. tantivy must be there."""
        return cls(language, engine_version=version("tantivy"))

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """An index's; None if there is none, or none that can be read."""
        found = read_if_whole(folder / NAME) if (folder / NAME).is_file() else {}
        names = {field.name for field in fields(cls)}
        if found.get("format") != FORMAT or set(found) != {"format", *names}:
            return None
        if not isinstance(found["language"], str):
            return None
        return cls(**{name: found[name] for name in names})

    def write(self, folder: Path) -> None:
        write_json(folder / NAME, {"format": FORMAT, **asdict(self)})

    def differs(self, other: Manifest) -> str:
        """What of it another one has otherwise, in words; "" if nothing."""
        here, there = asdict(self), asdict(other)
        return ", ".join(
            f"{name.replace('_', ' ')} {here[name]}, now {there[name]}"
            for name in here
            if here[name] != there[name]
        )
