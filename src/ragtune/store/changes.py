"""What of a recipe a stage read, and what differs from it now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from ragtune.recipe.keys import field_of
from ragtune.recipe.schema import Recipe

_MAPPINGS = ("data.fields", "prompt.template_arguments", "train.arguments")
"""Keys whose value is a mapping, and no section."""


@dataclass(frozen=True)
class Change:
    """Something that is otherwise than it was, in words, and the stages that it makes invalid."""

    words: str
    stages: tuple[str, ...]


def flat(values: dict[str, JsonValue], prefix: str = "") -> dict[str, JsonValue]:
    """A recipe's values by dotted key."""
    out: dict[str, JsonValue] = {}
    for key, value in values.items():
        if isinstance(value, dict) and f"{prefix}{key}" not in _MAPPINGS:
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out


def part_of(
    recipe: Recipe, reads: tuple[str, ...], but: tuple[str, ...] = ()
) -> dict[str, JsonValue]:
    """The values of the keys that begin with one of `reads`, and with none of `but`."""
    values = flat(recipe.model_dump(mode="json"))
    return {k: v for k, v in values.items() if k.startswith(reads) and not k.startswith(but)}


def with_part(recipe: Recipe, part: Mapping[str, JsonValue]) -> Recipe:
    """A recipe with other values under some dotted keys, those that it still has."""
    values = recipe.model_dump(mode="json")
    for dotted, value in part.items():
        if field_of(dotted) is not None:
            section, _, key = dotted.rpartition(".")
            (values[section] if section else values)[key] = value
    return Recipe.model_validate(values)


def differing(then: dict[str, JsonValue], now: dict[str, JsonValue]) -> list[str]:
    """The keys whose values differ."""
    return [key for key in now if value_of(then, key) != now[key]]


def value_of(part: dict[str, JsonValue], key: str) -> JsonValue:
    """A key's value in what a stage read; one that the stage knew nothing of had its default."""
    if key in part:
        return part[key]
    if key == "evaluate.products":  # before it was there, answers were given as was trained
        return part.get("train.products")
    field = field_of(key)
    value: JsonValue = None if field is None or field.is_required() else field.default
    return value
