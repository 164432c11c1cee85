"""A model's modes while it is trained: recomputed activations, and a `train` that is called for every row."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from ragtune.base.stopping import Stopped
from ragtune.model.wrapping import Tuned


class Paused(Stopped):
    """The training has come to the step after which it was to wait; a checkpoint of it is there."""


def set_recompute(model: Tuned, *, on: bool) -> None:
    """Let a model recompute its activations in the backward pass, or keep them."""
    # transformers before 5.20 knows the older names alone.
    # That a model has one of them: tested by tests/training/test_out_of_memory.py, with both versions.
    names = ("activation_checkpointing", "gradient_checkpointing")
    kind = names[0] if hasattr(model, f"{names[0]}_enable") else names[1]
    if on:
        getattr(model, f"{kind}_enable")({"use_reentrant": False})
    else:
        getattr(model, f"{kind}_disable")()


def switching(model: Tuned) -> Callable[[bool], Tuned]:
    """A model's `train` that does nothing where its mode is the wanted one.

    Trainer calls it for every row, and a large model has thousands of modules: milliseconds in which
    the GPU waits.
    """
    train = model.train

    def switch(mode: bool = True) -> Tuned:
        return model if model.training == mode else train(mode)

    return switch


def forgetting(parameters: Sequence[nn.Parameter]) -> Callable[..., None]:
    """A model's `zero_grad` that looks at what learns alone, and drops its gradients.

    Trainer calls it at every step, when the GPU has nothing left to do.
    """

    def forget(*_: object, **__: object) -> None:
        for parameter in parameters:
            parameter.grad = None

    return forget
