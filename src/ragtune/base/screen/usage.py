"""The command line's arguments, and its help: the same with every Typer, whole in every width."""

from __future__ import annotations

import inspect
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:  # some versions of Typer bring a Click of their own, others use Click
    from typer._click import Context, HelpFormatter

Target = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe (YAML) or a run directory.")
]
Targets = Annotated[
    list[str],
    typer.Argument(
        metavar="RECIPE|RUN...",
        help="One: before against after. Several runs, or folders of answers in them: each "
        "against the first.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SECTION.KEY=VALUE]...", help="Changes to the recipe, such as train.steps=50."
    ),
]
RunDir = Annotated[
    Path | None,
    typer.Option("--run-dir", metavar="FOLDER", help="Where the run lies; runs/NAME by default."),
]
Redo = Annotated[
    bool,
    typer.Option(
        "--redo",
        help="After a change of the recipe or its files: set aside what is no longer valid, and "
        "make it again.",
    ),
]
Show = Annotated[
    int,
    typer.Option(
        "--show",
        metavar="N",
        min=0,
        show_default=False,
        help="Show N training examples: prompt, tokens, what is trained.",
    ),
]
CorpusFile = Annotated[str, typer.Argument(metavar="CORPUS", help="A corpus (YAML).")]
CorpusOverrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SECTION.KEY=VALUE]...",
        help="Changes to the corpus, such as passages.size=300.",
    ),
]
CorpusFolder = Annotated[
    Path | None,
    typer.Option("--folder", metavar="FOLDER", help="Where it is built; corpora/NAME by default."),
]
ShowQuestions = Annotated[
    int,
    typer.Option(
        "--show",
        metavar="N",
        min=0,
        show_default=False,
        help="Show N questions: what was retrieved, what is positive, and why.",
    ),
]
Compare = Annotated[
    str | None,
    typer.Option(
        "--compare",
        metavar="NAMES",
        help="Compare retrievers on these questions, such as lexical,dense,hybrid.",
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Fail where a single file can't be read.")]
ForCorpus = Annotated[
    bool, typer.Option("--corpus", help="Of a corpus, for `ragtune build`, not of a recipe.")
]
Base = Annotated[bool, typer.Option("--base", help="Without the adapter.")]
Checkpoint = Annotated[
    int | None,
    typer.Option("--checkpoint", metavar="STEP", help="With the adapter of this step."),
]
Controls = Annotated[
    bool,
    typer.Option(
        "--controls", help="Ask with other passages, too: none, the positive alone, and so on."
    ),
]
Predictions = Annotated[
    Path | None,
    typer.Option(
        "--predictions",
        metavar="FILE",
        help="Score this file (lines of qid, prediction) and ask nothing.",
    ),
]
AtLeast = Annotated[
    list[str] | None,
    typer.Option("--at-least", metavar="METRIC=RATE", help="Exit code 1 if it is lower."),
]


class ReportFormat(StrEnum):
    """What `report` makes."""

    HTML = "html"
    MARKDOWN = "md"


Form = Annotated[
    ReportFormat,
    typer.Option(
        "--format",
        metavar="html|md",
        help="html: write report.html; md: print a summary in Markdown.",
    ),
]

_NAMES = 0.4
"""The share of the width that names take at most before their help begins in the line below."""


class _Command(TyperCommand):
    """A command whose arguments are written as their `metavar`: {}, [], dots and types stand in it."""

    def collect_usage_pieces(self, ctx: Context) -> list[str]:
        return ["[OPTIONS]", *(name for name, _ in self._arguments(ctx))]

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        options = [p for p in self.get_params(ctx) if p.param_type_name == "option"]
        rows = {
            "Arguments": self._arguments(ctx),
            "Options": [row for one in options if (row := one.get_help_record(ctx))],
        }
        for title, listed in rows.items():
            if listed:
                with formatter.section(title):
                    formatter.write_dl(listed, col_max=int(_NAMES * formatter.width))

    def _arguments(self, ctx: Context) -> list[tuple[str, str]]:
        found = [p for p in self.get_params(ctx) if p.param_type_name == "argument"]
        return [(p.metavar or "", getattr(p, "help", None) or "") for p in found]


def settle(app: typer.Typer) -> None:
    """Give every command this help; its summary in the list of all is its docstring's first paragraph."""
    for command in app.registered_commands:
        command.cls = _Command
        command.short_help = (inspect.getdoc(command.callback) or "").partition("\n\n")[0]
