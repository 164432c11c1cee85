"""A bar of ipywidgets beneath a stage's output, where they are installed.

The output itself is plain HTML, which stays when the notebook is saved; the bar is gone when it is over.
"""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import Protocol


class Handle(Protocol):
    """IPython's, of an output that can be updated."""

    def update(self, shown: object) -> None: ...


class Display(Protocol):
    """IPython's function."""

    def __call__(self, shown: object, **how: bool) -> Handle: ...


class _Progress(Protocol):
    value: float

    def close(self) -> None: ...


class Bar:
    """Appears when it is first moved.

    Args:
        display: IPython's.
        nothing: what is shown in its place when it is over.
    """

    def __init__(self, display: Display, nothing: object) -> None:
        self._display, self._nothing = display, nothing
        self._progress: _Progress | None = None
        self._handle: Handle | None = None

    def move(self, share: float | None) -> None:
        """Show how far it is, from 0 to 1; None: that isn't known, or it is over."""
        if share is None:
            self.close()
            return
        if self._progress is None:
            with suppress(ImportError):  # they are not installed: the line of text says it alone
                self._progress = import_module("ipywidgets").FloatProgress(min=0.0, max=1.0)
                self._handle = self._display(self._progress, display_id=True)
        if self._progress is not None:
            self._progress.value = share

    def close(self) -> None:
        if self._progress is not None and self._handle is not None:
            self._progress.close()
            self._handle.update(self._nothing)
        self._progress = self._handle = None
