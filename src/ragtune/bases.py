"""What is found out of the base model itself: whether it is quantised, and whether ids fit it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ragtune.checks import Look


def quantization(look: Look) -> None:
    """What kind of quantisation a base comes with, whether it trains here, and how it is merged."""
    from ragtune.model.quantized import see_quantized

    run = look.run
    nf4 = run.recipe.model.quantization == "nf4"
    if found := see_quantized(run.config, run.hardware.device, nf4=nf4):
        look.say("quantization", f"the base is {found.words}")
