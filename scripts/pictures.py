"""Make a picture of a report's first screen, as docs/report.png is: in headless Chromium, through Playwright.

    python scripts/pictures.py runs/quickstart/report.html docs/report.png

docs/loss-curves.svg is made by bench/curves.py.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

WIDTH, HEIGHT = 1100, 1010


def picture(page: Path, target: Path) -> None:
    """Open a page of this machine, and write what is seen of it without scrolling as PNG."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - of the extra dev

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(
            viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light", locale="en"
        )
        tab.goto(page.resolve().as_uri())
        tab.screenshot(path=target)
        browser.close()


if __name__ == "__main__":
    if len(sys.argv) != 3:  # noqa: PLR2004 - a page and a picture
        sys.exit(__doc__)
    picture(Path(sys.argv[1]), Path(sys.argv[2]))
