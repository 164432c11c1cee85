"""The commands `ragtune schema` and `init`: their arguments; they load the rest when they are called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ragtune.base.commands import command_line
from ragtune.base.errors import UsageError
from ragtune.base.screen.output import say, say_json
from ragtune.base.screen.usage import ForCorpus, ShippedRecipe


def schema(corpus: ForCorpus = False) -> None:
    """Print the JSON schema of recipes or corpora, for editors."""
    from ragtune.recipe.corpus import Corpus  # noqa: PLC0415 - pydantic
    from ragtune.recipe.schema import Recipe  # noqa: PLC0415 - pydantic

    say_json((Corpus if corpus else Recipe).model_json_schema(), indent=2)


def init(
    output: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="The file to write; recipe.yaml by default."),
    ] = None,
    recipe: ShippedRecipe = None,
    corpus: ForCorpus = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the file if it is there.")
    ] = False,
) -> None:
    """Write a recipe or corpus to start from.

    Commented, with every key; or one of the recipes that come with ragtune, with what it needs.
    """
    from ragtune.recipe import shipped, starter  # noqa: PLC0415 - they load pydantic and YAML
    from ragtune.recipe.corpus import Corpus  # noqa: PLC0415 - pydantic
    from ragtune.recipe.schema import Recipe  # noqa: PLC0415 - pydantic

    if recipe and corpus:
        raise UsageError("--recipe and --corpus don't go together.", "Give one of them.")
    if recipe is not None:
        say(shipped.write_shipped(recipe, output, force=force).told())
        return
    path = output or Path("corpus.yaml" if corpus else "recipe.yaml")
    starter.write_starter(path, Corpus if corpus else Recipe, force=force)
    command = command_line("ragtune", "build" if corpus else "run", path)
    keys = "documents.files and questions.files" if corpus else "model.id, data.train and data.eval"
    say(f"Wrote {path}. Set {keys}, then: {command}")
