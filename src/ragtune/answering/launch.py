"""The commands that start a server with a run's model: vLLM's arguments, and those of `transformers serve`.

vLLM's were read from version 0.33 and are tested as a snapshot; that server itself was not tried.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ragtune.base.commands import command_line
from ragtune.base.errors import UsageError
from ragtune.recipe.section import Scalar

Backend = Literal["vllm", "transformers"]

_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as --max-lora-rank; its default is 16."""
_QUIET = {"DO_NOT_TRACK": "1"}
"""vLLM sends what it runs on and which model it has."""


@dataclass(frozen=True)
class BindAddress:
    """Where a server listens."""

    host: str
    port: int

    @property
    def endpoint(self) -> str:
        """Its address for who asks from this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self.host, self.host)  # noqa: S104 - asked for
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/v1"


@dataclass(frozen=True)
class Command:
    """A command that starts a server."""

    words: tuple[str, ...]
    environment: Mapping[str, str]
    """What it needs beside what is set."""
    name: str
    """What the server calls the tuned model."""
    base_name: str | None
    """What it calls the base, if it has it as well."""

    def __str__(self) -> str:
        """As a shell takes it."""
        return command_line(*self.words, environment=self.environment)


@dataclass(frozen=True)
class ServedModel:
    """What is to be served of a run."""

    base: str
    """The base's folder, or its id on the Hub."""
    base_name: str
    name: str
    """What the tuned model is to be called."""
    adapter: Path
    merged: Path | None
    """The merged model, if that is what is served; else the adapter on the base."""
    dtype: str
    rank: int = 16
    """Of the adapter, where it is largest."""
    revision: str | None = None
    longest: int | None = None
    """Tokens of a prompt and its answer together, where that is less than the model can read."""
    nf4: bool = False
    trust_remote_code: bool = False
    template_arguments: Mapping[str, Scalar] = field(default_factory=dict)
    """What the chat template is given beside the messages, where a question doesn't say."""


def lora_options(rank: int, name: str, adapter: Path) -> tuple[str, ...]:
    """The options of vLLM for an adapter."""
    allowed = next((one for one in _LORA_RANKS if one >= rank), rank)
    module = f"{name}={adapter}"
    if "," in module or "=" in name:  # which it would take for JSON, or cut elsewhere
        module = json.dumps({"name": name, "path": str(adapter)}, ensure_ascii=False)
    return "--enable-lora", f"--max-lora-rank={allowed}", f"--lora-modules={module}"


def vllm_command(tuned: ServedModel, bind: BindAddress) -> Command:
    """To start vLLM with the adapter on the base, both under a name of their own; or with the merged model.

    Raises:
        UsageError: the adapter's rank is too large, or both would have one name.
    """
    words = ["vllm", "serve", _argument(tuned.merged or tuned.base)]
    if tuned.merged is None:
        if tuned.rank > _LORA_RANKS[-1]:
            raise UsageError(
                f"The adapter has rank {tuned.rank}, and vLLM takes {_LORA_RANKS[-1]} at most.",
                "Serve the merged model, with --merged.",
            )
        if tuned.name == tuned.base_name:
            raise UsageError(
                f"The tuned model and the base would both be called {tuned.name}.",
                "Give --name another one.",
            )
        words.append(f"--served-model-name={tuned.base_name}")
        words += lora_options(tuned.rank, tuned.name, tuned.adapter)
        # The base's own template may ask otherwise, and end elsewhere, than what was trained.
        words.append(f"--chat-template={tuned.adapter / 'chat_template.jinja'}")
        words.append(f"--generation-config={tuned.adapter}")
        words += [f"--revision={tuned.revision}"] if tuned.revision else []
        words += ["--quantization=bitsandbytes"] if tuned.nf4 else []
    else:
        words.append(f"--served-model-name={tuned.name}")
    words += [f"--max-model-len={tuned.longest}"] if tuned.longest else []
    words += _common(tuned, bind, "--default-chat-template-kwargs")
    base_name = tuned.base_name if tuned.merged is None else None
    return Command(tuple(words), _QUIET, tuned.name, base_name)


def transformers_command(tuned: ServedModel, bind: BindAddress) -> Command:
    """To start `transformers serve` with the merged model, which it calls by its folder.

    Raises:
        UsageError: it could not name the folder.
    """
    assert tuned.merged is not None
    model = _argument(tuned.merged)
    if "@" in model:  # it takes what follows for a revision
        raise UsageError(
            f"transformers serve can't load {model}: behind @ it expects a revision of the Hub.",
            "Rename the folder, or go into it and name the run by a path without @, such as `.`.",
        )
    words = ("transformers", "serve", model, *_common(tuned, bind, "--chat-template-kwargs"))
    # At /load_model it loads what it is told: nobody who asks is to make it download that, or have it take
    # another model of the Hub's cache. It lists that cache at /v1/models, and fails there without one.
    closed = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tuned.merged)}
    return Command(words, closed, model, None)


def _common(tuned: ServedModel, bind: BindAddress, arguments: str) -> list[str]:
    words = [f"--dtype={tuned.dtype}", f"--host={bind.host}", f"--port={bind.port}"]
    if tuned.template_arguments:
        given = json.dumps(dict(tuned.template_arguments), ensure_ascii=False)
        words.append(f"{arguments}={given}")
    return words + ["--trust-remote-code"] * tuned.trust_remote_code


def _argument(model: Path | str) -> str:
    """A model as a word of a command: a path that begins with a dash is no option."""
    return f"./{model}" if str(model).startswith("-") else str(model)
