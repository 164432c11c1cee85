"""`ragtune serve` as functions: a run served by the engine that is installed; what is served asked again."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ragtune.answering.launch import (
    Backend,
    BindAddress,
    Command,
    ServedModel,
    transformers_command,
    vllm_command,
)
from ragtune.asking.check_prompts import say_differences
from ragtune.asking.check_served import RunningServer, ask_again, own_answers
from ragtune.asking.opening import open_source
from ragtune.asking.process import Process, require_free
from ragtune.base.commands import command_line, install
from ragtune.base.errors import UsageError
from ragtune.base.files import read_json
from ragtune.base.screen.console import note, warn
from ragtune.base.screen.notebook import one_output
from ragtune.base.screen.progress import busy
from ragtune.base.stopping import stop_if_asked
from ragtune.scoring.reasked import Reasked
from ragtune.stages.context import Context
from ragtune.stages.holds import require_whole_stage
from ragtune.stages.order import proof_of, stage_named

_KEY = "VLLM_API_KEY"
_NEEDS = ("fastapi", "uvicorn", "openai")
"""What `transformers serve` needs beside transformers."""


@dataclass(frozen=True)
class ServeOptions:
    """What of a run is to be served, and how."""

    bind: BindAddress
    engine: Backend | None = None
    """The one that is installed by default, vLLM first."""
    merged: bool = False
    """The merged model, though the adapter could be served on its base."""
    name: str | None = None
    """What the tuned model is to be called."""


def serve(
    source: str | Path,
    *overrides: str,
    engine: Backend | None = None,
    merged: bool = False,
    name: str | None = None,
    address: tuple[str, int] = ("127.0.0.1", 8000),
    check: int = 0,
) -> int:
    """Serve a tuned model with OpenAI's interface until it is ended; returns the engine's exit code.

    Args:
        source: a run directory.
        overrides: changes to its recipe, such as model.dtype=bfloat16.
        engine: vllm or transformers; by default what is installed, vLLM first.
        merged: the merged model, though vLLM could have the adapter on the base.
        name: what clients call the tuned model (vLLM); by default the recipe's evaluate.served_after, or
            its name.
        address: where to listen. Beyond this machine vLLM needs a key, in VLLM_API_KEY.
        check: of how many evaluation questions are asked again through the server, once it is ready.

    Raises:
        UsageError: nothing is tuned yet, no engine is installed, or the port is taken.
    """
    options = ServeOptions(BindAddress(*address), engine, merged, name)
    return _start(open_run(source, overrides), options, check)


def serve_command(
    source: str | Path,
    *overrides: str,
    engine: Backend | None = None,
    merged: bool = False,
    name: str | None = None,
    address: tuple[str, int] = ("127.0.0.1", 8000),
) -> str:
    """The command that `serve` starts, for a shell. Takes and raises what `serve` does."""
    options = ServeOptions(BindAddress(*address), engine, merged, name)
    context = open_run(source, overrides)
    return str(shown(command_of(context, options)))


def ask_served(
    source: str | Path, *overrides: str, endpoint: str, count: int = 50, name: str | None = None
) -> Reasked:
    """Ask evaluation questions through a server that runs, and compare with the run's own answers.

    Args:
        source: a run directory.
        overrides: changes to its recipe.
        endpoint: the server's address, such as http://localhost:8000/v1. Its key is that of OPENAI_API_KEY.
        count: how many questions.
        name: what the server calls the tuned model; by default as of `serve`.

    Returns:
        As served.json. Raises as `run` does.
    """
    context = open_run(source, overrides)
    recipe = context.recipe
    known = name or recipe.evaluate.served_after or recipe.name
    with one_output(), busy("ragtune ask_served"):
        return ask_again(context, RunningServer(endpoint, known), count)


def open_run(source: str | Path, overrides: Sequence[str]) -> Context:
    """A run that was tuned.

    Raises:
        UsageError: there is none.
        RagtuneError: it is damaged.
    """
    context = open_source(source, overrides).context
    if not context.folder.recipe.is_file():
        raise UsageError(
            f"{source} is no run, but what was published of one.",
            f"An engine takes it as it is: {command_line('vllm', 'serve', source)}",
        )
    if not context.folder.adapter.is_dir():  # of a run whose questions a server answers
        raise UsageError(
            f"{source} is not tuned yet.",
            f"Tune it first: {command_line('ragtune', 'run', source)}",
        )
    return context


def command_of(context: Context, options: ServeOptions) -> Command:
    """The command that serves a run; what of it isn't as in training is said.

    Raises:
        UsageError: no engine is installed, or it can't serve what there is.
    """
    engine = options.engine or _installed()
    tuned = _tuned(context, options, engine)
    if engine == "vllm":
        command = vllm_command(tuned, options.bind)
        if tuned.nf4 and tuned.merged is None:
            warn(
                "The run's base is in NF4, as vLLM's bitsandbytes makes it, too. Versions from 0.33 leave that "
                "to a plugin: if yours refuses it, serve the merged model with --merged."
            )
    else:
        command = transformers_command(tuned, options.bind)
        note(
            "transformers serve has one model, under its folder's name: the base, and the adapter by "
            "itself, need vLLM."
        )
    say_differences(context, tuned)
    return command


def _start(context: Context, options: ServeOptions, check: int) -> int:
    """Start the engine, and wait for its end.

    Args:
        context: the run.
        options: what is to be served, and how.
        check: of how many evaluation questions are asked again, once it is ready.

    Returns:
        Its exit code.

    Raises:
        UsageError: as `command_of`; or the engine that is named isn't there, the port is taken, it would be
            open to others without a key, or there are no answers to check it by.
    """
    if options.engine and not _has(options.engine):
        raise UsageError(
            f"--engine {options.engine}: {_PACKAGES[options.engine]} is not installed.",
            f"Run: {install(_PACKAGES[options.engine])}. For another machine --print shows the command.",
        )
    command = command_of(context, options)
    words = (_found(command.words[0]) or command.words[0], *command.words[1:])
    is_vllm = command.words[0] == "vllm"
    _require_guarded(options.bind, is_vllm=is_vllm)
    require_free(options.bind.host, options.bind.port)
    if check:
        own_answers(context)  # said before a large model is loaded
    endpoint = options.bind.endpoint
    note(f"Starting: {shown(command)}")
    try:
        with Process(words, command.environment) as process:
            if process.is_ready(endpoint):
                others = f", and the base as {command.base_name}" if command.base_name else ""
                note(f"Serving {command.name}{others} at {endpoint}. Ctrl-C ends it.")
                if check:
                    key = _KEY if is_vllm and os.environ.get(_KEY) else "OPENAI_API_KEY"
                    who = "vllm" if is_vllm else "transformers serve"
                    ask_again(context, RunningServer(endpoint, command.name, who, key), check)
                    note(f"Serving goes on at {endpoint}. Ctrl-C ends it.")
            code = process.wait()
    except KeyboardInterrupt:
        stop_if_asked("The server has ended, too.")
        raise
    if code:
        warn(f"The engine ended with exit code {code}; what it said stands above.")
    return code


def shown(command: Command) -> Command:
    """A command as it is to be shown: with the engine's path where its name alone would not find it."""
    name, *rest = command.words
    there = _found(name)
    word = name if there is None or there == shutil.which(name) else there
    return Command((word, *rest), command.environment, command.name, command.base_name)


def _found(name: str) -> str | None:
    """A program beside the Python that runs, or else on the path."""
    beside = Path(sys.executable).parent
    return shutil.which(name, path=os.pathsep.join([str(beside), os.environ.get("PATH", "")]))


_PACKAGES: dict[Backend, str] = {"vllm": "vllm", "transformers": "transformers[serving]"}
"""What pip installs for an engine; of several that are there the first is taken."""


def _has(engine: Backend) -> bool:
    needs = () if engine == "vllm" else _NEEDS
    return _found(engine) is not None and all(map(importlib.util.find_spec, needs))


def _installed() -> Backend:
    for engine in _PACKAGES:
        if _has(engine):
            return engine
    raise UsageError(
        "No engine that could serve it is installed.",
        f"Run: {install(_PACKAGES['transformers'])}. On a machine with a GPU: {install('vllm')}, "
        "in an environment of its own. Or name one with --engine, and --print its command.",
    )


def _tuned(context: Context, options: ServeOptions, engine: Backend) -> ServedModel:
    """What is to be served.

    Raises:
        UsageError: the merged model is needed, and is not there.
        RagtuneError: it is damaged, or the adapter is that is served instead.
    """
    recipe, folder = context.recipe, context.folder
    config = {} if recipe.full else read_json(folder.adapter / "adapter_config.json")
    # vLLM reads no DoRA, and no adapter of a mixture's experts, whose tensors hold all of them.
    only_merged = recipe.full or any(config.get(k) for k in ("target_parameters", "use_dora"))
    merged = options.merged or engine == "transformers" or only_merged
    if merged and not folder.merged.is_dir():
        raise UsageError(
            f"{folder.merged} is not there, and it is what would be served.",
            f"Make it first: {command_line('ragtune', 'merge', folder.path)}",
        )
    require_whole_stage(context, stage_named("merged" if merged else "adapter"))
    model, context_length = recipe.model, context.encoder.context
    longest = context.encoder.max_prompt + recipe.evaluate.max_new_tokens
    return ServedModel(
        base=context.source.path,
        base_name=recipe.evaluate.served_before or context.source.name or model.id,
        name=options.name or recipe.evaluate.served_after or recipe.name,
        adapter=folder.adapter,
        merged=folder.merged if merged else None,
        dtype=_dtype(context),
        rank=max([config.get("r", 0), *config.get("rank_pattern", {}).values()]),
        revision=context.source.revision,
        longest=longest if longest < context_length else None,
        nf4=model.quantization == "nf4",
        trust_remote_code=model.trust_remote_code,
        template_arguments=recipe.prompt.template_arguments,
    )


def _dtype(context: Context) -> str:
    """That in which the run answered; where a server did, or nothing was answered, what is chosen here."""
    if context.recipe.model.dtype != "auto":
        return context.recipe.model.dtype
    proof = proof_of(context.folder, "after")
    known = proof.facts.get("answered_on", {}).get("dtype") if proof else None
    return str(known or context.hardware.dtype_name)


def _require_guarded(bind: BindAddress, *, is_vllm: bool) -> None:
    """Require a key where others could reach the server, and say what no key protects.

    Raises:
        UsageError: there is none.
    """
    if _is_loopback(bind.host):
        return
    if not is_vllm:
        warn(
            f"At {bind.host} whoever reaches port {bind.port} can ask: transformers serve knows no keys. "
            "They can also unload the model, or make it load another one of this machine. Let only a proxy "
            "that asks for a key reach it."
        )
    elif not os.environ.get(_KEY, "").strip():
        raise UsageError(
            f"At {bind.host} others can reach the server, and it has no key.",
            f"Set the environment variable {_KEY} to one that clients then send, or leave out --host.",
        )
    else:
        warn(
            f"At {bind.host} vLLM asks for the key in {_KEY} below /v1 alone: /health, /metrics and the like "
            "answer anybody, and nothing is encrypted. Beyond your own network put a proxy with TLS before it."
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
