"""What a check finds, what it remembers for those after it, and the page that is printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from rich.text import Text

from ragtune.base.console import STYLES, console
from ragtune.base.errors import RagtuneError

if TYPE_CHECKING:  # so that printing a page loads no torch
    from ragtune.data.encode import EncodedPrompt
    from ragtune.data.example import Example
    from ragtune.stages.context import Context

Level = Literal["ok", "warning", "fail"]
Excerpt = tuple[tuple[str, str], ...]
"""What is shown in colour: (kind, text) pairs, the kinds of `console.STYLES`."""


@dataclass(frozen=True)
class Finding:
    """What a check found: `fail` means that the run would not get to its end."""

    name: str
    level: Level
    message: str
    advice: str = ""
    excerpt: Excerpt = ()


@dataclass
class Look:
    """A run that is looked at, and what was found so far."""

    run: Context
    check: str = ""
    """The one that is at work, by its name in the table."""
    findings: list[Finding] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)
    """Checks that failed, or that could not be made because another failed."""
    error: RagtuneError | None = None
    """The first failure, as it was raised."""
    examples: dict[str, list[Example]] = field(default_factory=dict)
    """Selected examples by split; empty where the data are prepared already."""
    chosen: dict[str, int] = field(default_factory=dict)
    """How many records of a split are selected, where all were read; examples are the first of them."""
    fingerprints: dict[str, str] = field(default_factory=dict)
    """The sha256 of each split's file."""
    prompts: dict[str, list[EncodedPrompt | None]] = field(default_factory=dict)
    """Of these examples."""

    def say(
        self, message: str, level: Level = "ok", advice: str = "", excerpt: Excerpt = ()
    ) -> None:
        self.findings.append(Finding(self.check, level, message, advice, excerpt))

    def warn(self, message: str, advice: str = "") -> None:
        self.say(message, "warning", advice)

    def fail(self, error: RagtuneError) -> None:
        self.say(error.message, "fail", error.advice)
        self.missing.add(self.check)
        self.error = self.error or error


_MARKS = {
    "ok": ("ok", "green"),
    "warning": ("warning", "yellow"),
    "fail": ("will fail", "bold red"),
}


def show(findings: Sequence[Finding]) -> None:
    """Print the page."""
    soft = not console.is_terminal
    for finding in findings:
        mark, style = _MARKS[finding.level]
        console.print(f"{mark:>9}", style=style, end="  ")
        console.print(f"{finding.name}: {finding.message}", markup=False, soft_wrap=soft)
        if finding.excerpt:
            pieces = ((text.replace("\n", "⏎"), STYLES[kind]) for kind, text in finding.excerpt)
            console.print(Text.assemble(" " * 11, *pieces), soft_wrap=soft)
        if finding.advice and finding.level != "ok":
            console.print(f"{'':11}{finding.advice}", markup=False, soft_wrap=soft)
