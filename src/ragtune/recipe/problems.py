"""What is wrong with a recipe or corpus: a line a key, with its place, what was found and what is wanted."""

from __future__ import annotations

import typing

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ragtune.base.text import nearest, one_or_many, shortened
from ragtune.recipe.keys import all_keys, describe_key, field_of, section_of
from ragtune.recipe.section import Section
from ragtune.recipe.starter import STARTERS
from ragtune.recipe.yaml import dump_yaml

_LONGEST_KEY = 200
"""How much of an unknown key is looked at and shown, in characters."""
_PROBLEMS = 50
"""How many wrong keys a message names."""


def problems_in(
    error: ValidationError, root: type[Section], where: str, places: dict[str, str]
) -> str:
    """A line for each key that is wrong.

    Args:
        error: pydantic's.
        root: what was validated.
        where: the file, where a key has no place of its own.
        places: the file and line, or the override, of each dotted key.
    """
    by_key: dict[str, list[ErrorDetails]] = {}
    for problem in error.errors():
        by_key.setdefault(_key_of(problem["loc"], root), []).append(problem)
    lines = [_describe(key, by_key[key], root, where, places) for key in list(by_key)[:_PROBLEMS]]
    if len(by_key) > _PROBLEMS:
        lines.append(f"{where}: and {one_or_many(len(by_key) - _PROBLEMS, 'problem')} more.")
    return "\n".join(lines)


def _key_of(location: tuple[str | int, ...], root: type[Section]) -> str:
    """The dotted key of pydantic's location, without what it adds for a union or a list's item."""
    keys: list[str] = []
    model: type[BaseModel] | None = root
    for part in location:
        if model is None:
            break
        keys.append(str(part))
        field = model.model_fields.get(str(part))
        model = section_of(field.annotation) if field else None
    return ".".join(keys)


def _describe(
    dotted: str,
    found: list[ErrorDetails],
    root: type[Section],
    where: str,
    places: dict[str, str],
) -> str:
    """One line on a key; a union's every member has found something wrong with it."""
    place = next((places[p] for p in (dotted, dotted.rpartition(".")[0]) if p in places), where)
    kind, value = found[0]["type"], found[0]["input"]
    if kind == "extra_forbidden":
        keys, last = all_keys(root), dotted.rpartition(".")[2]
        elsewhere = [key for key in keys if key.rpartition(".")[2] == last]
        near = elsewhere[0] if len(elsewhere) == 1 else nearest(dotted[:_LONGEST_KEY], keys)
        hint = f" Did you mean {near}?" if near else ""
        return f"{place}: unknown key {dotted[:_LONGEST_KEY]}.{hint}"
    if kind == "missing":
        starter = STARTERS[root]
        such = (
            f", such as {dotted}: {dump_yaml(starter[dotted], in_line=True)}"
            if dotted in starter
            else ""
        )
        return f"{place}: {dotted} is missing ({describe_key(dotted, root)}){such}."
    if kind == "value_error":
        return f"{place}: {f'{dotted}: ' if dotted else ''}{found[0]['ctx']['error']}."
    shown = shortened(repr(value))
    if kind == "model_type":
        return f"{place}: {dotted} = {shown}: a section holds `key: value` lines."
    if kind == "string_pattern_mismatch":
        return f"{place}: {dotted} = {shown} has another form than wanted: {describe_key(dotted, root)}."
    first, *others = dict.fromkeys(e["msg"] for e in found)
    wanted = first[0].lower() + first[1:]
    wanted += "".join(f" or {other.removeprefix('Input should be ')}" for other in others)
    if kind == "string_type" and isinstance(value, int | float):
        wanted += " (in quotes)"
    if kind == "list_type" and isinstance(value, str):
        wanted += f", such as [{value}]"
    field = field_of(dotted, root)
    if field and type(None) in typing.get_args(field.annotation):
        wanted += " or null"
    return f"{place}: {dotted} = {shown}: {wanted} ({describe_key(dotted, root)})."
