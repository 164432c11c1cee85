"""What of a recipe a stage read, and what differs from it now."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import JsonValue

from ragtune.recipe.schema import Recipe, field_of


@dataclass(frozen=True)
class Change:
    """Something that is otherwise than it was, in words, and the stages that it makes invalid."""

    words: str
    stages: tuple[str, ...]


def flat(values: dict[str, JsonValue], prefix: str = "") -> dict[str, JsonValue]:
    """A recipe's values by dotted key."""
    out: dict[str, JsonValue] = {}
    for key, value in values.items():
        if isinstance(value, dict) and f"{prefix}{key}" != "prompt.template_arguments":
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


def differing(then: dict[str, JsonValue], now: dict[str, JsonValue]) -> list[str]:
    """The keys whose values differ; one that a stage knew nothing of had its default."""

    def value(key: str) -> JsonValue:
        if key in then:
            return then[key]
        field = field_of(key)
        return None if field is None or field.is_required() else field.default

    return [key for key in now if value(key) != now[key]]
