"""The checks, in their order."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ragtune.base.errors import RagtuneError, is_panic, lost_disk
from ragtune.base.screen.progress import busy
from ragtune.base.stopping import stop_if_asked
from ragtune.stages.check import capacity, directory, gguf, inputs, licences, model, prompts
from ragtune.stages.check.findings import Look
from ragtune.stages.context import Context

Check = Callable[[Look], None]
CHECKS: tuple[tuple[str, tuple[str, ...], Check], ...] = (
    ("environment", (), inputs.environment),
    ("recipe", (), inputs.recipe),
    ("run directory", (), directory.run_directory),
    ("hardware", (), capacity.hardware),
    ("trackers", (), inputs.trackers),
    ("data.train", (), partial(inputs.data, split="train")),
    ("training", ("data.train",), inputs.epochs),
    ("data.eval", (), partial(inputs.data, split="eval")),
    ("data", (), inputs.apart),
    ("general tasks", (), inputs.general),
    ("data licences", ("data.train", "data.eval"), licences.of_data),
    ("model", (), model.base),
    ("dtype", ("hardware", "model"), capacity.dtype),
    ("quantization", ("dtype",), model.quantization),
    ("weights", ("quantization",), model.weights),
    ("template", ("model",), prompts.template),
    ("mask", ("template", "data.train"), prompts.mask),
    ("truncation", ("template",), prompts.truncation),
    ("answers", ("template",), prompts.answers),
    ("citations", ("template", "data.train"), prompts.citations),
    ("quotes", ("template", "data.train"), prompts.quotes),
    ("vocabulary", ("truncation", "weights"), prompts.vocabulary),
    ("adapter", ("weights",), model.adapter),
    ("trial", ("adapter",), model.trial),
    ("memory", ("run directory", "hardware", "vocabulary", "adapter", "data.train",
                "data.eval"), capacity.memory),
    ("eval_answers", ("memory",), capacity.looks),
    ("merging", ("adapter",), capacity.merging),
    ("gguf", ("template", "model"), gguf.written),
    ("disk", ("adapter",), capacity.disk),
    ("server", (), inputs.server),
    ("hub", (), inputs.hub),
)  # fmt: skip
"""Each check, with those that must have found nothing wrong before it."""

_FAULT = "This is a fault of ragtune, or of a library that it uses; please report it."


def look(run: Context) -> Look:
    """Make every check that can be made; one that fails stops only those that need it."""
    found = Look(run)
    for found.check, needs, check in CHECKS:
        if found.missing & set(needs):
            found.missing.add(found.check)
            continue
        stop_if_asked()
        try:
            with busy(f"checking {found.check}"):
                check(found)
        except RagtuneError as error:
            found.fail(error)
        # Checks try strangers' models, templates and files, which may raise anything.
        except BaseException as error:
            stop_if_asked()  # Ctrl-C in the middle of an import looks like one that fails
            if not (isinstance(error, Exception) or is_panic(error)):
                raise
            text = (str(error).strip().splitlines() or [""])[0]
            fault = RagtuneError(f"{type(error).__name__}: {text}", _FAULT)
            found.fail(lost_disk(error) or fault)
    return found
