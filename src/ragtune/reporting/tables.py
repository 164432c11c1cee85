"""Tables of figures in terminals of any width: side by side, or below each other; no figure is split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.console import ConsoleOptions, JustifyMethod, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

_NAME = 20
"""The width, in cells, that the names of rows get where there is little: longer words are folded."""


@dataclass
class FigureTable:
    """Rows of a name and figures. All text is as `in_line` makes it, or ours."""

    title: str
    caption: str
    columns: Sequence[str]
    rows: list[tuple[tuple[str, ...], str]] = field(default_factory=list)
    """Cells with the style of the row."""
    sections: set[int] = field(default_factory=set)
    """Rows under which a line is drawn."""

    def add_row(self, *cells: str, style: str = "") -> None:
        self.rows.append((cells, style))

    def add_section(self) -> None:
        self.sections.add(len(self.rows) - 1)

    def __rich_console__(
        self, console: object, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        widths = self._widths(options.max_width)
        yield from [self._beside(widths)] if widths else self._below(options.max_width)

    def _widths(self, width: int) -> list[int]:
        """The columns' widths in a table of at most `width` cells; none if it would split a figure."""
        columns = list(zip(self.columns, *(cells for cells, _ in self.rows), strict=True))
        for measure in (cell_len, _longest_word):
            # Headings may go on in a second line; then figures, whose intervals stand in it as a whole.
            figures = [
                max([_longest_word(head), *map(measure, cells)]) for head, *cells in columns[1:]
            ]
            names = [max(map(size, columns[0])) for size in (cell_len, _longest_word)]
            left = width - sum(figures) - 3 * len(columns) - 1
            if left >= min(_NAME, *names):
                return [min(left, names[0]), *figures]
        return []

    def _beside(self, widths: Sequence[int]) -> Table:
        columns = list(zip(widths, self.columns, *(cells for cells, _ in self.rows), strict=True))
        folded = any(cell_len(cell) > width for width, _, *cells in columns[1:] for cell in cells)
        table = Table(title=self.title, caption=self.caption, show_lines=folded)
        for place, (width, head, *_) in enumerate(columns):
            side: JustifyMethod = "right" if place else "left"
            table.add_column(head, justify=side, overflow="fold", width=width)
        for place, (cells, style) in enumerate(self.rows):
            table.add_row(*cells, style=style, end_section=place in self.sections)
        return table

    def _below(self, width: int) -> Iterator[RenderableType]:
        """Every row as a paragraph: its name, then what its columns hold, one in a line."""
        yield Text(self.title, "italic")
        heads = min(max(map(cell_len, self.columns[1:])), width // 2 - 4)
        figures = max((cell_len(c) for cells, _ in self.rows for c in cells[1:]), default=0)
        for (name, *cells), style in self.rows:
            yield Text(name, style)
            grid = Table.grid(padding=(0, 2))
            grid.add_column(width=heads, overflow="fold")
            grid.add_column(
                width=min(figures, width - heads - 4),
                justify="right",
                overflow="fold",
            )
            for column, figure in zip(self.columns[1:], cells, strict=True):
                if figure:
                    grid.add_row(column, figure)
            yield Padding(grid, (0, 0, 0, 2), expand=False)
        if self.caption:
            yield Text(self.caption, "dim italic")


def _longest_word(text: str) -> int:
    return max(map(cell_len, text.split()), default=0)
