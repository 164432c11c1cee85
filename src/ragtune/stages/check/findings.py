"""What a check finds, what it remembers for those after it, and the page that is printed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from rich.table import Table
from rich.text import Text

from ragtune.base.errors import RagtuneError
from ragtune.base.screen import notebook
from ragtune.base.screen.console import STYLES, console
from ragtune.base.screen.visible import in_line, visible

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

    def _are_all(self, split: str) -> bool:
        return split not in self.examples or self.chosen.get(split) == len(self.examples[split])

    def of(self, split: str, count: int) -> str:
        """A number of a split's examples, which says if there are, or may be, more of them."""
        return f"{count:,}" if self._are_all(split) else f"the first {count:,}"

    @property
    def which(self) -> str:
        """The same, to stand behind a number of examples of both splits."""
        return "" if all(map(self._are_all, self.examples)) else " (the first of each split)"

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
_MARK = 9
"""The width of their column."""


class Findings(list[dict[str, Any]]):
    """Findings as plain values. A notebook shows them as a table, and Python's prompt as lines."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        super().__init__(map(asdict, findings))

    def __repr__(self) -> str:
        lines = []
        for one in (Finding(**values | {"excerpt": ()}) for values in self):
            said = " ".join(map(str, _said(one)))
            lines.append(f"{_MARKS[one.level][0]:>{_MARK}}  {visible(one.name)}: {said}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return notebook.wrapped(notebook.as_html(_table([Finding(**one) for one in self])))


def no_recipe(error: RagtuneError) -> Findings:
    """What a check finds without a recipe: there is nothing else to look at."""
    return Findings([Finding("recipe", "fail", error.message, error.advice)])


def _said(finding: Finding) -> list[Text]:
    """The message, then the excerpt in colour and the advice, as far as there are any."""
    pieces = ((in_line(text), STYLES[kind]) for kind, text in finding.excerpt)
    advice = "" if finding.level == "ok" else finding.advice
    return [
        Text(visible(finding.message)),
        *filter(None, (Text.assemble(*pieces), Text(visible(advice)))),
    ]


def show(findings: Sequence[Finding]) -> None:
    """Print the page: on a terminal in two columns, in a pipe a line for each thing that is said."""
    if notebook.page():
        console.print(_table(findings))
        return
    for finding in findings:
        mark, style = _MARKS[finding.level]
        message, *more = _said(finding)
        said = [Text(f"{visible(finding.name)}: ").append(message), *more]
        if console.is_terminal:
            page = Table.grid(padding=(0, 2, 0, 0))
            page.add_column(width=_MARK, justify="right", style=style)
            page.add_column(overflow="fold")
            for place, line in enumerate(said):
                page.add_row("" if place else mark, line)
            console.print(page)
        else:
            console.print(f"{mark:>{_MARK}}", style=style, end="  ")
            for place, line in enumerate(said):
                console.print(" " * (_MARK + 2) if place else "", line, sep="", soft_wrap=True)


def _table(findings: Sequence[Finding]) -> Table:
    """The same page, for a notebook."""
    table = Table(show_header=False)
    for wraps in (False, False, True):
        table.add_column(no_wrap=not wraps)
    for finding in findings:
        mark, style = _MARKS[finding.level]
        table.add_row(Text(mark, style), Text(finding.name), Text("\n").join(_said(finding)))
    return table
