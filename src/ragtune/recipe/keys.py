"""The dotted keys of a configuration: of the recipe, or of a corpus."""

from __future__ import annotations

import typing

from pydantic.fields import FieldInfo

from ragtune.recipe.schema import Recipe
from ragtune.recipe.section import Section


def section_of(annotation: object) -> type[Section] | None:
    """The section that a field holds, if it holds one; it may be left out (`Generate | None`)."""
    for kind in (annotation, *typing.get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, Section):
            return kind
    return None


def sections(root: type[Section] = Recipe) -> dict[str, type[Section]]:
    """The sections by their dotted names, those within sections, too."""
    found: dict[str, type[Section]] = {}
    for name, field in root.model_fields.items():
        if section := section_of(field.annotation):
            found[name] = section
            found |= {f"{name}.{inner}": kind for inner, kind in sections(section).items()}
    return found


def all_keys(root: type[Section] = Recipe) -> list[str]:
    """Every dotted key, sections included."""
    keys: list[str] = []
    for name, field in root.model_fields.items():
        keys.append(name)
        if section := section_of(field.annotation):
            keys += [f"{name}.{inner}" for inner in all_keys(section)]
    return keys


def field_of(dotted: str, root: type[Section] = Recipe) -> FieldInfo | None:
    """The field that a dotted key names."""
    section, _, key = dotted.rpartition(".")
    model = sections(root).get(section) if section else root
    return model.model_fields.get(key) if model else None


def describe_key(dotted: str, root: type[Section] = Recipe) -> str:
    """What a dotted key means, from its field."""
    field = field_of(dotted, root)
    if field is None:
        return "see `ragtune schema`"
    section = section_of(field.annotation)
    return (field.description or (section.__doc__ if section else "") or "").strip().rstrip(".")
