"""What a failure of Trainer means to the user."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path

from ragtune.base.errors import RagtuneError, is_out_of_memory
from ragtune.base.text import first_line
from ragtune.model.plan import Plan


def in_words(error: Exception, checkpoint: Path | None) -> RagtuneError | None:
    """What a failure of Trainer means to the user; None if it is a fault."""
    if isinstance(error, pickle.UnpicklingError) and checkpoint:
        # PyTorch's own words advise to read it all the same, which would run the code.
        return RagtuneError(
            f"{checkpoint} was refused: one of its .pt, .pth or .bin files holds code, which ragtune "
            "never wrote and does not run, or can't be read.",
            f"Delete {checkpoint} and run the same command again: it goes on from what is left. Find out "
            "who else writes to this folder.",
        )
    if is_out_of_memory(error):
        return RagtuneError(
            "There is too little memory for the optimizer or the evaluation loss.",
            "Set train.optimizer=paged_adamw_8bit, tuning=lora with a low lora.rank, or a lower "
            "prompt.max_tokens.",
        )
    if "deterministic implementation" in str(error):  # torch has no class of its own for it
        return RagtuneError(
            f"train.arguments: full_determinism asks for what torch can't do here: {first_line(error)}",
            "Leave full_determinism out.",
        )
    if isinstance(error, ValueError) and checkpoint and "parameter group" in str(error):
        return RagtuneError(
            f"The optimizer's state in {checkpoint} is not that of this training: {error}.",
            f"Delete {checkpoint.parent} and run the same command again: the training is repeated.",
        )
    return None


def smaller_plan(plan: Plan, step: int, on_plan: Callable[[Plan], None]) -> Plan:
    """The plan that a step begins again with, after memory ran out.

    Args:
        plan: with which it did.
        step: its number, from 1.
        on_plan: is given the plan of the next run, where this one can't go on.

    Raises:
        RagtuneError: there is no smaller one.
    """
    smaller = plan.smaller(step)
    if smaller is not None:
        return smaller
    if plan.dequantized and not plan.products:
        on_plan(dataclasses.replace(plan, dequantized=False))
        raise RagtuneError(
            f"Step {step}: beside the dequantised weights no single sample fits.",
            "Run the same command again: the weights then stay in NF4, which leaves room.",
        )
    instead = "Set model.quantization=nf4, a lower lora.rank, or"
    if plan.full:
        instead = "Set tuning=lora, or"
    elif plan.quantization == "nf4":
        instead = f"Set {'train.products=null, ' if plan.products else ''}a lower lora.rank, or"
    raise RagtuneError(
        f"Step {step}: there is too little memory for a single sample, even with recomputed activations.",
        f"{instead} prompt.max_tokens to something shorter.",
    )
