"""The command `ragtune sweep`: its arguments; it loads the rest when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ragtune.base.screen.output import say_json
from ragtune.base.screen.usage import Overrides, Target


def sweep(  # noqa: PLR0913 - each is an option of the command
    target: Target,
    overrides: Overrides = None,
    seeds: Annotated[
        int,
        typer.Option("--seeds", metavar="N", min=1, max=100, help="With how many each is trained."),
    ] = 3,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            metavar="N",
            min=1,
            help="Runs at a time; by default one on a CPU, and on a GPU as many as fit.",
        ),
    ] = None,
    whole: Annotated[
        bool,
        typer.Option(
            "--whole", help="Train all to the end; else the lower half stops early, twice."
        ),
    ] = False,
    no_look: Annotated[
        bool,
        typer.Option("--no-look", help="Leave the evaluation set to a later sweep."),
    ] = False,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", metavar="FOLDER", help="Where it lies; sweeps/NAME by default."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print results.json alone.")] = False,
) -> None:
    """Try values of the recipe's keys: train.learning_rate=1e-4,2e-4.

    Each combination is trained with several seeds, and they are compared on training questions that are
    held apart. After a break the same command goes on.
    """
    from ragtune.stages.target import find_recipe  # noqa: PLC0415 - pydantic

    find_recipe(target)  # says what is wrong with it before anything large is imported
    from ragtune.stages.sweep import shown, sweep  # noqa: PLC0415 - they load rich, and torch

    with shown.to_stderr(wanted=as_json):
        found = sweep.sweep(
            target, *(overrides or []), seeds=seeds, jobs=jobs, whole=whole, look=not no_look,
            folder=folder,
        )  # fmt: skip
    if as_json:
        say_json(dict(found), indent=1)
    else:
        shown.show(found, folder or Path("sweeps") / found["name"])
