"""The command line's arguments, and its help: the same with every Typer, whole in every width."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:  # some versions of Typer bring a Click of their own, others use Click
    from typer._click import Context, HelpFormatter

Offer = tuple[str, str]
"""A word that a shell may put in, and what it is."""
Completer = Callable[[typer.Context, str], list[Offer]]
"""What there is to offer for a word that is begun."""

_completers: dict[str, Completer] = {}


def complete_with(completers: dict[str, Completer]) -> None:
    """Let these offer words for arguments; the names are those given to `_offers` below."""
    _completers.update(completers)


def _offers(name: str) -> Completer:
    """Offers what the completer of this name does, once there is one: this room knows no recipes."""

    def offered(ctx: typer.Context, incomplete: str) -> list[Offer]:
        completer = _completers.get(name)
        return completer(ctx, incomplete) if completer else []

    return offered


Target = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="A recipe (YAML) or a run directory.",
        autocompletion=_offers("target"),
    ),
]
Targets = Annotated[
    list[str],
    typer.Argument(
        metavar="RECIPE|RUN...",
        help="One: before against after. Several runs, or folders of answers in them: each "
        "against the first. So are logs of lm_eval and flexeval.",
        autocompletion=_offers("targets"),
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SECTION.KEY=VALUE]...",
        help="Changes to the recipe, such as train.steps=50.",
        autocompletion=_offers("overrides"),
    ),
]
RunDir = Annotated[
    Path | None,
    typer.Option(
        "--run-dir",
        metavar="FOLDER",
        help="Where the run lies; runs/NAME by default.",
        autocompletion=_offers("run_dir"),
    ),
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
CorpusFile = Annotated[
    str,
    typer.Argument(metavar="CORPUS", help="A corpus (YAML).", autocompletion=_offers("corpus")),
]
CorpusOverrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SECTION.KEY=VALUE]...",
        help="Changes to the corpus, such as passages.size=300.",
        autocompletion=_offers("corpus_overrides"),
    ),
]
CorpusFolder = Annotated[
    Path | None,
    typer.Option(
        "--folder",
        metavar="FOLDER",
        help="Where it is built; corpora/NAME by default.",
        autocompletion=_offers("corpus_folder"),
    ),
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
ShippedRecipe = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="NAME",
        help="One that comes with ragtune, such as quickstart; another name lists them all.",
        autocompletion=_offers("recipe"),
    ),
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

PageHost = Annotated[
    str,
    typer.Option(
        "--host",
        metavar="ADDRESS",
        help="Where it is served; others than this machine's own need a password.",
    ),
]
PagePort = Annotated[
    int, typer.Option("--port", metavar="N", min=0, max=65535, help="0: any that is free.")
]
ForgetFeedback = Annotated[
    bool, typer.Option("--forget-feedback", help="Delete what thumbs have kept, and nothing else.")
]


AskedSource = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A run directory; or what was published: a folder, or owner/name.",
        autocompletion=_offers("run_dir"),
    ),
]
AskedTexts = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[QUESTION]... [SECTION.KEY=VALUE]...",
        help="Questions; and changes to the recipe, such as model.dtype=float32.",
        autocompletion=_offers("overrides"),
    ),
]
GivenPassages = Annotated[
    list[str] | None,
    typer.Option(
        "--passages",
        metavar="FILE",
        help="Answer from this document, or file of passages; may be given several times.",
    ),
]
AskedCorpus = Annotated[
    str | None,
    typer.Option(
        "--corpus",
        metavar="FOLDER",
        help="Search what `ragtune build` wrote here; by default the run's own.",
    ),
]
CompareBase = Annotated[
    bool, typer.Option("--compare", help="Ask the model before tuning, too, side by side.")
]
WholePassages = Annotated[
    bool, typer.Option("--whole", help="Show whole passages, not what is around the answer.")
]


class EngineName(StrEnum):
    """What `serve` starts."""

    VLLM = "vllm"
    TRANSFORMERS = "transformers"


ServedRun = Annotated[
    str,
    typer.Argument(metavar="RUN", help="A run directory.", autocompletion=_offers("run_dir")),
]
ServedBy = Annotated[
    EngineName | None,
    typer.Option(
        "--engine",
        metavar="vllm|transformers",
        help="What serves; by default what is installed, vLLM first.",
    ),
]
ServedName = Annotated[
    str | None,
    typer.Option(
        "--name",
        metavar="NAME",
        help="What clients call the tuned model (vLLM); the run's name by default.",
    ),
]
ServeMerged = Annotated[
    bool, typer.Option("--merged", help="The merged model, not the adapter on the base.")
]
ServeHost = Annotated[
    str,
    typer.Option(
        "--host",
        metavar="ADDRESS",
        help="Where to listen: 127.0.0.1, so that nobody else reaches it, unless asked.",
    ),
]
ServePort = Annotated[int, typer.Option("--port", metavar="N", min=1, max=65535, help="The port.")]
CheckServed = Annotated[
    int,
    typer.Option(
        "--check",
        metavar="N",
        min=0,
        show_default=False,
        help="Once it is ready, ask N evaluation questions through it, and compare with the run's "
        "own answers.",
    ),
]
Endpoint = Annotated[
    str | None,
    typer.Option(
        "--endpoint",
        metavar="URL",
        help="Start nothing: ask (50, or --check N) through this server, such as "
        "http://localhost:8000/v1.",
    ),
]
PrintCommand = Annotated[
    bool, typer.Option("--print", help="Print the command, and start nothing.")
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
