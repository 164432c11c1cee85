"""What of the environment would change a run behind its recipe: Accelerate's settings."""

from __future__ import annotations

import os
from collections.abc import Callable

from ragtune.base.errors import UsageError

_RECIPE = (
    "The recipe says how a run is made; Accelerate's settings would change it unseen: unset {name}, or leave "
    "out the option of accelerate launch, or of its configuration, that sets it."
)


def _on(value: str) -> bool:
    return value.lower() not in ("0", "false", "no", "off", "n", "f")


_CHANGES: dict[str, tuple[Callable[[str], bool], str]] = {
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


def require_own_settings() -> None:
    """See that nothing in the environment changes the training behind the recipe.

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
