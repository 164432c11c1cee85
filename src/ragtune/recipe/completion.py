"""What a shell offers on the command line: recipes and run directories, a recipe's keys and their values."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from ragtune.base.screen.usage import Completer, Offer

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from ragtune.recipe.section import Section

_PLAIN = re.compile(r"[\w./+@-]+")
"""Names that no shell reads as anything else; others the shell's own completion of files quotes."""
_RECIPES = ("*.yaml", "*.yml", "recipes/*.yaml")
_RUNS, _CORPORA = ("runs/*", "*"), ("corpora/*", "*")
_MOST = 200
"""Offers at most: more help nobody."""
_LONGEST = 60
"""Of a description, in characters: Typer breaks lines at 80, which fish takes for offers."""


def _targets(_: typer.Context, incomplete: str) -> list[Offer]:
    """Run directories and files of recipes."""
    runs = [(run, "a run") for run in _folders(_RUNS, "recipe.yaml")]
    return _fitting([*runs, *((file, "a file") for file in _files(_RECIPES))], incomplete)


def _runs(_: typer.Context, incomplete: str) -> list[Offer]:
    return _fitting([(run, "a run") for run in _folders(_RUNS, "recipe.yaml")], incomplete)


def _corpora(_: typer.Context, incomplete: str) -> list[Offer]:
    return _fitting([(file, "a file") for file in _files(_RECIPES)], incomplete)


def _built(_: typer.Context, incomplete: str) -> list[Offer]:
    return _fitting([(one, "a corpus") for one in _folders(_CORPORA, "build.json")], incomplete)


def _shipped(_: typer.Context, incomplete: str) -> list[Offer]:
    from ragtune.recipe.shipped import names  # noqa: PLC0415 - it loads pydantic, which most do without

    return _fitting([(name, "") for name in names()], incomplete)


def _changes(ctx: typer.Context, incomplete: str) -> list[Offer]:
    from ragtune.recipe.schema import Recipe  # noqa: PLC0415 - pydantic

    return _keys(Recipe, ctx, incomplete)


def _corpus_changes(ctx: typer.Context, incomplete: str) -> list[Offer]:
    from ragtune.recipe.corpus import Corpus  # noqa: PLC0415 - pydantic

    return _keys(Corpus, ctx, incomplete)


COMPLETERS: dict[str, Completer] = {
    "target": _targets,
    "targets": _targets,
    "overrides": _changes,
    "run_dir": _runs,
    "corpus": _corpora,
    "corpus_overrides": _corpus_changes,
    "corpus_folder": _built,
    "recipe": _shipped,
}
"""By what `base/screen/usage.py` calls an argument."""


def _fitting(offers: list[Offer], incomplete: str) -> list[Offer]:
    fits = [
        one
        for one in offers
        # What begins with a hyphen would be taken for an option, whatever lies there under its name.
        if one[0].startswith(incomplete) and _PLAIN.fullmatch(one[0]) and one[0][0] != "-"
    ]
    return sorted(dict(fits).items())[:_MOST]


def _folders(patterns: tuple[str, ...], holding: str) -> Iterator[str]:
    """Folders that hold a file, as they are written on a command line."""
    for pattern in patterns:
        for file in Path().glob(f"{pattern}/{holding}"):
            yield file.parent.as_posix()


def _files(patterns: tuple[str, ...]) -> Iterator[str]:
    for pattern in patterns:
        for file in Path().glob(pattern):
            yield file.as_posix()


def _keys(root: type[Section], ctx: typer.Context, incomplete: str) -> list[Offer]:
    """`section.key=` for what is begun; where one key is left, its values too.

    bash breaks words at =: there the key is the word before.
    """
    from ragtune.recipe.keys import all_keys, field_of, sections  # noqa: PLC0415 - pydantic

    before = [str(one) for one in ctx.params.get("overrides") or ctx.params.get("texts") or []]
    if before[-1:] == ["="] or incomplete == "=":
        key = before[-2] if before[-1:] == ["="] else "".join(before[-1:])
        begun, lead = incomplete.removeprefix("="), ""
    else:
        key, _, begun = incomplete.partition("=")
        lead = f"{key}="
    if not lead or "=" in incomplete:
        field = field_of(key, root)
        values = _values(key, field, root) if field else []
        return [(lead + one, "") for one in values if one.startswith(begun)]
    keys = [one for one in all_keys(root) if one not in sections(root) and one.startswith(key)]
    offers = [(f"{one}=", _described(field_of(one, root))) for one in keys]
    if len(keys) == 1:  # a second offer keeps shells from a blank behind the =
        offers += [
            (f"{keys[0]}={one}", "") for one in _values(keys[0], field_of(keys[0], root), root)
        ]
    return offers


def _described(field: FieldInfo | None) -> str:
    """What a key means, up to the first mark that one of the shells would read as its own."""
    text = (field.description or "") if field else ""
    return re.split(r"[^\w ,.()/-]", text)[0].strip(" (,")[:_LONGEST]


def _values(key: str, field: FieldInfo | None, root: type[Section]) -> list[str]:
    """Which values a key may have, as far as they are few; else its default, or what a starter sets."""
    from ragtune.recipe.starter import STARTERS  # noqa: PLC0415 - pydantic, YAML
    from ragtune.recipe.yaml import dump_yaml  # noqa: PLC0415 - YAML

    if field is None:
        return []
    found = [*_choices(field.annotation)]
    section, _, name = key.rpartition(".")
    set_there: Any = STARTERS[root].get(section, {}) if section else STARTERS[root]
    default = set_there.get(name) if field.is_required() else field.default
    if default is not None:
        found.append(dump_yaml(default, in_line=True))
    return [one for one in dict.fromkeys(found) if _PLAIN.fullmatch(one)]


def _choices(annotation: object) -> Iterator[str]:
    """The words that a type admits."""
    if annotation is bool:
        yield from ("true", "false")
    elif annotation is types.NoneType:
        yield "null"
    elif typing.get_origin(annotation) is Literal:
        yield from map(str, typing.get_args(annotation))
    elif isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        for part in typing.get_args(annotation):
            yield from _choices(part)
