"""The points of a sweep: every combination of the values that keys are given, and what its runs are called."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from glob import has_magic

from ragtune.base.disk import named_path
from ragtune.base.errors import UsageError
from ragtune.recipe.load import load_recipe
from ragtune.recipe.schema import CHANGES_NOTHING, Recipe
from ragtune.store.changes import part_of, with_part
from ragtune.store.inputs import contents
from ragtune.store.proof import fingerprint

_NAME = 60
"""Characters of a point's name before it is cut: a run's may have a hundred."""
_MOST = 200
"""Points of a sweep; a slip of the keys would train for a year."""
_OURS = ("seed", "name", "data.train", "data.eval", "data.source", "data.format", "data.fields")
"""What a sweep sets itself, or holds for all points."""
_ASKED = ("evaluate.limit", "evaluate.questions")
"""Which questions a figure is of."""
_NO_MATTER = (*CHANGES_NOTHING, "seed", "data.eval")
"""What the answers of a point's runs to the held questions don't depend on, or are told apart by."""
_READS = ("model.id", "train.preference")
"""Keys whose files each run reads beside the sweep's own data."""


@dataclass(frozen=True)
class Point:
    """One combination."""

    changes: tuple[str, ...]
    """To the recipe: KEY=VALUE; none of the keys that all points have alike."""
    recipe: Recipe
    """With those, too."""
    files: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """What the files on this machine hold that each run reads beside the sweep's data (`contents`)."""
    known_as: str = ""
    """The name that runs of the same key have in the sweep's folder, if any are there."""

    @cached_property
    def key(self) -> str:
        """Of all that its figures depend on beside the sweep's data and the seed."""
        return fingerprint([part_of(self.recipe, ("",), _NO_MATTER), self.files])[:10]

    @property
    def name(self) -> str:
        """Of its runs: readable, and another one for another key."""
        words = "_".join(map(_short, self.changes)) or "as-it-is"
        plain = re.sub(r"[^\w.-]+", "-", words).strip("-.")[:_NAME]
        return self.known_as or f"{plain}_{self.key}"

    def run(self, seed: int) -> str:
        """The name of its run with a seed."""
        return f"{self.name}_seed-{seed}"

    @property
    def label(self) -> str:
        """What tables call it."""
        return ", ".join(self.changes) or "the recipe as it is"


def points_of(source: Recipe, overrides: Sequence[str]) -> list[Point]:
    """Every combination, in the order in which the values are given.

    Args:
        source: the recipe.
        overrides: KEY=VALUE, or KEY=VALUE,VALUE for what is tried; a comma in brackets or quotes is no border.

    Raises:
        UsageError: a combination is no valid recipe, or a key is given that a sweep sets itself.
    """
    given = [_values(one) for one in overrides]
    keys = [key for key, _ in given]
    for key in [key for key, values in given if len(values) > 1]:
        _require_worth_trying(key)
        if keys.count(key) > 1:
            raise UsageError(
                f"{key} is given {keys.count(key)} times.",
                f"Give all its values at once: {key}=…,…",
            )
    fixed = [f"{key}={values[0]}" for key, values in given if len(values) == 1]
    tried = [[f"{key}={value}" for value in values] for key, values in given if len(values) > 1]
    combinations = list(itertools.product(*tried))
    if len(combinations) > _MOST:
        raise UsageError(
            f"That makes {len(combinations):,} points, and a sweep has {_MOST} at most.",
            "Try fewer values, or begin with those that matter most.",
        )
    recipes = [_resolved(load_recipe(source, [*fixed, *one])) for one in combinations]
    found = list(map(Point, combinations, recipes, _files_of(recipes)))
    _require_comparable(found)
    alike: dict[str, Point] = {}
    for point in found:
        other = alike.setdefault(point.recipe.model_dump_json(), point)
        if other is not point:
            raise UsageError(
                f"{other.label} and {point.label} are the same.", "Leave one of them out."
            )
    return found


def _files_of(recipes: Iterable[Recipe]) -> Iterator[dict[str, dict[str, str]]]:
    """What the files hold that each recipe names; those that several name are read once."""
    read: dict[tuple[str, str | None], dict[str, dict[str, str]]] = {}
    for recipe in recipes:
        named = recipe.model.id, recipe.train.preference
        if named not in read:
            read[named] = contents(recipe, _READS)
        yield read[named]


def _resolved(recipe: Recipe) -> Recipe:
    """The recipe with whole paths: it is written down, and read from wherever it is run."""
    texts = {
        "model.id": recipe.model.id,
        "data.train": recipe.data.train,
        "data.eval": recipe.data.eval,
        "train.preference": recipe.train.preference,
        "evaluate.general_folder": recipe.evaluate.general_folder,
    }
    paths = {key: (text, named_path(text, key)) for key, text in texts.items() if text}
    there = {
        key: str(path.absolute())
        for key, (text, path) in paths.items()
        if path.exists() or has_magic(text)
    }
    return with_part(recipe, there)


def _require_comparable(points: Sequence[Point]) -> None:
    """Raise UsageError if points would be trained alike under several names, or be asked other questions."""
    if any(point.recipe.full for point in points):
        for change in (change for point in points for change in point.changes):
            if change.startswith("lora."):
                raise UsageError(
                    f"A sweep with tuning: full does not try several values of {change.partition('=')[0]}: "
                    "all weights are trained then, and the lora section is not used.",
                    "Give it one value, and try tuning: full in a sweep of its own.",
                )
    refusing = {point.recipe.data.refusal is not None for point in points}
    if len(refusing) > 1 and points[0].recipe.evaluate.questions != "all":
        raise UsageError(
            "data.refusal is null for some points: they would not be asked what can't be answered, and figures "
            "of other questions can't be compared.",
            "Set evaluate.questions=all, so that all are asked the same, or give data.refusal a text.",
        )


def _require_worth_trying(key: str) -> None:
    """Raise UsageError if several values of a key can't be told apart by what they make."""
    refused = f"A sweep does not try several values of {key}"
    if key in _OURS:
        raise UsageError(
            f"{refused}.", "Seeds are counted by --seeds; data are the same for all points."
        )
    if key.startswith(CHANGES_NOTHING):
        raise UsageError(f"{refused}: it changes no model and no answer.", "Give it one value.")
    if key in _ASKED:
        raise UsageError(
            f"{refused}: figures of other questions can't be compared.", "Give it one value."
        )


def _values(override: str) -> tuple[str, list[str]]:
    """A key and its values."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise UsageError(
            f"'{override}' is no override.",
            "Write section.key=value, or several: train.learning_rate=1e-4,2e-4.",
        )
    return key.strip(), _split(text)


def _split(text: str) -> list[str]:
    """A text at its commas, but for those within brackets, braces or quotes."""
    parts, depth, quote = [""], 0, ""
    for sign in text:
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        depth += (sign in "[{") - (sign in "]}") if not quote else 0
        if sign == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts]


def _short(change: str) -> str:
    """A change without its section: `learning_rate=1e-4`."""
    key, _, value = change.partition("=")
    return f"{key.rpartition('.')[2]}={value}"
