"""Under which licences the base model and the data are, as far as that can be known from here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import yaml
from huggingface_hub import try_to_load_from_cache

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.files import read_if_whole
from ragtune.base.web.hub import api, hub_errors
from ragtune.base.web.hub_client import failing_at_once
from ragtune.building.figures import Built
from ragtune.data.counts import SplitName
from ragtune.data.read import locate
from ragtune.model.gguf import SOURCE, licence_of
from ragtune.model.source import ModelSource, gguf_file
from ragtune.recipe.data import Data
from ragtune.recipe.schema import Model
from ragtune.recipe.yaml import parse_yaml

_LARGEST = 256 << 10
"""Bytes of a card that are looked at: its metadata come first, and a text of megabytes parses for long."""


@dataclass(frozen=True)
class Licence:
    """A licence as a model's metadata names it: the Hub's id, and for `other` a name and an address."""

    id: str
    name: str | None = None
    link: str | None = None

    def __str__(self) -> str:
        words = self.name if self.name and self.id == "other" else self.id
        return f"{words} ({self.link})" if self.link else words


@dataclass(frozen=True)
class Origin:
    """Where a split is from, without a path of this machine."""

    name: str
    hub: str | None = None
    """The dataset's id on the Hub."""
    split: str | None = None
    licence: Licence | None = None
    """That of the data; of built ones that of the documents, as the user states it."""
    attribution: str | None = None
    """Where the documents come from, as the user states it."""


# Of the files in ragtune/data/samples; its README.md names authors and changes.
_SAMPLES: dict[str, tuple[str, Licence | None]] = {
    "squad2": (
        "SQuAD 2.0",
        Licence("cc-by-sa-4.0", link="https://creativecommons.org/licenses/by-sa/4.0/"),
    ),
    "jaquad": (
        "JaQuAD 0.1.0",
        Licence("cc-by-sa-3.0", link="https://creativecommons.org/licenses/by-sa/3.0/"),
    ),
}
_AIO = Origin(
    "AI王 with passages of Japanese Wikipedia",
    "llm-book/aio-retriever",
    licence=Licence("other", "questions CC BY-SA 4.0, passages CC BY-SA 3.0"),
)


def base_licence(model: Model, source: ModelSource, *, ask: bool) -> Licence | None:
    """The licence that the base model's own card or GGUF metadata names.

    Args:
        model: the recipe's section.
        source: where it was found.
        ask: whether the Hub may be asked for the card of a model that is there.

    Returns:
        None if nothing here says it.
    """
    file = gguf_file(model)
    if file is not None:
        return _of_gguf(file, Path(source.path))
    if Path(source.path).is_dir():
        return _of_card(Path(source.path) / "README.md")
    return _of_card(_cached_card(source.path, "model", source.revision, ask=ask))


def data_origins(data: Data, builds: Mapping[SplitName, Built]) -> dict[SplitName, Origin]:
    """Name and licence of `train` and `eval`.

    Args:
        data: the recipe's section.
        builds: what `ragtune build` said of those that it wrote.
    """
    sources: tuple[tuple[SplitName, str | None, str], ...] = (
        ("train", data.train, "train"),
        ("eval", data.eval, "validation"),
    )
    return {
        split: _stated(builds[split], source) if split in builds else _origin(source, hub_split)
        for split, source, hub_split in sources
    }


def without_licence(origins: Mapping[SplitName, Origin]) -> str | None:
    """What of the data has no known licence, in words."""
    bare = {origin.name for origin in origins.values() if origin.licence is None}
    return f"nothing states the licence of {' and '.join(sorted(bare))}" if bare else None


def _stated(built: Built, source: str | None) -> Origin:
    licence = Licence("other", built.license) if built.license else None
    name = f"{built.name}/{Path(source or '').name}"
    return Origin(name, licence=licence, attribution=built.attribution)


def _origin(source: str | None, split: str) -> Origin:
    if source is None:
        return _AIO
    if source.startswith("sample:"):
        name = source.removeprefix("sample:")
        of, licence = _SAMPLES.get(name.partition(".")[0], ("", None))
        return Origin(f"ragtune’s sample {name}" + (of and f", of {of}"), licence=licence)
    try:
        here = bool(locate(source, split))
    except UsageError:  # one that is gone
        here = True
    if here:
        return Origin(Path(source).name)
    name, *named = source.split(":")
    card = _cached_card(name, "dataset", None, ask=False)  # `datasets` fetched it with the data
    return Origin(source, name, named[-1] if named else split, _of_card(card))


def _cached_card(name: str, kind: str, revision: str | None, *, ask: bool) -> Path | None:
    """A card in the cache, or fetched if the Hub may be asked; None if there is none to be had."""
    try:
        with hub_errors(name, ""), failing_at_once():
            found = try_to_load_from_cache(name, "README.md", repo_type=kind, revision=revision)
            if found is None and ask:
                found = api().hf_hub_download(name, "README.md", repo_type=kind, revision=revision)
    except (RagtuneError, OSError):
        return None
    return Path(found) if isinstance(found, str) else None


def _of_card(path: Path | None) -> Licence | None:
    """The licence in a card's metadata; None if it can't be read, as somebody else wrote it."""
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST).decode("utf-8", "replace")
        front = re.match(r"---\r?\n(.*?)\r?\n---", text, re.DOTALL)
        metadata = parse_yaml(front[1])[1] if front else None
    except (OSError, yaml.YAMLError):
        return None
    if not isinstance(metadata, dict):
        return None
    values = (metadata.get(f"license{part}") for part in ("", "_name", "_link"))
    return _licence(*values)


def _of_gguf(path: Path, folder: Path) -> Licence | None:
    """That of a GGUF file, as it was noted in the folder of what it was converted to, or read again."""
    noted = read_if_whole(folder / SOURCE).get("licence")
    if isinstance(noted, list) and len(noted) == 3:  # noqa: PLR2004 - id, name and address
        return _licence(*noted)
    if find_spec("gguf") is None:
        return None
    try:
        return _licence(*licence_of(path))
    except (OSError, ValueError):
        return None


def _licence(id_: object, name: object, link: object) -> Licence | None:
    """A licence of what somebody else wrote: only what has the form of an id, a name, an address."""
    if isinstance(id_, list) and len(id_) == 1:
        id_ = id_[0]
    if not isinstance(id_, str) or not re.fullmatch(r"[\w.+-]{1,64}", id_):
        return None
    named = name if isinstance(name, str) and re.fullmatch(r"[\w .+-]{1,64}", name) else None
    address = re.compile(r"https?://[^\s<>\"'()|]{1,200}")
    web = link if isinstance(link, str) and address.fullmatch(link) else None
    return Licence(id_.lower(), named, web)
