"""What can be found out before anything costs time: one page of findings, all at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from rich.text import Text

from ragtune.base.console import STYLES, console
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.files import lost_disk, see_writable
from ragtune.base.lock import refusal
from ragtune.base.network import hub_is_offline
from ragtune.base.stopping import stop_if_asked
from ragtune.base.surroundings import see_alone
from ragtune.stages.check import capacity
from ragtune.stages.check import data as data_checks
from ragtune.stages.check import model as bases
from ragtune.stages.check import template as template_checks
from ragtune.store.changes import input_changes

if TYPE_CHECKING:
    from ragtune.data.encode import EncodedPrompt
    from ragtune.data.example import Example
    from ragtune.stages.run import Run

Level = Literal["ok", "warning", "fail"]

_FAULT = "This is a fault of ragtune, or of a library that it uses; please report it."


@dataclass(frozen=True)
class Finding:
    """What a check found: `fail` means that the run would not get to its end."""

    name: str
    level: Level
    message: str
    advice: str = ""
    excerpt: tuple[tuple[str, str], ...] = ()
    """What is shown below it in colour: (kind, text) pairs, the kinds of `console.STYLES`."""


@dataclass
class Look:
    """A run that is looked at, and what was found so far."""

    run: Run
    findings: list[Finding] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)
    """Checks that failed, or that could not be made because another failed."""
    error: RagtuneError | None = None
    """The first failure, as it was raised."""
    examples: dict[str, list[Example]] = field(default_factory=dict)
    """Selected examples by split; empty where the data are prepared already."""
    whole: set[str] = field(default_factory=set)
    """Splits of which these are all."""
    fingerprints: dict[str, str] = field(default_factory=dict)
    prompts: dict[str, list[EncodedPrompt | None]] = field(default_factory=dict)
    """Of these examples."""

    def say(
        self,
        name: str,
        message: str,
        level: Level = "ok",
        advice: str = "",
        excerpt: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.findings.append(Finding(name, level, message, advice, excerpt))

    def fail(self, name: str, error: RagtuneError) -> None:
        self.say(name, error.message, "fail", error.advice)
        self.missing.add(name)
        self.error = self.error or error


def look(run: Run) -> Look:
    """Make every check that can be made; one that fails stops only those that need it."""
    found = Look(run)
    for name, needs, check in CHECKS:
        if found.missing & set(needs):
            found.missing.add(name)
            continue
        stop_if_asked()
        try:
            check(found)
        except RagtuneError as error:
            found.fail(name, error)
        except Exception as error:  # noqa: BLE001 - the other findings are worth having
            stop_if_asked()  # Ctrl-C in the middle of an import looks like one that fails
            text = (str(error).strip().splitlines() or [""])[0]
            fault = RagtuneError(f"{type(error).__name__}: {text}", _FAULT)
            found.fail(name, lost_disk(error) or fault)
    return found


def show(findings: list[Finding]) -> None:
    """Print the page."""
    marks = {
        "ok": ("ok", "green"),
        "warning": ("warning", "yellow"),
        "fail": ("will fail", "bold red"),
    }
    for finding in findings:
        mark, style = marks[finding.level]
        console.print(f"{mark:>9}", style=style, end="  ")
        soft = not console.is_terminal
        console.print(f"{finding.name}: {finding.message}", markup=False, soft_wrap=soft)
        if finding.excerpt:
            pieces = ((text.replace("\n", "⏎"), STYLES[kind]) for kind, text in finding.excerpt)
            console.print(Text.assemble(" " * 11, *pieces), soft_wrap=soft)
        if finding.advice and finding.level != "ok":
            console.print(f"{'':11}{finding.advice}", markup=False, soft_wrap=soft)


def _environment(look: Look) -> None:
    see_alone()
    look.say(
        "environment", "nothing in it makes this one of several processes, or changes the training"
    )


def _recipe(look: Look) -> None:
    recipe = look.run.recipe
    long = (
        f"{recipe.train.steps} steps" if recipe.train.steps else f"{recipe.train.epochs:g} epochs"
    )
    look.say("recipe", f"{recipe.name}: {long} of {recipe.train.batch_size} samples")


def _run_dir(look: Look) -> None:
    """Who is at work there, and whether what lies there is whole and of this recipe."""
    run, there = look.run, look.run.dir
    look.say("run directory", str(there.path))
    if run.settled:  # by the run that makes this check
        return
    see_writable(there.path)
    if other := refusal(there.path):
        raise other
    there.see_ours()
    if not there.state.exists():
        return
    state: dict[str, Any] = {}
    try:
        state = there.read_state()
    except RagtuneError as error:
        look.say(
            "run directory", error.message, "warning",
            "It is set aside; the stages stay, but their times and some figures have to be made again.",
        )  # fmt: skip
    changes = there.changes(run.recipe)
    changes += input_changes(there.path, state.get("inputs", {}), run.recipe)
    if going := state.get("retiring", {}).get("stages", []):
        look.say(
            "run directory", f"a --redo was cut off while it set {', '.join(going)} aside", "warning",
            "The next command that writes there sets aside the rest.",
        )  # fmt: skip
    there.refuse([left for one in changes if (left := one.without(going)).stages])
    for name, problem in there.damaged(state).items():
        words = f"{there.path / name} is damaged ({problem})"
        look.say("run directory", words, "warning", "It is set aside, and made again.")


def _hardware(look: Look) -> None:
    hardware, recipe = look.run.hardware, look.run.recipe
    words = f"{hardware.name}; {hardware.dtype_name} ({hardware.reason})"
    look.say("hardware", words + (", weights in NF4" if recipe.model.quantization else ""))


def _trackers(look: Look) -> None:
    if look.run.recipe.train.report_to:
        from ragtune.training.trackers import check_trackers

        check_trackers(look.run.recipe.train.report_to)
        look.say("trackers", ", ".join(look.run.recipe.train.report_to))


def _model(look: Look) -> None:
    run = look.run
    config = run.config
    look.say("model", f"{run.recipe.model.id} ({config.model_type})")
    from ragtune.model.weights import loads_without_hub, see_weights
    from ragtune.publish.licences import base_licence

    see_weights(run.source)
    found: Any = base_licence(run.recipe.model, run.source, ask=False)
    gated = False
    on_hub = run.source.path == run.source.name
    if on_hub and hub_is_offline():
        if not (run.dir.adapter.exists() or loads_without_hub(run.source)):
            raise UsageError(
                f"model.id: not all weights of {run.source.name} are in the cache, and offline nothing is "
                "downloaded.",
                "Run once where there is a network, or name a folder.",
            )
    elif on_hub:
        from ragtune.publish.facts import model_facts

        try:
            found, gated = model_facts(run.source.name, run.source.revision)
        except RagtuneError as error:
            if not loads_without_hub(run.source):
                raise
            advice = f"{error.advice} This run takes the model in the cache."
            look.say("model", error.message, "warning", advice.strip())
    words = str(found) if found else "nothing here names the base model's licence"
    level: Level = "warning" if run.recipe.publish.repo and not found else "ok"
    look.say(
        "licence", words + ("; gated, and this token may read it" if gated else ""), level,
        "What is published stays under it: look it up at the model's source.",
    )  # fmt: skip


def _server(look: Look) -> None:
    if look.run.remote:
        from ragtune.answering.serving import check_server

        answered = (look.run.dir.predictions("before") / "metrics.json").exists()
        words, warnings = check_server(look.run.recipe, needed=not answered)
        look.say("server", words)
        for warning in warnings:
            look.say("server", warning, "warning")


def _hub(look: Look) -> None:
    publish = look.run.recipe.publish
    if not publish.repo:
        return
    from ragtune.publish.hub import check_access, check_name

    check_name(publish.repo)
    if hub_is_offline():
        look.say(
            "hub",
            "not asked: offline",
            "warning",
            f"Whether {publish.repo} can be written is unknown.",
        )
        return
    access = check_access(publish.repo, private=publish.private)
    level: Level = "warning" if access.doubt else "ok"
    look.say("hub", access.doubt or access.words, level, access.advice)


Check = Callable[[Look], Any]
CHECKS: tuple[tuple[str, tuple[str, ...], Check], ...] = (
    ("environment", (), _environment),
    ("recipe", (), _recipe),
    ("run directory", (), _run_dir),
    ("hardware", (), _hardware),
    ("trackers", (), _trackers),
    ("data.train", (), lambda one: data_checks.split(one, "train")),
    ("data.eval", (), lambda one: data_checks.split(one, "eval")),
    ("data", (), data_checks.apart),
    ("model", (), _model),
    ("quantization", ("hardware", "model"), bases.quantization),
    ("template", ("model",), template_checks.template),
    ("mask", ("template", "data.train"), template_checks.mask),
    ("truncation", ("template",), data_checks.truncation),
    ("answers", ("template",), data_checks.answers),
    ("vocabulary", ("truncation",), bases.vocabulary),
    ("adapter", ("quantization",), bases.adapter),
    ("trial", ("adapter",), bases.trial),
    (
        "memory",
        (
            "run directory",
            "hardware",
            "quantization",
            "vocabulary",
            "adapter",
            "data.train",
            "data.eval",
        ),
        capacity.memory,
    ),
    ("merging", ("quantization", "adapter"), capacity.merging),
    ("disk", ("quantization", "adapter"), capacity.disk),
    ("server", (), _server),
    ("hub", (), _hub),
)
"""Each check, and those that it needs."""
