"""The command line: one command for each stage, and some beside them.

The stages are functions of `ragtune`, which loads them, and torch with them, when one is called.
"""

from __future__ import annotations

import io
import json
import sys
import traceback
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Annotated, cast

import typer

import ragtune
from ragtune.base import stopping
from ragtune.base.errors import RagtuneError, UsageError, in_words
from ragtune.base.files import writing
from ragtune.base.network import go_offline, require_network
from ragtune.base.secrets import hide

app = typer.Typer(
    name="ragtune",
    help="Tune a language model to answer from retrieved passages, measure what changed, publish it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_CHANGES = "Changes to the recipe, such as train.steps=50."
_REDO = "After a change of the recipe or its files: set aside what is no longer valid, and make it again."
Target = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe (YAML) or a run directory.")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[SECTION.KEY=VALUE]...", help=_CHANGES)
]
RunDir = Annotated[
    Path | None, typer.Option("--run-dir", help="Where the run lies; runs/NAME by default.")
]
Redo = Annotated[bool, typer.Option("--redo", help=_REDO)]


class ReportFormat(StrEnum):
    """What `report` makes."""

    HTML = "html"
    MARKDOWN = "md"


def _terminal() -> ModuleType:
    """What prints results; it loads rich, which `--help` and `--version` do without."""
    from ragtune.stages import terminal  # noqa: PLC0415 - as it says

    return terminal


def _print_json(found: object, indent: int | None = None) -> None:
    typer.echo(json.dumps(found, ensure_ascii=False, indent=indent))


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    debug: Annotated[  # noqa: ARG001 - main reads it
        bool, typer.Option("--debug", help="Show the traceback of a failure.")
    ] = False,
    offline: Annotated[  # noqa: ARG001 - main reads it
        bool, typer.Option("--offline", help="Make no connection at all.")
    ] = False,
) -> None:
    """Read by `main` before anything runs; here for the help."""
    if version:
        typer.echo(f"ragtune {ragtune.__version__}")
        raise typer.Exit


@app.command()
def run(
    target: Target, overrides: Overrides = None, run_dir: RunDir = None, redo: Redo = False
) -> None:
    """Do everything: check, data, answers before, training, answers after, merging, report, push.

    What is finished is not repeated: after a break the same command goes on.
    """
    ragtune.run(target, *(overrides or []), run_dir=run_dir, redo=redo)


@app.command()
def check(
    target: Target,
    overrides: Overrides = None,
    run_dir: RunDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Find out before anything costs time whether a run would work; exit code 1 if not."""
    terminal = _terminal()
    with terminal.to_stderr(wanted=as_json):
        found = ragtune.check(target, *(overrides or []), run_dir=run_dir)
    if as_json:
        _print_json(found, indent=1)
    else:
        terminal.show_findings(found)
    if any(one["level"] == "fail" for one in found):
        raise typer.Exit(1)


@app.command()
def prepare(
    target: Target,
    overrides: Overrides = None,
    run_dir: RunDir = None,
    show: Annotated[
        int,
        typer.Option(
            "--show", min=0, help="Show N training examples: prompt, tokens, what is trained."
        ),
    ] = 0,
    redo: Redo = False,
) -> None:
    """Read the data, select the examples, and count what was dropped and why."""
    ragtune.prepare(target, *(overrides or []), run_dir=run_dir, redo=redo, show=show)


@app.command()
def train(
    target: Target, overrides: Overrides = None, run_dir: RunDir = None, redo: Redo = False
) -> None:
    """Train the adapter; after a break it goes on from the last checkpoint."""
    ragtune.train(target, *(overrides or []), run_dir=run_dir, redo=redo)


def _require_one(given: list[str]) -> None:
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} don't go together.", "Give one of them.")


@app.command()
def evaluate(
    target: Target,
    overrides: Overrides = None,
    run_dir: RunDir = None,
    base: Annotated[bool, typer.Option("--base", help="Without the adapter.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print {n, metrics} alone.")] = False,
    checkpoint: Annotated[
        int | None, typer.Option("--checkpoint", help="With the adapter of this step.")
    ] = None,
    controls: Annotated[
        bool,
        typer.Option(
            "--controls", help="Ask with other passages, too: none, the positive alone, and so on."
        ),
    ] = False,
    predictions: Annotated[
        Path | None,
        typer.Option(
            "--predictions", help="Score this file (lines of qid, prediction) and ask nothing."
        ),
    ] = None,
    redo: Redo = False,
) -> None:
    """Answer and score the questions, with the adapter if there is one."""
    given = {
        "--base": base,
        "--checkpoint": checkpoint is not None,
        "--controls": controls,
        "--predictions": predictions is not None,
    }
    _require_one([name for name, there in given.items() if there])
    changes, terminal = overrides or [], _terminal()
    with terminal.to_stderr(wanted=as_json):
        if controls:
            others = ragtune.controls(target, *changes, run_dir=run_dir, redo=redo)
            shown, table = dict(others), terminal.controls_table(others)
        else:
            found = ragtune.evaluate(
                target,
                *changes,
                run_dir=run_dir,
                base=base,
                checkpoint=checkpoint,
                predictions=predictions,
                redo=redo,
            )
            shown = {"n": found["n"], "metrics": found["metrics"]}
            table = terminal.metrics_table(found)
    if as_json:
        _print_json(shown)
    else:
        terminal.console.print(table)


@app.command()
def compare(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE|RUN...",
            help="A recipe or run: before against after. Several runs (or folders of answers in "
            "them): each against the first.",
        ),
    ],
    run_dir: RunDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison alone.")] = False,
) -> None:
    """Compare the answers before and after tuning, or those of several runs, with intervals."""
    terminal = _terminal()
    runs = [t for t in targets if "=" not in t or Path(t).exists()]
    with terminal.to_stderr(wanted=as_json):
        if len(runs) > 1:
            changes = [t for t in targets if t not in runs]
            _require_one(["several runs", *changes, *(["--run-dir"] if run_dir else [])])
            several = ragtune.compare_runs(*map(Path, runs))
            shown, table = dict(several), terminal.runs_table(several)
        else:  # which prints its table
            shown, table = dict(ragtune.compare(*targets, run_dir=run_dir)), None
    if as_json:
        _print_json(shown)
    elif table:
        terminal.console.print(table)


@app.command()
def report(
    target: Target,
    overrides: Overrides = None,
    run_dir: RunDir = None,
    form: Annotated[
        ReportFormat,
        typer.Option("--format", help="html: write report.html; md: print a summary in Markdown."),
    ] = ReportFormat.HTML,
) -> None:
    """Write report.html and comparison.json of what there is, or print a summary."""
    if form is ReportFormat.HTML:
        ragtune.report(target, *(overrides or []), run_dir=run_dir)
        return
    with _terminal().to_stderr(wanted=True):
        text = ragtune.summary(target, *(overrides or []), run_dir=run_dir)
    typer.echo(text, nl=False)


@app.command()
def merge(
    target: Target, overrides: Overrides = None, run_dir: RunDir = None, redo: Redo = False
) -> None:
    """Merge the adapter into the base model, and count the answers that this changes."""
    ragtune.merge(target, *(overrides or []), run_dir=run_dir, redo=redo)


@app.command()
def push(
    target: Target,
    overrides: Overrides = None,
    run_dir: RunDir = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would go; ask nobody, send nothing.")
    ] = False,
) -> None:
    """Publish the merged model or the adapter on the Hub (publish.repo=owner/name)."""
    if not dry_run:
        require_network("Publishing asks the Hub")
    ragtune.push(target, *(overrides or []), run_dir=run_dir, dry_run=dry_run)


@app.command()
def schema() -> None:
    """Print the recipe's JSON schema, for editors and for reading."""
    _print_json(ragtune.Recipe.model_json_schema(), indent=2)


@app.command()
def init(
    output: Annotated[Path, typer.Argument(help="The file to write.")] = Path("recipe.yaml"),
    force: Annotated[
        bool, typer.Option("--force", help="Replace the file if it is there.")
    ] = False,
) -> None:
    """Write a commented recipe to start from."""
    from ragtune.recipe.starter import STARTER, commented_recipe  # noqa: PLC0415 - loads pydantic and YAML

    if output.is_dir():
        raise UsageError(f"{output} is a folder.", "Name the file to write.")
    if output.exists() and not force:
        raise UsageError(f"{output} is there already.", "Name another file, or use --force.")
    try:
        with writing(output) as file:
            file.write(commented_recipe(STARTER))
    except RagtuneError as error:  # its advice is for a run
        raise RagtuneError(error.message, "Name a file elsewhere: ragtune init FILE.") from error
    typer.echo(
        f"Wrote {output}. Set model.id, data.train and data.eval, then: ragtune run {output}"
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code: 0, 1 (failure), 2 (usage), 130 or 143 (stopped)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    if "--offline" in given:
        go_offline()
    stopping.install()
    try:
        stopping.stop_if_asked()
        code = _call([a for a in given if a not in ("--debug", "--offline")])
        if code == 130 or (code and stopping.interrupted()):  # noqa: PLR2004 - how Typer ends on Ctrl-C
            code = stopping.farewell(given)
    except KeyboardInterrupt:
        code = stopping.farewell(given)
    except Exception as error:  # noqa: BLE001 - whatever it is, it ends in a message
        if debug:  # what was sent may hold a token
            sys.stderr.write(hide(traceback.format_exc()))
        if stopping.interrupted():
            code = stopping.farewell(given)
        else:
            told = in_words(error)
            from ragtune.base.console import show_error  # noqa: PLC0415 - it loads rich

            show_error(told.message, told.advice)
            code = told.exit_code
    finally:
        stopping.uninstall()
    sys.exit(code)


_WrongArguments = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[2])
"""Click's own, or that of the Click that some versions of Typer bring with them."""


def _call(arguments: list[str]) -> int | str | None:
    """Run a command and return its exit code; what Typer says of wrong arguments may repeat a token."""
    try:
        return app(arguments, standalone_mode=False) or 0
    except SystemExit as stop:
        return stop.code
    except _WrongArguments as error:
        said = io.StringIO()
        error.show(file=said)
        sys.stderr.write(hide(said.getvalue()))
        return error.exit_code
