"""How a command ends: with an exit code and, if something is wrong, with a message and no traceback."""

from __future__ import annotations

import io
import traceback
from collections.abc import Callable
from typing import cast

import typer

from ragtune.base import stopping
from ragtune.base.errors import in_words, is_panic
from ragtune.base.screen.output import complain, flush
from ragtune.base.secrets import hide


def code_of(act: Callable[[list[str]], int | str | None], given: list[str]) -> int | str | None:
    """Do something with a program's arguments; whatever happens in it ends in a message and an exit code."""
    debug = "--debug" in given
    try:
        stopping.stop_if_asked()
        code = act([a for a in given if a not in ("--debug", "--offline")])
        flush()
    except KeyboardInterrupt:
        return stopping.farewell(given)
    except BaseException as error:
        if not (isinstance(error, Exception) or is_panic(error)):
            raise
        if debug:  # what was sent may hold a token
            complain(hide(traceback.format_exc()))
        if stopping.interrupted():
            return stopping.farewell(given)
        told = in_words(error)
        from ragtune.base.screen.console import show_error  # noqa: PLC0415 - it loads rich

        show_error(told.message, told.advice)
        return told.exit_code
    if code == 130 or (code and stopping.interrupted()):  # noqa: PLR2004 - how Typer ends on Ctrl-C
        return stopping.farewell(given)
    return code


_WrongArguments = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[2])
"""Click's own, or that of the Click that some versions of Typer bring with them."""


def call(app: typer.Typer, arguments: list[str]) -> int | str | None:
    """Run a command and return its exit code; what Typer says of wrong arguments may repeat a token."""
    try:
        return app(arguments, prog_name="ragtune", standalone_mode=False) or 0
    except SystemExit as stop:
        return stop.code
    except _WrongArguments as error:
        said = io.StringIO()
        error.show(file=said)
        complain(hide(said.getvalue()))
        return error.exit_code
