"""How a run loads weights: it says so, on every rank, and they are the same there."""

from __future__ import annotations

from typing import Protocol

from pydantic import JsonValue
from transformers import PreTrainedModel

from ragtune.base.screen.console import note
from ragtune.base.screen.progress import busy
from ragtune.data.encode import Encoder
from ragtune.distributed.world import World
from ragtune.model.causal import require_causal
from ragtune.model.generation import stop_generation_at
from ragtune.model.hardware import Hardware
from ragtune.model.hub_cache import to_download
from ragtune.model.load import load_model
from ragtune.model.plan import Plan
from ragtune.model.source import ModelSource
from ragtune.model.wrapping import digest_of
from ragtune.recipe.schema import Recipe
from ragtune.stages.ranks import require_same_weights


class Loading(Protocol):
    """What of a run (`Context`, which loads by this module) its weights depend on."""

    weights: str
    following: World | None

    @property
    def recipe(self) -> Recipe: ...
    @property
    def source(self) -> ModelSource: ...
    @property
    def encoder(self) -> Encoder: ...
    @property
    def plan(self) -> Plan: ...
    @property
    def has_ranks(self) -> bool: ...
    def tell_ranks(self, do: str, **more: JsonValue) -> World | None: ...


def load_weights(
    context: Loading, source: ModelSource, hardware: Hardware, *,
    nf4: bool = False, dequantized: bool = False,
) -> PreTrainedModel:  # fmt: skip
    """Load a model; on every rank its share, if the plan has it spread.

    Args:
        context: the run.
        source: the model's, or that of one that was made of it.
        hardware: the device and dtype.
        nf4: whether its linear layers' weights are quantised.
        dequantized: whether what NF4 makes of them is kept in the dtype.

    Raises:
        UsageError: as `load_model`; or it looks ahead.
        RagtuneError: too little memory, or another rank has other weights.
    """
    world = _spread_over(context, source)
    named = context.recipe.model.id if source == context.source else source.path
    note(
        f"Loading {named} on {hardware.name} as {hardware.dtype_name} ({hardware.reason})"
        + (", weights in NF4" if nf4 else "")
        + (", kept dequantised" if nf4 and dequantized else "")
        + (f", spread over {world.size} ranks" if world else "")
        + " …"
    )
    arriving, size = to_download(source)
    with busy(f"{'downloading' if arriving else 'loading'} {named}", size, growing=arriving):
        model = load_model(source, hardware, nf4=nf4, dequantized=dequantized, world=world)
    require_causal(model, context.recipe.model.id)
    stop_generation_at(model, context.encoder)
    if source == context.source and (context.has_ranks or context.following):
        require_same_weights(found := digest_of(model), context.weights or found, named)
        context.weights = found
    return model


def _spread_over(context: Loading, source: ModelSource) -> World | None:
    """The ranks that load a model together, each its share; None where each has the whole one."""
    if not (context.following or context.has_ranks) or not context.plan.spread:
        return None
    return context.following or context.tell_ranks("load", merged=source != context.source)
