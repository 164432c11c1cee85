"""The report in a notebook's frame: whole, and unable to touch what is around it."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

from ragtune.base.errors import UsageError
from ragtune.reporting.frame import framed
from tests.reporting import made


def test_the_report_is_in_the_frame_as_it_is(tmp_path: Path) -> None:
    path = made.render(tmp_path)
    shown = framed(path)._repr_html_()
    start, page, end = re.fullmatch(r'(.*srcdoc=")([^"]*)(".*)', shown, re.DOTALL).groups()  # type: ignore[union-attr]
    assert html.unescape(page).replace('<base href="about:srcdoc">', "") == path.read_text("utf-8")
    assert "<" not in page
    assert end.startswith('" sandbox="allow-scripts" height=')
    assert f'title="The report of {tmp_path.name}"' in start


def test_no_report(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no report at .*\n.*ragtune.report writes"):
        framed(tmp_path / "report.html")
