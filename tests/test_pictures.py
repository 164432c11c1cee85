"""The picture of a report shows its first screen, in the size that the README has."""

from __future__ import annotations

import importlib.util
import shutil
import struct
from pathlib import Path

import pytest

from tests.reporting import made

ROOT = Path(__file__).parents[1]


def size(png: Path) -> tuple[int, ...]:
    return struct.unpack(">II", png.read_bytes()[16:24])


@pytest.mark.skipif(
    not (shutil.which("chromium") or shutil.which("chromium-browser")),
    reason="no Chromium here: apt-get install chromium",
)
def test_a_report_becomes_a_picture_of_the_readmes_size(tmp_path: Path) -> None:
    pytest.importorskip("playwright.sync_api", reason="no Playwright here")
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "scripts/pictures.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    target = tmp_path / "report.png"
    module.picture(made.render(tmp_path), target)
    assert size(target) == size(ROOT / "docs/report.png")
    assert target.stat().st_size > 10_000  # not an empty page
