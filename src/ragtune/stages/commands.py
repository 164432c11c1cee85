"""The command `ragtune judge`: its arguments; it loads the rest when it is called."""

from __future__ import annotations

from typing import Annotated

import typer

from ragtune.base.screen.output import say_json
from ragtune.base.screen.usage import Base, Overrides, ServedRun
from ragtune.stages.early import found_first


@found_first
def judge(
    target: ServedRun,
    endpoint: Annotated[
        str, typer.Option("--endpoint", metavar="URL", help="The judge's address, up to /v1.")
    ],
    model: Annotated[
        str, typer.Option("--model", metavar="NAME", help="The name that the server has for it.")
    ],
    overrides: Overrides = None,
    base: Base = False,
    count: Annotated[
        int,
        typer.Option("--count", metavar="N", min=1, help="How many answers, drawn by the seed."),
    ] = 200,
    again: Annotated[
        int,
        typer.Option(
            "--again", metavar="N", min=0, help="How many once more, their passages turned round."
        ),
    ] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures alone.")] = False,
) -> None:
    """Let a model judge the answers: right, and supported by texts.

    It stands behind OpenAI's interface; questions, answers and passages go there. What it wrote is kept: the
    same command asks for no more.
    """
    from ragtune.base.screen.console import console, to_stderr  # noqa: PLC0415 - rich
    from ragtune.reporting.judging import judged_table  # noqa: PLC0415 - rich
    from ragtune.stages import judge as judging  # noqa: PLC0415 - torch

    with to_stderr(wanted=as_json):
        found = judging.judge(
            target,
            *(overrides or []),
            endpoint=endpoint,
            model=model,
            count=count,
            again=again,
            base=base,
        )
    if as_json:
        say_json(dict(found))
    else:
        console.print(judged_table(found))
