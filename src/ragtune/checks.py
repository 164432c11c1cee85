"""What can be found out before anything costs time: one page of findings, all at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ragtune import bases, capacity
from ragtune.console import console
from ragtune.data.read import locate
from ragtune.data.select import rejection
from ragtune.errors import RagtuneError, UsageError
from ragtune.files import lost_disk, see_writable, sha256
from ragtune.lock import refusal
from ragtune.offline import hub_is_offline
from ragtune.stopping import stop_if_asked
from ragtune.validity import input_changes

if TYPE_CHECKING:
    from ragtune.data.encode import EncodedPrompt
    from ragtune.data.example import Example
    from ragtune.stages import Run

Level = Literal["ok", "warning", "fail"]

WHOLE = 16 * 2**20
"""Bytes of a file up to which every record is read; of larger ones, and of Hub datasets, the first LOOK."""
LOOK = 100
_SHOWN = 100
"""Selected examples of a split that are encoded."""
_MANY_EPOCHS = 20
_FAULT = "This is a fault of ragtune, or of a library that it uses; please report it."


@dataclass(frozen=True)
class Finding:
    """What a check found: `fail` means that the run would not get to its end."""

    name: str
    level: Level
    message: str
    advice: str = ""


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
    fingerprints: dict[str, str] = field(default_factory=dict)
    prompts: dict[str, list[EncodedPrompt | None]] = field(default_factory=dict)
    """Of these examples."""

    def say(self, name: str, message: str, level: Level = "ok", advice: str = "") -> None:
        self.findings.append(Finding(name, level, message, advice))

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
        if finding.advice and finding.level != "ok":
            console.print(f"{'':11}{finding.advice}", markup=False, soft_wrap=soft)


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
        from ragtune.training.trainer import check_trackers

        check_trackers(look.run.recipe.train.report_to)
        look.say("trackers", ", ".join(look.run.recipe.train.report_to))


def _data(look: Look, split: str) -> None:
    """See that a split can be read, how much of it is selected, and what its file's sha256 is."""
    from ragtune.data import aio
    from ragtune.data.prepare import source_of
    from ragtune.data.read import read_examples

    run, name = look.run, f"data.{split}"
    if (run.dir.data / "report.json").exists():
        look.say(name, "prepared already")
        return
    named = run.recipe.data.train if split == "train" else run.recipe.data.eval
    if named is None and not run.settled and not aio.is_there(split):
        look.say(name, f"{aio.FILES[split]} will be downloaded, and looked at then")
        return
    # A run downloads it now: it needs it anyway.
    source = named if named is not None else source_of(run.recipe.data, split)
    path = locate(source)
    every = path is not None and path.stat().st_size <= WHOLE
    read, total, where = 0, 0, (0, 0)

    def tick(done: int, of: int) -> None:
        nonlocal where
        where = (done, of)

    reasons: dict[str | None, int] = {}
    selected: list[Example] = []
    for example in read_examples(source, "train" if split == "train" else "validation", tick):
        read += 1
        reason = rejection(example, run.recipe.data.max_passages)
        reasons[reason] = reasons.get(reason, 0) + 1
        if reason is None and len(selected) < _SHOWN:
            selected.append(example)
        if read == LOOK and not every:
            total = round(read * where[1] / where[0]) if where[0] and where[1] else 0
            break
    chosen = reasons.get(None, 0)
    whole = not total and (every or read < LOOK)
    if not chosen and whole:
        raise UsageError(
            f"Nothing of {source} would be selected ({read} records).",
            "Each question needs an answer that stands in one of its first data.max_passages passages.",
        )
    look.examples[split] = selected
    words = f"{source}; " + (
        f"{chosen:,} of {read:,} records are selected"
        if whole
        else f"of the first {read} records {chosen} are selected"
        + (f", of about {total:,}" if total else "")
    )
    if path is not None:
        look.fingerprints[split] = sha256(path)
        words += f"; sha256 {look.fingerprints[split][:12]}"
    look.say(name, words)
    if whole and split == "train":
        _epochs(look, chosen)


def _epochs(look: Look, chosen: int) -> None:
    train = look.run.recipe.train
    epochs = train.epochs or (train.steps or 0) * train.batch_size / chosen
    if epochs > _MANY_EPOCHS:
        look.say(
            "training", f"each of {chosen:,} examples is trained {epochs:.0f} times", "warning",
            "So few examples are learnt by heart: lower train.steps, or bring more.",
        )  # fmt: skip


def _apart(look: Look) -> None:
    prints = look.fingerprints
    if "train" in prints and prints["train"] == prints.get("eval"):
        look.say(
            "data", "training and evaluation are the same file", "warning",
            "The figures would say how well answers were learnt by heart: set data.eval to other questions.",
        )  # fmt: skip


def _model(look: Look) -> None:
    run = look.run
    config = run.config
    look.say("model", f"{run.recipe.model.id} ({config.model_type})")
    from ragtune.model.weights import loads_without_hub, see_weights
    from ragtune.reporting.licences import base_licence

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
        from ragtune.model.facts import model_facts

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


def _template(look: Look) -> None:
    """The chat template, and what is trained of an example."""
    run, encoder = look.run, look.run.encoder
    recipe, tokenizer = run.recipe, encoder.tokenizer
    stop = tokenizer.convert_ids_to_tokens(encoder.stop_id)
    look.say("template", f"a turn ends with {stop}; the model reads {encoder.context:,} tokens")
    if encoder.max_prompt < 1:
        raise UsageError(
            f"The model reads {encoder.context} tokens and evaluate.max_new_tokens is "
            f"{recipe.evaluate.max_new_tokens}: no room is left for a prompt.",
            "Lower evaluate.max_new_tokens, or choose a model with a longer context.",
        )
    if not encoder.prefix_holds:
        look.say(
            "template", "it writes a finished turn otherwise than the generation prompt", "warning",
            "What is trained follows the generation prompt. See `ragtune prepare --show 1`.",
        )  # fmt: skip


def _mask(look: Look) -> None:
    encoder = look.run.encoder
    samples = encoder.samples(look.examples.get("train", [])[:1])
    if samples and samples[0] is not None:
        sample = samples[0]
        tokens = [encoder.tokenizer.decode([i]) for i in sample.completion_ids]
        stop = "the last one is the stop token" if tokens and (
            sample.completion_ids[-1] == encoder.stop_id
        ) else "the stop token is not among them"  # fmt: skip
        look.say(
            "mask",
            f"of {sample.qid} {len(sample.prompt_ids):,} prompt tokens are read and "
            f"{len(tokens)} trained: {'|'.join(tokens)} ({stop})".replace("\n", "⏎"),
        )


def _truncation(look: Look) -> None:
    for split, examples in look.examples.items():
        look.prompts[split] = look.run.encoder.prompts(examples)
    prompts = [prompt for split in look.prompts.values() for prompt in split]
    if not prompts:
        return
    cut = sum(p is None or bool(p.passages_dropped or p.characters_cut) for p in prompts)
    if cut:
        look.say(
            "truncation", f"{cut:,} of {len(prompts):,} prompts lose passages or text", "warning",
            f"Prompts may have {look.run.encoder.max_prompt:,} tokens: lower data.max_passages, or raise "
            "prompt.max_tokens as far as the model reads.",
        )  # fmt: skip
    else:
        look.say("truncation", f"none of {len(prompts):,} prompts is cut")


def _adapter(look: Look) -> None:
    from ragtune.model.targets import describe, find_targets

    targets = find_targets(look.run.config, look.run.recipe.lora)
    for line in describe(targets, look.run.recipe.lora):
        look.say("adapter", line)


def _server(look: Look) -> None:
    if look.run.remote:
        from ragtune.evaluation.serving import check_server

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
    ("recipe", (), _recipe),
    ("run directory", (), _run_dir),
    ("hardware", (), _hardware),
    ("trackers", (), _trackers),
    ("data.train", (), lambda one: _data(one, "train")),
    ("data.eval", (), lambda one: _data(one, "eval")),
    ("data", (), _apart),
    ("model", (), _model),
    ("quantization", ("hardware", "model"), bases.quantization),
    ("template", ("model",), _template),
    ("mask", ("template", "data.train"), _mask),
    ("truncation", ("template",), _truncation),
    ("vocabulary", ("truncation",), bases.vocabulary),
    ("adapter", ("model",), _adapter),
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
    ("merging", ("quantization",), capacity.merging),
    ("disk", ("quantization", "adapter"), capacity.disk),
    ("server", (), _server),
    ("hub", (), _hub),
)
"""Each check, and those that it needs."""
