"""The command line: one command for each stage, and some beside them.

The stages are functions of `ragtune`, which loads them, and torch with them, when one is called.
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

import ragtune
from ragtune.asking import commands as asking
from ragtune.base import stopping
from ragtune.base.ending import call, code_of
from ragtune.base.errors import UsageError
from ragtune.base.screen.output import guarded, say, say_json
from ragtune.base.screen.usage import (
    AtLeast,
    Base,
    Checkpoint,
    Compare,
    Controls,
    CorpusFile,
    CorpusFolder,
    CorpusOverrides,
    Form,
    Overrides,
    Predictions,
    Redo,
    ReportFormat,
    RunDir,
    Show,
    ShowQuestions,
    Strict,
    Target,
    Targets,
    complete_with,
    settle,
)
from ragtune.base.web.network import go_offline, require_network
from ragtune.recipe import commands as starting
from ragtune.stages import commands as judging
from ragtune.stages.early import found_first, read_first, shared
from ragtune.stages.launched import as_rank, dismiss
from ragtune.stages.sweep.commands import sweep

app = typer.Typer(
    name="ragtune",
    help="Tune a language model to answer from retrieved passages, measure what changed, publish it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _terminal() -> ModuleType:
    """What prints results; it loads rich, which `--help` and `--version` do without."""
    from ragtune.stages import terminal  # noqa: PLC0415 - as it says

    return terminal


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the versions for a bug report, and exit.")
    ] = False,
    debug: Annotated[  # noqa: ARG001 - main reads it
        bool, typer.Option("--debug", help="Show the traceback of a failure.")
    ] = False,
    offline: Annotated[  # noqa: ARG001 - main reads it
        bool, typer.Option("--offline", help="Make no connection at all.")
    ] = False,
) -> None:
    """Read by `main` before anything runs; here for the help."""
    if version:
        from ragtune.base.versions import told  # noqa: PLC0415 - only here

        say(told(ragtune.__version__))
        raise typer.Exit


@app.command()
def build(
    corpus: CorpusFile,
    overrides: CorpusOverrides = None,
    folder: CorpusFolder = None,
    show: ShowQuestions = 0,
    compare: Compare = None,
    strict: Strict = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print build.json alone.")] = False,
) -> None:
    """Make examples of documents and questions, and an index.

    What didn't change isn't read again: after new documents, or a break, the same command goes on.
    """
    ragtune.load_corpus(corpus, overrides or [])  # what is wrong with it: before torch is loaded
    terminal = _terminal()
    with terminal.to_stderr(wanted=as_json):
        built = ragtune.build(
            corpus,
            *(overrides or []),
            folder=folder,
            compare=compare.split(",") if compare else (),
            strict=strict,
        )
    if as_json:
        say_json(asdict(built), indent=1)
        return
    folder = folder or Path("corpora") / built.name
    terminal.show_built(built)
    terminal.show_written(folder, built.language)
    terminal.show_questions(folder, show)


@app.command()
@shared("adapter")
def run(
    target: Target, overrides: Overrides = None, run_dir: RunDir = None, redo: Redo = False
) -> None:
    """Do everything: check, tune, measure, report, publish.

    That is: check, data, answers before, training, answers after, report, merging, push.
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
    """Find out whether a run would work, before anything costs time.

    The exit code is 1 if it would not.
    """
    terminal = _terminal()
    with terminal.to_stderr(wanted=as_json):
        found = terminal.unread(target, overrides or [], run_dir)
        found = found or ragtune.check(target, *(overrides or []), run_dir=run_dir)
    if as_json:
        say_json(found, indent=1)
    else:
        terminal.show_findings(found)
    if any(one["level"] == "fail" for one in found):
        raise typer.Exit(1)


@app.command()
@read_first
def prepare(
    target: Target,
    overrides: Overrides = None,
    run_dir: RunDir = None,
    show: Show = 0,
    redo: Redo = False,
) -> None:
    """Read the data, select the examples, and count what is dropped."""
    ragtune.prepare(target, *(overrides or []), run_dir=run_dir, redo=redo, show=show)


@app.command()
@shared("adapter")
def train(
    target: Target, overrides: Overrides = None, run_dir: RunDir = None, redo: Redo = False
) -> None:
    """Train the adapter; after a break, go on from its checkpoint."""
    ragtune.train(target, *(overrides or []), run_dir=run_dir, redo=redo)


def _require_one(given: list[str]) -> None:
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} don't go together.", "Give one of them.")


@app.command()
@shared("eval/*/after")
def evaluate(
    target: Target,
    overrides: Overrides = None,
    run_dir: RunDir = None,
    base: Base = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print {n, metrics} alone.")] = False,
    checkpoint: Checkpoint = None,
    controls: Controls = False,
    predictions: Predictions = None,
    at_least: AtLeast = None,
    redo: Redo = False,
) -> None:
    """Answer the questions, and score the answers.

    With the adapter if there is one, unless an option says otherwise.
    """
    given = {
        "--base": base,
        "--checkpoint": checkpoint is not None,
        "--controls": controls,
        "--predictions": predictions is not None,
    }
    _require_one([name for name, there in given.items() if there])
    _require_one(["--controls", *(["--at-least"] if at_least and controls else [])])
    changes, terminal = overrides or [], _terminal()
    wanted = terminal.thresholds(at_least or [])
    terminal.require_predictions(predictions)
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
                tuned=bool(wanted) and not base,
                redo=redo,
            )
            shown = {"n": found["n"], "metrics": found["metrics"]}
            table = terminal.metrics_table(found)
    if as_json:
        say_json(shown)
    else:
        terminal.console.print(table)
    if not controls:
        terminal.require_reached(found, wanted)


@app.command()
def compare(
    targets: Targets,
    run_dir: RunDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison alone.")] = False,
) -> None:
    """Compare answers before and after tuning, or of several runs.

    Question by question: what changed, with intervals. Logs of other tools, too.
    """
    terminal = _terminal()
    runs = [t for t in targets if "=" not in t or Path(t).exists()]
    with terminal.to_stderr(wanted=as_json), terminal.busy("ragtune compare"):
        if terminal.are_logs(runs, [t for t in targets if t not in runs]):
            logs = terminal.compare_logs([*map(Path, runs)])
            shown, table = dict(logs), terminal.logs_tables(logs)
        elif len(runs) > 1:
            _require_one(["several runs", *(["--run-dir"] if run_dir else [])])
            asked = terminal.set_of([t for t in targets if t not in runs])
            several = terminal.compare_runs([*map(Path, runs)], asked)
            shown, table = dict(several), terminal.runs_tables(several)
        else:  # which prints its table
            terminal.require_run(targets[0], targets[1:], run_dir)  # before torch is loaded
            shown, table = dict(ragtune.compare(*targets, run_dir=run_dir)), None
    if as_json:
        say_json(shown)
    elif table:
        terminal.console.print(table)


@app.command()
@found_first
def report(
    target: Target,
    overrides: Overrides = None,
    run_dir: RunDir = None,
    form: Form = ReportFormat.HTML,
) -> None:
    """Write the report of what there is, or print a summary of it.

    The report is report.html, with its figures in comparison.json.
    """
    if form is ReportFormat.HTML:
        ragtune.report(target, *(overrides or []), run_dir=run_dir)
        return
    with _terminal().to_stderr(wanted=True):
        text = ragtune.summary(target, *(overrides or []), run_dir=run_dir)
    say(text, end="")


@app.command()
@shared("merged")
def merge(
    target: Target, overrides: Overrides = None, run_dir: RunDir = None, redo: Redo = False
) -> None:
    """Merge the adapter into the base, and count what that changes.

    With publish.format=gguf also for llama.cpp and Ollama, as GGUF.
    """
    ragtune.merge(target, *(overrides or []), run_dir=run_dir, redo=redo)


@app.command()
@read_first
def push(
    target: Target,
    overrides: Overrides = None,
    run_dir: RunDir = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would go; ask nobody, send nothing.")
    ] = False,
) -> None:
    """Publish the model, merged or as GGUF, or its adapter.

    Its name there is publish.repo=owner/name, in the recipe or behind it.
    """
    if not dry_run:
        require_network("Publishing asks the Hub")
    ragtune.push(target, *(overrides or []), run_dir=run_dir, dry_run=dry_run)


app.command()(sweep)
app.command()(asking.ask)
app.command()(asking.demo)
app.command()(asking.serve)
app.command()(judging.judge)
app.command()(starting.schema)
app.command()(starting.init)
settle(app)
if "_RAGTUNE_COMPLETE" in os.environ:  # a shell asks what could come next
    from ragtune.recipe.completion import COMPLETERS

    complete_with(COMPLETERS)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code: 0, 1 (failure), 2 (usage), 130 or 143 (stopped).

    141 if who read its output went away.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--offline" in given:
        go_offline()
    stopping.install()
    try:
        with guarded(stopping.output_lost):
            code = code_of(lambda words: as_rank(lambda: call(app, words)), given)
            dismiss(code)
    finally:
        stopping.uninstall()
    sys.exit(code)
