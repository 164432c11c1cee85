"""Notebooks: what a stage prints as one output of its cell, which is updated, and stays when it is saved.

rich's own mode for notebooks would make an output of every print. IPython is not needed: it is there already
where there is a notebook. Its updated outputs work in Jupyter, VS Code and Colab alike, and are plain HTML
in the file; a widget's would be gone when the notebook is opened again, so only a moving bar is one.
"""

from __future__ import annotations

import html
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import cast

from rich.console import ConsoleRenderable, RenderableType, RenderHook
from rich.rule import Rule
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from ragtune.base.screen.console import console
from ragtune.base.screen.visible import in_line, visible
from ragtune.base.screen.widget import Bar, Display, Handle

_PAUSE = 0.1
"""Seconds between two updates: a training may say much."""
_LONGEST = 20_000
"""Characters, after which another output is begun: each update sends the whole of one."""
_WIDTH, _WIDE = 100, 1000
"""Cells of what is shown as text, and for what is then laid out by the notebook."""
_BLACK, _GREY, _WHITE = (0, 0, 0), (128, 128, 128), (255, 255, 255)
_RED, _GREEN, _YELLOW = (220, 50, 47), (60, 145, 60), (181, 137, 0)
_BLUE, _MAGENTA, _CYAN = (38, 139, 210), (211, 54, 130), (42, 161, 152)
_COLOURS = [_BLACK, _RED, _GREEN, _YELLOW, _BLUE, _MAGENTA, _CYAN, _WHITE]
_THEME = TerminalTheme(_GREY, _GREY, _COLOURS, _COLOURS)
"""Colours that can be read on a light and on a dark page."""
_FONT = "var(--jp-ui-font-family, system-ui, sans-serif)"
_PAGE = (
    "font-family: var(--jp-code-font-family, monospace); white-space: pre-wrap; "
    "overflow-wrap: anywhere; line-height: 1.4"
)
_DRAWING = (
    f"max-width: 42em; font-family: {_FONT}; --text: currentColor; "
    "--muted: currentColor; --line: rgba(128, 128, 128, 0.35); --before: #93a1a1; --accent: #268bd2; "
    "--second: #cb7916; --good: #3c913c; --bad: #dc322f"
)
"""The colours that a drawing names, readable on a light and on a dark page."""
_CELL = "padding: 2px 8px; vertical-align: top"
_WHOLE, _WRAPPED = "nowrap", "pre-wrap; min-width: 9em"
"""Cells of a table; what is wrapped anywhere would else be as narrow as a letter."""


class Shown:
    """What a notebook shows as HTML, and anything else as text."""

    def __init__(self, page: str, text: str) -> None:
        self._html, self._text = page, text

    def _repr_html_(self) -> str:
        return self._html

    def __repr__(self) -> str:
        return self._text


class Page(RenderHook):
    """Takes what is printed; each heading begins another output."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._bar = Bar(display, Shown("", ""))
        self._lock = threading.RLock()
        self._drawing: Handle | None = None
        self._begin()

    def _begin(self) -> None:
        self._handle: Handle | None = None
        self._html: list[str] = []
        self._text: list[str] = []
        self._moving = ""
        self._sent = 0.0

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Called by the console with what it would print; nothing is left for it."""
        with self._lock:
            for one in renderables:
                # An output that showed only what was under way is that of the first heading.
                ends = isinstance(one, Rule) and self._said()
                if ends or sum(map(len, self._html)) > _LONGEST:
                    self.close()
                    self._begin()
                if isinstance(one, Rule):
                    self._drawing = None
                self._html.append(as_html(one))
                self._text.append(as_text(one))
            if time.monotonic() - self._sent >= _PAUSE:
                self._send()
        return []

    def move(self, line: str, share: float | None = None) -> None:
        """Show a line at the end, in the place of the one before; with an empty one there is none.

        Below it a bar shows how far it is, from 0 to 1, if that is known.
        """
        with self._lock:
            self._bar.move(share)
            if line != self._moving:
                self._moving = line
                self._send()

    def draw(self, svg: str, text: str) -> None:
        """Show a drawing below what a heading's block says, in the place of the one before.

        Args:
            svg: an element of ours, with no text of anybody else's; its colours are variables.
            text: what it is. It stands alone where nothing can be drawn.
        """
        with self._lock:
            self._send()  # a drawing stands below the block's first words
            shown = Shown(
                f'<div style="{_DRAWING}">{svg}<div>{html.escape(text)}</div></div>', text
            )
            if self._drawing:
                self._drawing.update(shown)
            else:
                self._drawing = self._display(shown, display_id=True)

    def close(self) -> None:
        """Send what was not sent yet."""
        with self._lock:
            self._moving = ""
            self._bar.close()
            self._send()

    def _said(self) -> bool:
        """Whether there is anything but what is under way."""
        return bool("".join(self._text).strip())

    def _send(self) -> None:
        if not (self._handle or self._moving or self._said()):
            return
        page, moving = "".join(self._html).strip("\n"), html.escape(in_line(self._moving))
        page += moving and f"<div>{moving}</div>"
        # Of what was only under way, nothing is left.
        shown = Shown(
            wrapped(page) if page else "", "".join([*self._text, self._moving]).strip("\n")
        )
        if self._handle:
            self._handle.update(shown)
        else:
            self._handle = self._display(shown, display_id=True)
        self._sent = time.monotonic()


_open: list[Page] = []


def page() -> Page | None:
    """The page that is printed on; None outside of a notebook."""
    return _open[-1] if _open else None


@contextmanager
def one_output() -> Iterator[None]:
    """Within a notebook, let what is printed be one output for each heading; elsewhere nothing changes."""
    display = _display()
    if display is None or _open:
        yield
        return
    own = Page(display)
    _open.append(own)
    console.push_render_hook(own)
    try:
        yield
    finally:
        _open.clear()
        console.pop_render_hook()
        own.close()


def _display() -> Display | None:
    """IPython's function, if a kernel of its runs this."""
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    if getattr(shell, "kernel", None) is None:
        return None
    display: Display = import_module("IPython.display").display
    return display


def wrapped(page: str) -> str:
    """Pieces of HTML as one that wraps at the end of a notebook's cell."""
    return f'<div style="{_PAGE}">{page}</div>'


def as_html(shown: object) -> str:
    """What rich would print, as HTML in which every text is escaped."""
    if isinstance(shown, Rule):
        return f'<div style="font-weight: bold">{_inline(shown.title)}</div>'
    if isinstance(shown, Table):
        return _table(shown)
    if isinstance(shown, (str, Text)):
        return _inline(shown)
    if isinstance(shown, Segment):
        return html.escape(visible(shown.text))
    # Whatever is laid out by its width gets all that it wants: the notebook wraps.
    options = console.options.update(width=_WIDE)
    parts = cast("ConsoleRenderable", shown).__rich_console__(console, options)
    return "".join(map(as_html, parts))


def as_text(shown: object) -> str:
    """The same as text."""
    if isinstance(shown, Text):
        return visible(shown.plain) + shown.end
    options = console.options.update(width=_WIDTH)
    return "".join(
        segment.text for segment in console.render(cast("RenderableType", shown), options)
    )


def _inline(text: str | Text) -> str:
    text = console.render_str(text) if isinstance(text, str) else text
    base = console.get_style(text.style)
    pieces = [(piece, base + style if style else base) for piece, style, _ in text.render(console)]
    return (
        "".join(_styled(html.escape(visible(piece)), style) for piece, style in pieces) + text.end
    )


def _styled(escaped: str, style: Style) -> str:
    css = style.get_html_style(_THEME)
    return f'<span style="{css}">{escaped}</span>' if css else escaped


def _table(table: Table) -> str:
    """A table that wraps where its cell of the notebook ends; figures stay whole."""
    columns = [list(column.cells) for column in table.columns]
    sides = [column.justify for column in table.columns]
    looks = [
        f"{_CELL}; text-align: {'right' if side == 'right' else 'left'}; "
        f"white-space: {_WHOLE if column.no_wrap or side == 'right' else _WRAPPED}"
        for side, column in zip(sides, table.columns, strict=True)
    ]
    head = [column.header for column in table.columns] if table.show_header else []
    rows = [_row("td", cells, looks, str(row.style or "")) for row, cells in zip(
        table.rows, zip(*columns, strict=True), strict=True)]  # fmt: skip
    title, caption = (part and f"<div>{_cell(part)}</div>" for part in (table.title, table.caption))
    return (
        f'<div style="overflow-x: auto; white-space: normal; font-family: {_FONT}; '
        f'font-variant-numeric: tabular-nums">{title or ""}'
        '<table style="border-collapse: collapse; margin: 4px 0; font: inherit">'
        f"{_row('th', head, looks, '') if any(head) else ''}{''.join(rows)}"
        f"</table>{caption or ''}</div>"
    )


def _row(tag: str, cells: Sequence[object], looks: Sequence[str], style: str) -> str:
    css = console.get_style(style).get_html_style(_THEME) if style else ""
    made = (
        f'<{tag} style="{look}">{_cell(cell)}</{tag}>'
        for cell, look in zip(cells, looks, strict=True)
    )
    return f'<tr style="{css}">{"".join(made)}</tr>'


def _cell(cell: object) -> str:
    return as_html(cell).rstrip("\n")
