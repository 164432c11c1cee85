"""Evaluation questions that are asked while an adapter is trained, without the training's noticing it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ragtune.base.stopping import asked
from ragtune.model.fast.attention import using_attention
from ragtune.model.hardware import free_gpu
from ragtune.model.wrapping import Tuned


@dataclass
class Questions:
    """Asked at each look at the evaluation set (`train.eval_answers`)."""

    count: int
    key: str
    """What their figure is called in the log: `eval_exact_match`, say."""
    short: str
    """The same over a column of a table: EM, say."""
    ask: Callable[[Tuned, int], dict[str, float]]
    """Given the model and the step, returns what is logged; nothing where they could not be answered."""
    times: int
    """How often they are asked in a whole training."""
    cost: str = ""
    """How long that takes in all, as far as that is known before, in words."""
    attention: str = ""
    """The model's own, with which it is asked; it is trained with another."""
    seconds: float = 0.0
    """That asking took since the start."""

    def look(self, model: Tuned, step: int) -> dict[str, float]:
        """Ask them, unless a stop was asked for: then they are asked when the training goes on.

        The model is left in eval mode, as by the evaluation loss: each training step sets its own.
        """
        if asked():
            return {}
        start = time.monotonic()
        device = model.get_input_embeddings().weight.device
        free_gpu()  # what the last step left in torch's hands
        # Nothing is sampled, but a CUDA graph that is captured has a part in the device's generator.
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices), using_attention(model, self.attention):
            found = self.ask(model, step)
        free_gpu()  # the cache's memory, for the next step
        self.seconds += time.monotonic() - start
        return found
