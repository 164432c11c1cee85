"""Under which names a server has the models, and how to serve them."""

from __future__ import annotations

from pathlib import Path

from ragtune.answering.client import did_you_mean, names, served_models
from ragtune.answering.launch import lora_options
from ragtune.base.commands import command_line
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.recipe.schema import Recipe


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
    model = Path(base) if base.startswith("-") else base  # which no name on the Hub does
    # Written with =, a name that begins with a dash is no option.
    named = f"--served-model-name={name}"
    if which == "before":
        command = command_line("vllm", "serve", model, named)
        return (
            f"Serve it, for example: {command}\n"
            "or set evaluate.endpoint or evaluate.served_before. The same command then goes on."
        )
    merged = run / "merged"
    here = command_line("ragtune", "serve", run)
    with_adapter = command_line(
        "vllm", "serve", model, *lora_options(recipe.lora.saved_rank, name, run / "adapter")
    )
    merge = command_line("ragtune", "merge", run)
    with_merged = command_line("vllm", "serve", merged, named)
    plain = command_line("transformers", "serve", merged)
    setting = command_line(f"evaluate.served_after={merged}")
    # vLLM reads no adapter that has more than plain matrices; `serve` then merges, too.
    merged_alone = recipe.full or recipe.lora.dora or recipe.lora.experts
    elsewhere = "" if merged_alone else f"or the adapter elsewhere: {with_adapter}\n"
    return (
        f"Serve it on this machine: {here}\n"
        f"{elsewhere}"
        f"or the merged model: {merge}, then: {with_merged}\n"
        f"(or: {plain}, with {setting}).\n"
        "The same command then goes on."
    )


def check_server(recipe: Recipe, *, needed: bool) -> tuple[str, list[str]]:
    """Ask whether the endpoints answer and what they list.

    Args:
        recipe: with `engine: openai`.
        needed: whether the run would fail without the servers; otherwise their silence is a warning.

    Returns:
        What was found, and warnings.

    Raises:
        UsageError, RagtuneError: a name is not set, or a server is needed and does not answer.
    """
    wanted = {which: served_name(recipe, which) for which in ("before", "after")}
    found, warnings = [], []
    for endpoint in recipe.evaluate.endpoints:
        try:
            listed = served_models(endpoint)
        except RagtuneError as error:
            if needed:
                raise
            warnings.append(error.message.rstrip("."))
            continue
        found.append(f"{endpoint} answers{names(listed)}")
        if listed is None:
            warnings.append(
                f"{endpoint} gives no list of its models: is this the address up to /v1?"
            )
        elif wanted["before"] not in listed:
            # transformers' server takes a folder, too, and lists only what the Hub's cache holds.
            near = did_you_mean(wanted["before"], listed)
            warnings.append(
                f"evaluate.served_before, {wanted['before']}, is not in the list of {endpoint}{near}"
            )
    if not found:
        return "what it still has to answer can wait", warnings
    if recipe.prompt.chat_template:
        warnings.append("prompt.chat_template is not sent: the server must be started with it, too")
    return f"{'; '.join(found)}; chat template and stop token are its own", warnings
