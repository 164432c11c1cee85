"""What `ragtune init` writes: a recipe or corpus, some keys set, the others as comments with defaults."""

from __future__ import annotations

import functools
import types
import typing
from pathlib import Path
from typing import Any, Literal

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.files import writing
from ragtune.recipe.corpus import Corpus
from ragtune.recipe.keys import section_of
from ragtune.recipe.schema import Recipe
from ragtune.recipe.section import Section
from ragtune.recipe.yaml import dump_yaml

STARTER: dict[str, Any] = {
    "name": "my-run",
    "model": {"id": "HuggingFaceTB/SmolLM2-135M-Instruct"},
    "data": {"train": "train.jsonl", "eval": "eval.jsonl", "max_passages": 3},
    "prompt": {"preset": "english"},
    "lora": {"rank": 16, "alpha": 32},
    "train": {"steps": 100, "batch_size": 16, "learning_rate": 2e-4},
    "evaluate": {"metric": "squad_em"},
    "publish": {"format": "merged", "repo": None},
}
"""What `ragtune init` sets; every other key stands there as a comment."""
CORPUS_STARTER: dict[str, Any] = {
    "name": "my-corpus",
    "documents": {"files": ["documents/"]},
    "questions": {"files": ["questions.csv"], "fields": {}, "eval_share": 0.2},
    "retrieval": {"passages": 10},
}
"""The same for `ragtune init --corpus`."""
ELSEWHERE = "Name a file elsewhere: ragtune init FILE."
STARTERS: dict[type[Section], dict[str, Any]] = {Recipe: STARTER, Corpus: CORPUS_STARTER}

_in_line = functools.partial(dump_yaml, in_line=True)


def write_starter(path: Path, root: type[Section], *, force: bool) -> None:
    """Write the recipe or corpus to start from into a file; `force` replaces one that is there.

    Raises:
        RagtuneError: it can't be written.
    """
    require_free(path, force=force)
    try:
        with writing(path) as file:
            file.write(commented(root, STARTERS[root]))
    except RagtuneError as error:  # its advice is for a run
        raise RagtuneError(error.message, ELSEWHERE) from error


def require_free(path: Path, *, force: bool) -> None:
    """Raise unless a file may be written there; `force` allows to replace one.

    Raises:
        UsageError: something is there.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder.", "Name the file to write.")
    if path.exists() and not force:
        raise UsageError(f"{path} is there already.", "Name another file, or use --force.")


def commented(root: type[Section], values: dict[str, Any]) -> str:
    """A configuration as YAML with each key's meaning and default beside it.

    Keys in `values` are set; the others stand as comments with their defaults.
    """
    out: list[str] = []
    for name, field in root.model_fields.items():
        section = section_of(field.annotation)
        if section is None:
            value = values.get(name, field.default)
            out.append(f"{name}: {_in_line(value)}  # {field.description}")
            continue
        given = values.get(name, {})
        # Of every section the name stands, so that its keys can be set one by one.
        out += ["", f"# {(section.__doc__ or '').strip()}", f"{name}:"]
        out += _keys(section, given, "  ")
    return "\n".join(out) + "\n"


def _keys(section: type[Section], given: dict[str, Any], indent: str) -> list[str]:
    """A section's keys, each with a comment above it."""
    out: list[str] = []
    for key, field in section.model_fields.items():
        choices = _choices(field.annotation)
        out.append(f"{indent}# {field.description}" + (f" [{choices}]" if choices else ""))
        if inner := section_of(field.annotation):
            out += [f"{indent}# {key}:", *_keys(inner, {}, f"{indent}#   ")]
            continue
        value = _in_line(given.get(key, None if field.is_required() else field.default))
        out.append(f"{indent}{'' if key in given else '# '}{key}: {value}")
    return out


def _choices(annotation: object) -> str:
    """The words that a field accepts, if it is a choice."""
    parts = (
        typing.get_args(annotation)
        if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union
        else (annotation,)
    )
    words = [w for p in parts if typing.get_origin(p) is Literal for w in typing.get_args(p)]
    return " | ".join(str(w) for w in words) if len(words) > 1 else ""
