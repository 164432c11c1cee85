"""The report within a notebook: in a frame of its own, which can touch nothing around it."""

from __future__ import annotations

import html
import re
from pathlib import Path

from ragtune.base.errors import UsageError
from ragtune.base.screen.notebook import Shown

_FRAME = (
    '<iframe title="{title}" srcdoc="{page}" sandbox="allow-scripts" height="720" style="width: 100%; '
    'min-width: 280px; border: 1px solid rgba(128, 128, 128, 0.4); resize: vertical"></iframe>'
)
"""Scripts are allowed, the origin is not: the page reaches neither the notebook nor its cookies, and its own
policy lets its own script alone run. Put into the notebook itself it would restyle that, and no policy held."""
_AGAIN = re.compile(r'<meta http-equiv="refresh"[^>]*>')
"""Of a training that is under way: a frame holds a copy, which stays as it is."""


def framed(report: Path) -> Shown:
    """A report as what a notebook shows.

    Raises:
        UsageError: there is none.
    """
    if not report.is_file():
        raise UsageError(
            f"There is no report at {report}.",
            "ragtune.run writes one at its end; ragtune.report writes that of what there is by now.",
        )
    page = report.read_text(encoding="utf-8")
    # Else links within the page would lead to the notebook's address.
    page = page.replace("<head>", '<head><base href="about:srcdoc">', 1)
    page = html.escape(_AGAIN.sub("", page, count=1))
    title = html.escape(f"The report of {report.parent.name}")
    return Shown(_FRAME.format(title=title, page=page), f"The report: {report}")
