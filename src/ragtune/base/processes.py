"""What of the environment would change a run behind its recipe: launchers, Accelerate's settings."""

from __future__ import annotations

import os
from collections.abc import Callable

from ragtune.base.errors import UsageError

_ALONE = (
    "Several processes or GPUs for one run are not supported yet. If {name} is left over from another "
    "program: unset {name}. Start ragtune by itself, without torchrun, accelerate launch or mpirun."
)
_RECIPE = (
    "The recipe says how a run is made; Accelerate's settings would change it unseen: unset {name}, and "
    "start ragtune by itself, without accelerate launch."
)


def _several(value: str) -> bool:
    return not (value.isdecimal() and int(value) <= 1)


def _on(value: str) -> bool:
    return value.lower() not in ("0", "false", "no", "off", "n", "f")


_WORLD = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""How many processes there are, as torchrun and three kinds of MPI say it: TrainingArguments waits for
the others, for ten minutes and longer, deaf to signals."""

_CHANGES: dict[str, tuple[Callable[[str], bool], str]] = {
    **dict.fromkeys(_WORLD, (_several, _ALONE)),
    # With any rank, 0 too, Accelerate makes a group of processes and wraps the model for it.
    "LOCAL_RANK": (lambda value: value != "-1", _ALONE),
    "RANK": (lambda value: value not in ("0", "-1"), _ALONE),
    "ACCELERATE_MIXED_PRECISION": (_on, _RECIPE),
    "ACCELERATE_DYNAMO_BACKEND": (_on, _RECIPE),
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": (lambda value: value != "1", _RECIPE),
    "ACCELERATE_TORCH_DEVICE": (lambda _: True, _RECIPE),
    **dict.fromkeys(
        (
            "ACCELERATE_USE_CPU",
            "ACCELERATE_USE_DEEPSPEED",
            "ACCELERATE_USE_FSDP",
            "ACCELERATE_USE_MEGATRON_LM",
            "ACCELERATE_USE_PARALLELISM_CONFIG",
            "ACCELERATE_USE_SAGEMAKER",
        ),
        (_on, _RECIPE),
    ),
}
"""Variables that accelerate 1.15 and transformers 5.23 read, the values that change what a run does,
and what to do then. One that is empty is no number and no choice, and would end in an error of theirs."""


def require_alone() -> None:
    """See that nothing in the environment makes this process one of several, or changes the training.

    Raises:
        UsageError: something does; named with its value.
    """
    for name, (changes, advice) in _CHANGES.items():
        value = os.environ.get(name)
        if value is not None and changes(value.strip()):
            raise UsageError(
                f"The environment variable {name} is set: {name}={value}.",
                advice.format(name=name),
            )
