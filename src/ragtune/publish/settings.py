"""The recipe as it is published: without what belongs to one machine; in the card, and beside the model.

Whoever asks the model needs it, to prompt it as it was trained.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ragtune.data.counts import SplitName
from ragtune.publish.licences import Origin
from ragtune.recipe.schema import Recipe
from ragtune.recipe.yaml import dump_yaml

SETTINGS = "ragtune.yaml"
"""The file beside a published model."""
_HEAD = "# How this model was made, and is to be asked: ragtune.Reader.load and `ragtune ask` read it.\n"


def settings_text(
    recipe: Recipe, base_model: str | None, origins: Mapping[SplitName, Origin], commit: str | None
) -> str:
    """What `SETTINGS` says: a recipe of its own.

    Args:
        recipe: of the run.
        base_model: the base's Hub id, None if only this machine has it.
        origins: of the data.
        commit: of the base on the Hub.
    """
    public = public_recipe(recipe, base_model, origins)
    public["model"]["revision"] = commit or recipe.model.revision
    public["data"]["refusal"] = recipe.data.refusal  # an answer is no path, whatever it begins with
    public["evaluate"]["engine"] = "local"
    public["publish"] = {"format": recipe.publish.format}
    return _HEAD + dump_yaml(public)


def public_recipe(
    recipe: Recipe, base_model: str | None, origins: Mapping[SplitName, Origin]
) -> dict[str, Any]:
    """The recipe without what it says of this machine: of a path, only the file's name is left."""
    served = {"endpoint", "served_before", "served_after"}
    public = recipe.model_dump(mode="json", exclude={"publish": True, "evaluate": served})
    if not recipe.model.id.startswith("package:"):
        public["model"]["id"] = base_model or "(a local model)"
    for split, origin in origins.items():
        source = public["data"][split]
        if source and not source.startswith("sample:"):
            public["data"][split] = source if origin.hub else origin.name
    for name, section in public.items():
        # The prompt is text, its files are read when the recipe is: "/no_think" is no path.
        if isinstance(section, dict) and name != "prompt":
            section |= {key: _without_folder(value) for key, value in section.items()}
    return public


def _without_folder(value: object) -> object:
    """A value; only the last name of a path that starts at a root or at home."""
    if isinstance(value, list):
        return [_without_folder(inner) for inner in value]
    if isinstance(value, str) and re.match(r"[/~\\]|[A-Za-z]:[/\\]|file:", value):
        return re.split(r"[/\\]", value.rstrip("/\\"))[-1]
    return value
