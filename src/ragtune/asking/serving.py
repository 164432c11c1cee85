"""`ragtune serve` as functions: a run served, the command that serves it, and what is served asked again."""

from __future__ import annotations

from pathlib import Path

from ragtune.answering.starting import Engine, Place
from ragtune.asking.serve import Wish, command_of, open_run, shown
from ragtune.asking.serve import serve as start
from ragtune.asking.served import Served, ask_again
from ragtune.base.screen.notebook import one_output
from ragtune.base.screen.progress import busy
from ragtune.scoring.compare import Runs


def serve(
    source: str | Path,
    *overrides: str,
    engine: Engine | None = None,
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
    wish = Wish(Place(*address), engine, merged, name)
    return start(open_run(source, overrides), wish, check)


def serve_command(
    source: str | Path,
    *overrides: str,
    engine: Engine | None = None,
    merged: bool = False,
    name: str | None = None,
    address: tuple[str, int] = ("127.0.0.1", 8000),
) -> str:
    """The command that `serve` starts, for a shell. Takes and raises what `serve` does."""
    wish = Wish(Place(*address), engine, merged, name)
    context = open_run(source, overrides)
    return str(shown(command_of(context, wish)))


def ask_served(
    source: str | Path, *overrides: str, endpoint: str, count: int = 50, name: str | None = None
) -> Runs:
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
        return ask_again(context, Served(endpoint, known), count)
