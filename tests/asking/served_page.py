"""The page of a stand-in, served on loopback for as long as a test needs it, and a browser to use it with."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from ragtune.asking.page import Page
from ragtune.asking.page_guard import Guard
from ragtune.asking.page_server import LOOPBACK, application, listening

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def served(reader: Any, feedback: Path, password: str | None = None) -> Iterator[str]:
    """The page's address."""
    pytest.importorskip("gradio", reason="no Gradio here")
    with listening("127.0.0.1", 0) as listener:
        app = Guard(application(Page(reader, feedback)), LOOPBACK, password)
        config = uvicorn.Config(app, log_config=None, ws="none", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(5)


@contextmanager
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="no Playwright here")
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()
