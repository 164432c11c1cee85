"""What is found out of the base model: licence, quantisation, layers, and how a small copy behaves."""

from __future__ import annotations

import contextlib

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.text import first_line, shortened
from ragtune.base.web.network import hub_is_offline
from ragtune.model.causal import require_causal
from ragtune.model.facts import model_facts
from ragtune.model.fast.attention import using_packed
from ragtune.model.fast.probe import probe
from ragtune.model.full import require_plain
from ragtune.model.generation import GENERATION, require_settings
from ragtune.model.headers import compare
from ragtune.model.hub_cache import folder_of, loads_without_hub, require_weights
from ragtune.model.lora import attach
from ragtune.model.quantized import quantization_of, without_quantization
from ragtune.model.quiet import quiet
from ragtune.model.skeleton import FOREIGN, skeleton
from ragtune.model.targets import describe, find_targets, packed_weight
from ragtune.model.trial import TrialError, small_copy
from ragtune.model.wrapping import Tuned, adapters
from ragtune.publish.licences import base_licence
from ragtune.recipe.lora import Lora
from ragtune.stages.check.directory import trained
from ragtune.stages.check.findings import Finding, Level, Look
from ragtune.training.gradients import without_gradient

_LATER = (
    "Whether it is causal and can be packed is tried when it is loaded, before the first answer."
)


def base(look: Look) -> None:
    """Whether the base can be had, and under which licence it is."""
    run = look.run
    look.say(f"{run.recipe.model.id} ({run.config.model_type})")
    require_weights(run.source)
    licence, gated = _licence(look)
    words = licence or "nothing here names the base model's licence"
    level: Level = "warning" if run.recipe.publish.repo and not licence else "ok"
    words += "; gated, and this token may read it" if gated else ""
    advice = "What is published stays under it: look it up at the model's source."
    look.findings.append(Finding("licence", level, words, advice))


def weights(look: Look) -> None:
    """Whether the files' tensors are those of the model's class, by their headers."""
    run = look.run
    found = compare(run.config, run.source)
    if found is None:
        look.say("names and shapes can't be compared here; it is done when they are loaded")
        return
    look.say(found.words)
    folder = folder_of(run.source)
    ends = require_settings(folder) if folder else ()
    if beyond := [i for i in ends if not 0 <= i < run.embedding_rows]:
        look.warn(
            f"eos_token_id of {GENERATION} has {beyond[0]}, and the model {run.embedding_rows:,} rows: no "
            "answer ends with it",
            "Answers end at the template's own stop token.",
        )


def _licence(look: Look) -> tuple[str | None, bool]:
    """The base's licence in words, if anything names it, and whether the Hub gates the model.

    Raises:
        UsageError, RagtuneError: the model is on the Hub, not whole in the cache, and can't be had.
    """
    run, source = look.run, look.run.source
    found = base_licence(run.recipe.model, source, ask=False)
    here = str(found) if found else None
    if source.path != source.name:
        return here, False
    if hub_is_offline():
        if not (trained(run) or loads_without_hub(source)):
            raise UsageError(
                f"model.id: not all weights of {source.name} are in the cache, and offline nothing is "
                "downloaded.",
                "Run once where there is a network, or name a folder.",
            )
        return here, False
    try:
        return model_facts(source.name, source.revision)
    except RagtuneError as error:
        if not loads_without_hub(source):
            raise
        advice = f"{error.advice} This run takes the model in the cache."
        look.warn(error.message, advice.strip())
        return here, False


def quantization(look: Look) -> None:
    """What kind of quantisation a base comes with, whether it trains here, and how it is merged."""
    run = look.run
    nf4 = run.recipe.model.quantization == "nf4"
    if found := quantization_of(run.config, run.hardware.device, nf4=nf4):
        look.say(f"the base is {found.words}")


def adapter(look: Look) -> None:
    """What the adapter goes on, as PEFT makes it on the model without weights, and what is left out.

    Raises:
        UsageError: PEFT can't reach what is asked for, or the weights that are to be trained are packed.
    """
    run = look.run
    quantized = quantization_of(run.config, run.hardware.device)
    if run.recipe.full:
        require_plain(quantized)
        look.say(
            f"none: all {skeleton(run.config).num_parameters():,} parameters are trained, in float32"
        )
        if run.recipe.lora != Lora():
            look.say("tuning: full doesn't use the lora section")
        return
    targets = find_targets(run.config, run.recipe.lora)
    if quantized and not quantized.dequantized and targets.by_weight:
        raise packed_weight(targets.by_weight[0], quantized.kind)
    if run.recipe.in_8_bits and targets.by_weight:
        raise packed_weight(targets.by_weight[0], f"{run.recipe.in_8_bits}: fp8")
    for line in describe(targets, run.recipe.lora):
        look.say(line)


def trial(look: Look) -> None:
    """Try on a small copy what training relies on: that the model is causal, packs, and learns.

    Raises:
        UsageError: it is not causal.
    """
    run = look.run
    if trained(run):
        return
    try:
        copy, layers = small_copy(without_quantization(run.config))
    except TrialError as error:
        look.warn(f"not made: {error.message}", _LATER)
        return
    try:
        with quiet():
            require_causal(copy, run.recipe.model.id)
            unpackable = probe(copy, training=True)
            tuned: Tuned = copy
            if not run.recipe.full:
                tuned = attach(copy, run.recipe.lora, run.recipe.seed)
            with contextlib.nullcontext() if unpackable else using_packed(copy):
                unreached = without_gradient(tuned, packed=unpackable is None)
    except FOREIGN as error:
        text = shortened(first_line(error), 120)
        look.warn(f"not made: a small copy fails ({text})", _LATER)
        return
    what = "weights" if run.recipe.full else "adapters"
    count = len(list(copy.parameters()) if run.recipe.full else adapters(tuned))
    packing = f"one sample a row: {unpackable}" if unpackable else "its rows can be packed"
    look.say(f"a small copy with {layers} of its layers is causal; {packing}")
    if unreached:
        ends = sorted({name.rpartition(".")[2] for name in unreached})
        look.warn(
            f"{len(unreached)} of the copy's {count} {what} get no gradient: {', '.join(ends)}",
            "Training leaves them out; the number of parameters above still counts them.",
        )
    else:
        look.say(f"each of its {count} {what} gets a gradient")
