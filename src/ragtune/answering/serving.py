"""Under which names a server has the models, and how to serve them."""

from __future__ import annotations

import shlex
from pathlib import Path

from ragtune.answering.client import did_you_mean, names, served_models
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.recipe.schema import Recipe

_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as --max-lora-rank."""


def served_name(recipe: Recipe, which: str) -> str:
    """The name under which the server has the model `before` or `after` tuning.

    Raises:
        UsageError: the recipe does not say.
    """
    name = recipe.evaluate.served_before if which == "before" else recipe.evaluate.served_after
    if not name:
        raise UsageError(
            f"evaluate.served_{which} is not set.",
            f"Set it to the name under which the server has (or will have) the model {which} tuning.",
        )
    return name


def how_to_serve(recipe: Recipe, which: str, base: str, run: Path) -> str:
    """Commands that serve the model `before` or `after` tuning, from the run directory `run`."""
    name = served_name(recipe, which)
    if which == "before":
        command = shlex.join(["vllm", "serve", base, "--served-model-name", name])
        return (
            f"Serve it, for example: {command}\n"
            "or set evaluate.endpoint or evaluate.served_before. The same command then goes on."
        )
    rank = next((r for r in _LORA_RANKS if r >= recipe.lora.rank), recipe.lora.rank)
    adapter, merged = f"{name}={run / 'adapter'}", str(run / "merged")
    options = ["--enable-lora", "--max-lora-rank", str(rank), "--lora-modules", adapter]
    with_adapter = shlex.join(["vllm", "serve", base, *options])
    merge = shlex.join(["ragtune", "merge", str(run)])
    with_merged = shlex.join(["vllm", "serve", merged, "--served-model-name", name])
    plain = shlex.join(["transformers", "serve", merged])
    return (
        f"Serve the adapter: {with_adapter}\n"
        f"or the merged model: {merge}, then: {with_merged}\n"
        f"(or: {plain}, with evaluate.served_after={merged}).\n"
        "The same command then goes on."
    )


def check_server(recipe: Recipe, *, needed: bool) -> tuple[str, list[str]]:
    """Ask whether the endpoint answers and what it lists.

    Args:
        recipe: with `engine: openai`.
        needed: whether the run would fail without the server; otherwise its silence is a warning.

    Returns:
        What was found, and warnings.

    Raises:
        UsageError, RagtuneError: a name is not set, or the server is needed and does not answer.
    """
    endpoint = recipe.evaluate.endpoint or ""
    wanted = {which: served_name(recipe, which) for which in ("before", "after")}
    warnings = []
    try:
        listed = served_models(endpoint)
    except RagtuneError as error:
        if needed:
            raise
        return "what it still has to answer can wait", [error.message.rstrip(".")]
    if listed is not None and wanted["before"] not in listed:
        # transformers' server takes a folder, too, and lists only what the Hub's cache holds.
        near = did_you_mean(wanted["before"], listed)
        warnings.append(f"evaluate.served_before, {wanted['before']}, is not in the list{near}")
    if recipe.prompt.chat_template:
        warnings.append("prompt.chat_template is not sent: the server must be started with it, too")
    if listed is None:
        warnings.append(f"{endpoint} gives no list of its models: is this the address up to /v1?")
    found = f"{endpoint} answers{names(listed)}; chat template and stop token are its own"
    return found, warnings
