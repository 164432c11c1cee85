"""What the user sees while a stage runs: the one door through which rich writes to the terminal."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from ragtune.base.screen.output import own
from ragtune.base.screen.visible import in_line, visible


class Door(Console):
    """A console of rich's without a way for data to be more than text.

    Markup, emoji codes and links are off; strings, also those of tables, are as `visible` makes them. A
    `Text` that a caller puts together has to be made with it, or its width would be another than planned.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        # Without emoji: "file:100:" would become a picture. In a notebook each print would be an output.
        super().__init__(
            stderr=stderr, markup=False, highlight=False, emoji=False, force_jupyter=False
        )

    @property
    def file(self) -> IO[str]:
        """Where to write; `guarded` and rich's live displays put others in its place."""
        return own(super().file)

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        self._file = new_file

    def render_str(self, text: str, **how: Any) -> Text:  # noqa: ANN401 - rich's own options
        return super().render_str(visible(text), **how)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
                continue
            style = segment.style
            yield Segment(
                visible(segment.text), style.update_link(None) if style and style.link else style
            )


console = Door()


@contextlib.contextmanager
def to_stderr(*, wanted: bool) -> Iterator[None]:
    """Keep standard output for a machine-readable answer (--json)."""
    before, console.stderr = console.stderr, wanted or console.stderr
    try:
        yield
    finally:
        console.stderr = before


STYLES = {"prompt": "dim", "opening": "black on yellow", "trained": "bold black on green"}
"""How tokens are shown: those that are read, those of them that a chat template writes between its
generation prompt and the answer, and those that are trained."""


def heading(title: str) -> None:
    console.print()
    console.rule(Text(in_line(title), "bold"), align="left", style="dim")


def note(message: str) -> None:
    """A line about what was found or chosen; a newline in data begins no other line."""
    console.print(in_line(message), soft_wrap=not console.is_terminal)


def show(text: str) -> None:
    """A text of several lines."""
    console.print(text, soft_wrap=not console.is_terminal)


def warn(message: str) -> None:
    line = Text(f"! {in_line(message)}", "yellow")
    console.print(line, soft_wrap=not console.is_terminal)


def show_error(message: str, advice: str) -> None:
    """Say on standard error why a command ended, and what to do."""
    stderr = Door(stderr=True)
    soft = not stderr.is_terminal
    stderr.print(Text.assemble(("Error:", "bold red"), " ", visible(message)), soft_wrap=soft)
    for line in advice.splitlines():
        stderr.print(line, soft_wrap=soft or _COMMAND.search(line) is not None)


_COMMAND = re.compile(r"\b(ragtune|pip|hf|vllm|transformers) [a-z]")
"""In a line that holds a command no line break is put, so that it can be copied."""
