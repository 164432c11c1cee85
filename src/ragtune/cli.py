"""The command line: one command a stage."""

from __future__ import annotations

import io
import json
import sys
import traceback
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ragtune import __version__
from ragtune.base import stopping
from ragtune.base.errors import RagtuneError, in_words
from ragtune.base.network import go_offline, need_network
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

Target = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe (YAML) or a run directory.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SECTION.KEY=VALUE]...", help="Changes to the recipe, such as train.steps=50."
    ),
]
RunDir = Annotated[
    Path | None, typer.Option("--run-dir", help="Where the run lies; runs/NAME by default.")
]

Redo = Annotated[
    bool,
    typer.Option(
        "--redo",
        help="After a change of the recipe or its files: set aside what is no longer valid, and make "
        "it again.",
    ),
]


class ReportFormat(StrEnum):
    """What `report` makes."""

    HTML = "html"
    MARKDOWN = "md"


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    debug: Annotated[  # noqa: ARG001 - `main` reads it
        bool, typer.Option("--debug", help="Show the traceback of a failure.")
    ] = False,
    offline: Annotated[  # noqa: ARG001 - `main` reads it
        bool, typer.Option("--offline", help="Make no connection at all.")
    ] = False,
) -> None:
    """Read by `main` before anything runs; here for the help."""
    if version:
        typer.echo(f"ragtune {__version__}")
        raise typer.Exit


@app.command()
def run(
    target: Target, overrides: Overrides = None, run_dir: RunDir = None, redo: Redo = False
) -> None:
    """Do everything: check, data, answers before, training, answers after, merging, report, push.

    What is finished is not repeated: after a break the same command goes on.
    """
    from ragtune import api as pipeline

    pipeline.run(target, *(overrides or []), run_dir=run_dir, redo=redo)


@app.command()
def check(
    target: Target,
    overrides: Overrides = None,
    run_dir: RunDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Find out before anything costs time whether a run would work; exit code 1 if not."""
    from ragtune import api as pipeline
    from ragtune.base.console import note, to_stderr
    from ragtune.stages.check.findings import Finding, show

    with to_stderr(wanted=as_json):
        found = pipeline.check(target, *(overrides or []), run_dir=run_dir)
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False, indent=1))
    else:
        show([Finding(**one) for one in found])  # type: ignore[arg-type]
    failures = sum(one["level"] == "fail" for one in found)
    if failures:
        if not as_json:
            note(f"The run would fail: {failures} of {len(found)} findings say so.")
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
    from ragtune.stages.run import Run

    one = Run(target, overrides, run_dir, redo=redo)
    one.prepare()
    if show:
        from ragtune.reporting.show import show_examples

        show_examples(one.encoder, one.examples("train")[:show])


@app.command()
def train(
    target: Target, overrides: Overrides = None, run_dir: RunDir = None, redo: Redo = False
) -> None:
    """Train the adapter; after a break it goes on from the last checkpoint."""
    from ragtune import api as pipeline

    pipeline.train(target, *(overrides or []), run_dir=run_dir, redo=redo)


def _one_of(given: list[str]) -> None:
    if len(given) > 1:
        from ragtune.base.errors import UsageError

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
    from ragtune import api as pipeline
    from ragtune.base.console import console, to_stderr
    from ragtune.reporting.table import controls_table, metrics_table

    given = {
        "--base": base,
        "--checkpoint": checkpoint is not None,
        "--controls": controls,
        "--predictions": predictions is not None,
    }
    _one_of([name for name, there in given.items() if there])
    if controls:
        with to_stderr(wanted=as_json):
            found = pipeline.controls(target, *(overrides or []), run_dir=run_dir, redo=redo)
            if not as_json:
                console.print(controls_table(found))
        if as_json:
            typer.echo(json.dumps(found, ensure_ascii=False))
        return
    with to_stderr(wanted=as_json):
        metrics = pipeline.evaluate(
            target,
            *(overrides or []),
            run_dir=run_dir,
            base=base,
            checkpoint=checkpoint,
            predictions=predictions,
            redo=redo,
        )
    if as_json:
        typer.echo(json.dumps({k: metrics[k] for k in ("n", "metrics")}))
    else:
        console.print(metrics_table(metrics))


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
    from ragtune import api as pipeline
    from ragtune.base.console import console, to_stderr
    from ragtune.reporting.table import runs_table

    runs = [t for t in targets if "=" not in t or Path(t).exists()]
    with to_stderr(wanted=as_json):
        if len(runs) > 1:
            changes = [t for t in targets if t not in runs]
            _one_of(["several runs", *changes, *(["--run-dir"] if run_dir else [])])
            found = pipeline.compare_runs(*map(Path, runs))
            if not as_json:
                console.print(runs_table(found))
        else:
            found = pipeline.compare(*targets, run_dir=run_dir)
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False))


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
    from ragtune.base.console import to_stderr
    from ragtune.stages.run import Run

    one = Run(target, overrides, run_dir)
    if form is ReportFormat.HTML:
        one.report()
        return
    with to_stderr(wanted=True):
        text = one.summary()
    typer.echo(text, nl=False)


@app.command()
def merge(
    target: Target, overrides: Overrides = None, run_dir: RunDir = None, redo: Redo = False
) -> None:
    """Merge the adapter into the base model, and count the answers that this changes."""
    from ragtune import api as pipeline

    pipeline.merge(target, *(overrides or []), run_dir=run_dir, redo=redo)


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
    from ragtune import api as pipeline

    if not dry_run:
        need_network("Publishing asks the Hub")
    pipeline.push(target, *(overrides or []), run_dir=run_dir, dry_run=dry_run)


@app.command()
def schema() -> None:
    """Print the recipe's JSON schema, for editors and for reading."""
    from ragtune.recipe.schema import Recipe

    typer.echo(json.dumps(Recipe.model_json_schema(), indent=2, ensure_ascii=False))


@app.command()
def init(
    output: Annotated[Path, typer.Argument(help="The file to write.")] = Path("recipe.yaml"),
    force: Annotated[
        bool, typer.Option("--force", help="Replace the file if it is there.")
    ] = False,
) -> None:
    """Write a commented recipe to start from."""
    from ragtune.base.errors import UsageError
    from ragtune.base.files import writing
    from ragtune.recipe.load import STARTER, commented_recipe

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
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    given = arguments
    debug = "--debug" in arguments
    if "--offline" in arguments:
        go_offline()
    arguments = [a for a in arguments if a not in ("--debug", "--offline")]
    stopping.install()
    try:
        stopping.stop_if_asked()
        code = _call(arguments)
        if code == 130 or (code and stopping.interrupted()):  # noqa: PLR2004 - how Typer ends on Ctrl-C
            code = stopping.farewell(given)
    except KeyboardInterrupt:
        code = stopping.farewell(given)
    except Exception as error:  # noqa: BLE001 - whatever it is, it ends in a message
        _traceback(wanted=debug)
        if stopping.interrupted():
            code = stopping.farewell(given)
        else:
            told = in_words(error)
            _tell(told)
            code = told.exit_code
    finally:
        stopping.uninstall()
    sys.exit(code)


def _call(arguments: list[str]) -> Any:
    """Run a command and return its exit code; what Typer says of wrong arguments may repeat a token."""
    try:
        return app(arguments, standalone_mode=False) or 0
    except SystemExit as stop:
        return stop.code
    except Exception as error:
        # Typer's own, of a class that is Click's in some versions.
        if not (hasattr(error, "show") and hasattr(error, "format_message")):
            raise
        said = io.StringIO()
        error.show(file=said)
        sys.stderr.write(hide(said.getvalue()))
        return getattr(error, "exit_code", 2)


def _tell(error: RagtuneError) -> None:
    from rich.console import Console

    console = Console(stderr=True, highlight=False, emoji=False)
    console.print("Error:", style="bold red", end=" ")
    console.print(error.message, markup=False, soft_wrap=True)
    if error.advice:
        console.print(error.advice, markup=False, soft_wrap=True)


def _traceback(*, wanted: bool) -> None:
    """Show where the error being handled comes from; what it was sent may hold a token."""
    if wanted:
        sys.stderr.write(hide(traceback.format_exc()))
