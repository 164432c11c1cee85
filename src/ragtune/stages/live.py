"""The report while a training is under way: written anew every few seconds, and how far that is."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from ragtune.base.errors import RagtuneError, in_words
from ragtune.base.screen.console import warn
from ragtune.reporting.html import HowFar, Report, write_report
from ragtune.stages import views
from ragtune.stages.context import Context

FIRST = 2.0
"""Seconds until the first page: a training that is over before needs none."""
PAUSE = 10.0
"""Seconds between two pages, at least."""
_SHARE = 100
"""A page is written so seldom that all of them together take less than this part of the time."""


@dataclass
class LivePage:
    """report.html of a training that runs."""

    context: Context
    begun: datetime = field(default_factory=lambda: datetime.now().astimezone())
    start: float = field(default_factory=time.monotonic)
    first: int | None = None
    """The step at which the training went on; None until it begins."""
    step: int = 0
    log: Sequence[Mapping[str, float]] = ()
    due: float = field(default_factory=lambda: time.monotonic() + FIRST)
    pages: int = 0
    """That were written."""
    pause: float = PAUSE
    """Seconds until the next page."""
    lost: bool = False
    """Whether the page can't be written."""

    @cached_property
    def report(self) -> Report:
        """What doesn't change while it trains."""
        return views.gathered(self.context, prompts=False)

    def tell(self, step: int, log: Sequence[Mapping[str, float]]) -> None:
        """Write the page anew, if that is due."""
        if self.first is None:
            self.first, self.start = step, time.monotonic()
        self.step, self.log = step, log
        if time.monotonic() >= self.due:
            self.write()

    def write(self, ended: str = "") -> None:
        """Write the page; `ended` says how the training ended, if it has."""
        path = self.context.folder.report
        if self.lost or (ended and not path.exists()):
            return
        start = time.monotonic()
        how_far = HowFar(
            step=self.step,
            steps=len(self.context.steps),
            begun=_clock(self.begun),
            written=_clock(datetime.now().astimezone()),
            left=None if ended else self._left(),
            again=None if ended else math.ceil(self.pause),
            ended=ended,
        )
        try:
            page = dataclasses.replace(self.report, log=self.log, how_far=how_far)
            write_report(path, page)
        except (OSError, RagtuneError) as error:
            self.lost = True
            warn(f"The report can't be written while it trains: {in_words(error).message}")
        now = time.monotonic()
        # The first one reads the questions and compiles the template, once and for all.
        cost = now - start if self.pages else 0.0
        self.pages += 1
        self.pause = max(PAUSE, _SHARE * cost)
        self.due = now + self.pause

    def _left(self) -> float | None:
        """Seconds that the steps which are left will take, as those before did."""
        made = self.step - (self.first or 0)
        if made <= 0:
            return None
        return (len(self.context.steps) - self.step) * (time.monotonic() - self.start) / made


@contextmanager
def live_page(context: Context) -> Iterator[LivePage]:
    """The report of a training that happens within; in the end it says how that ended."""
    page = LivePage(context)
    try:
        yield page
    except KeyboardInterrupt:
        page.write("Stopped: the same command goes on.")
        raise
    except Exception as error:
        page.write(f"Failed: {in_words(error).message}")
        raise
    page.write("Trained.")


def _clock(when: datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M:%S")
