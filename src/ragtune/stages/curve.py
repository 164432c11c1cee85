"""The loss as it falls, drawn in a notebook below what the training says."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ragtune.base.screen import notebook
from ragtune.reporting.plots import loss_curve

_WIDTH = 6.0
"""Inches."""
_SHARE = 50
"""A drawing waits so many times as long as the one before it took: 2 % of the time at most."""
_LEAST = 1.0
"""Seconds between two."""


@dataclass
class Curve:
    """Draws all of a training's loss, also what was before a break; the last drawing stays."""

    last: int
    """The last step, which is drawn in any case."""
    window: int
    """Steps over which the strong line is a mean."""
    due: float = 0.0

    def tell(self, step: int, log: Sequence[Mapping[str, float]]) -> None:
        """Draw the loss anew, if that is due."""
        page, start = notebook.page(), time.monotonic()
        if page is None or (start < self.due and step < self.last):
            return
        if drawn := loss_curve(log, window=self.window, width=_WIDTH):
            page.draw(drawn, f"The loss of each step, and its mean, up to step {step}.")
        end = time.monotonic()
        self.due = end + max(_LEAST, _SHARE * (end - start))
