"""Draw docs/demo.png: the page of `ragtune demo`, with an answer of a real run.

    python scripts/draw_demo.py docs/demo.png QUESTION RUN [--corpus FOLDER]

What stands behind the question is for `ragtune demo`: a run, and where it searches.
It takes Chromium and Playwright. Light theme, 1200 pixels wide.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

WIDTH, HEIGHT = 1200, 900
PATIENCE = 300_000
"""Milliseconds for an answer."""


def main(file: str, question: str, *demo: str) -> None:
    command = [sys.executable, "-m", "ragtune", "demo", *demo, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603 - this very Python
        assert server.stdout
        try:
            said = (re.search(r"http://\S+", line) for line in server.stdout)
            address = next((found[0] for found in said if found), None)
            if address is None:
                sys.exit("The page didn't start.")
            draw(address, question, file)
        finally:
            server.send_signal(signal.SIGINT)
    print(f"{file}: {Path(file).stat().st_size // 1024} KiB")


def draw(address: str, question: str, file: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.goto(address)
        page.fill("#question textarea", question)
        page.click("#ask")
        page.wait_for_selector("#up:visible", timeout=PATIENCE)
        page.mouse.move(0, 0)
        page.evaluate("document.activeElement.blur()")
        end = page.evaluate("document.querySelector('#passages').getBoundingClientRect().bottom")
        height = min(HEIGHT, int(end) + 40)
        page.screenshot(path=file, clip={"x": 0, "y": 0, "width": WIDTH, "height": height})
        print(page.inner_text("#answers"))
        browser.close()


if __name__ == "__main__":
    if len(sys.argv) < 4:  # noqa: PLR2004 - as it says
        sys.exit(__doc__)
    main(*sys.argv[1:])
