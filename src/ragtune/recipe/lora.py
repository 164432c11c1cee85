"""The recipe's section about the adapter."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from ragtune.recipe.section import Section

ALL_LINEAR = "all-linear"
"""In `lora.target_modules`: every linear layer of the language model that learns."""


class Lora(Section):
    """The adapter that is trained (tuning: lora)."""

    rank: int = Field(128, ge=1, description="rank of the update matrices")
    alpha: float = Field(128, gt=0, description="scale of the update: alpha / rank")
    rslora: bool = Field(False, description="rank-stabilised: alpha / the root of rank")
    dora: bool = Field(False, description="DoRA: magnitude and direction apart; slower, by PEFT")
    init: Literal["pissa"] | None = Field(
        None,
        description="pissa: begin with the weights' largest singular values; the adapter then has twice the "
        "rank. null: with nothing (B = 0)",
    )
    dropout: float = Field(0.05, ge=0, lt=1, description="dropout before the adapter")
    target_modules: list[str] = Field(
        [ALL_LINEAR],
        min_length=1,
        description="the linear layers that get an adapter, by the end of their names; "
        "all-linear: the language model's, but for its output and the routers and experts of a mixture",
    )
    experts: bool = Field(
        False,
        description="let the experts of a mixture get an adapter, too (without dropout, where their "
        "weights are one tensor)",
    )

    @property
    def saved_rank(self) -> int:
        """The rank of the adapter as it is made and saved: PiSSA's also holds what it began with."""
        return self.rank * (2 if self.init else 1)

    @property
    def saved_alpha(self) -> float:
        """The alpha with which that has the scale of `alpha` and `rank`."""
        if not self.init:
            return self.alpha
        return self.alpha * (math.sqrt(2) if self.rslora else 2)

    @property
    def in_words(self) -> str:
        """Such as: rank 16."""
        more = f" (PiSSA: {self.saved_rank}, half of it as it began)" if self.init else ""
        return f"rank {self.rank}{more}"
