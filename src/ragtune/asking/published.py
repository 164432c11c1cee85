"""What `push` published, merged model or adapter, from a folder or the Hub; asked as it was trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import errors, hf_hub_download, snapshot_download

from ragtune.asking.model import Model
from ragtune.asking.source import HUB_ID
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.reading import read_text
from ragtune.base.screen.progress import busy
from ragtune.base.text import first_line
from ragtune.base.web.hub import api, own_bars
from ragtune.base.web.network import hub_is_offline
from ragtune.base.web.refusals import SENSELESS, HTTPError, explain
from ragtune.data.encode import Encoder
from ragtune.data.tokenizer import prepare_tokenizer
from ragtune.model.hardware import answering_alone
from ragtune.model.load import context_length, load_tokenizer
from ragtune.model.safety import ADAPTER
from ragtune.model.source import ModelSource
from ragtune.publish.settings import SETTINGS
from ragtune.recipe.load import load_recipe
from ragtune.recipe.schema import Recipe
from ragtune.recipe.yaml import parse_yaml
from ragtune.stages.context import Context

_WANTED = ["*.safetensors", "*.json", "*.jinja", "*.txt", "tokenizer.model", SETTINGS]
"""Of a repository: weights, tokenizer, settings; no code, and nothing that could run any."""
_TAKEN = {
    "data": ("max_passages", "shuffle_passages", "refusal"),
    "prompt": (
        "preset",
        "template",
        "system",
        "template_arguments",
        "max_tokens",
        "citations",
        "quote",
    ),
    "evaluate": ("max_new_tokens", "copy", "refuse_below", "orders"),
    "publish": ("format",),
}
"""What is believed of a stranger's file: how the model is asked, and nothing of what runs here."""
_LARGEST = 1 << 20
_TOGETHER = "Copy all that `push` sent into one folder, or name the repository on the Hub."


def open_published(folder: Path, name: str, overrides: Sequence[str]) -> Model:
    """The model in a folder that holds what `push` sends.

    Args:
        folder: with its files.
        name: what it is called.
        overrides: changes to its recipe.

    Raises:
        UsageError: something is missing, or the base of an adapter isn't known.
    """
    recipe = _recipe(folder, overrides)
    if recipe.publish.format == "gguf":
        raise UsageError(
            f"{folder} holds a GGUF file, which ragtune doesn't ask.",
            "Ask it with Ollama or llama.cpp; or name the run, its merged model or its adapter.",
        )
    merged = recipe.publish.format == "merged"
    if not (folder / ("config.json" if merged else ADAPTER)).is_file():
        what = "model (config.json)" if merged else f"adapter ({ADAPTER})"
        raise UsageError(f"{folder} holds no {what}, though {SETTINGS} says so.", _TOGETHER)
    context = Context(recipe, run_dir=folder)
    if not context.remote:
        context.hardware = context.hardware_for(answering_alone(recipe))
    # The one that was published has the chat template as it was trained: with its arguments and its date.
    tokenizer = prepare_tokenizer(load_tokenizer(ModelSource(str(folder), None)), recipe)
    context.encoder = Encoder(tokenizer, recipe, context_length(context.config))
    return Model(context, name, None if merged else folder)


def download(name: str) -> Path:
    """The folder of the Hub's cache with what was published under a name.

    Raises:
        UsageError: there is no such repository, or ragtune didn't publish it.
        RagtuneError: the Hub can't be asked.
    """
    endpoint, local = api().endpoint, hub_is_offline()
    try:
        with busy(f"downloading {name}"), own_bars():
            # First of all, before gigabytes of somebody else's.
            first = hf_hub_download(name, SETTINGS, endpoint=endpoint, local_files_only=local)
            return Path(
                snapshot_download(
                    name,
                    revision=Path(first).parent.name,
                    allow_patterns=_WANTED,
                    endpoint=endpoint,
                    local_files_only=local,
                )
            )
    except errors.EntryNotFoundError as error:
        if isinstance(error, errors.LocalEntryNotFoundError):
            raise RagtuneError(
                f"{name} is not in the Hub's cache, and the Hub can't be asked.",
                "Ask it once with a network; or name the folder of a run.",
            ) from None
        raise UsageError(
            f"{name} on the Hub holds no {SETTINGS}: it was not published by ragtune, or by an older one.",
            "Publish it again with `ragtune push`, or name the directory of its run.",
        ) from None
    except (HTTPError, OSError, ValueError, *SENSELESS) as error:
        reason, advice = explain(error, name, writing=False)
        raise RagtuneError(
            f"{name} is not here, and can't be read from the Hub. {reason}", advice
        ) from error


def _recipe(folder: Path, overrides: Sequence[str]) -> Recipe:
    written = _written(folder / SETTINGS)
    values: dict[str, Any] = {
        section: {key: getattr(getattr(written, section), key) for key in keys}
        for section, keys in _TAKEN.items()
    }
    values["name"], values["seed"] = written.name, written.seed
    values["data"] |= {"train": "(not here)", "eval": "(not here)"}
    values["train"] = {"steps": 1}
    values["model"] = {"id": str(folder)}
    if written.publish.format == "adapter":
        values["model"] = _base(written)
    recipe = load_recipe(values, list(overrides))
    if recipe.model.id == _UNKNOWN:
        raise UsageError(
            f"{folder} is an adapter, and its base is a model that is not on the Hub.",
            "Name the base: model.id=FOLDER.",
        )
    return recipe


def _written(path: Path) -> Recipe:
    try:
        _, values = parse_yaml(read_text(path, _LARGEST))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{path} can't be read: {first_line(error)}.", _TOGETHER) from None
    prompt = values.get("prompt") if isinstance(values, dict) else None
    if not isinstance(values, dict) or not isinstance(prompt, dict):
        raise UsageError(f"{path} does not say how the model is prompted.", _TOGETHER)
    for key in ("template", "chat_template"):
        # `push` writes the text; a stranger's file must not have one of this machine read.
        if str(prompt.get(key)).endswith((".jinja", ".j2")):
            raise UsageError(f"{path}: prompt.{key} names a file, and holds no text.", _TOGETHER)
    return load_recipe(values)


_UNKNOWN = "(a local model)"


def _base(written: Recipe) -> dict[str, str | None]:
    known = written.model.id.startswith("package:") or HUB_ID.fullmatch(written.model.id)
    if (
        not known or Path(written.model.id).exists()
    ):  # a stranger's file names nothing of this machine
        return {"id": _UNKNOWN}
    return {"id": written.model.id, "revision": written.model.revision}
