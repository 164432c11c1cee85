"""Ctrl-C while the page is served: what is at work comes to its end first."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from ragtune.asking import page_server
from ragtune.asking.page import Page
from ragtune.asking.page_server import listening
from ragtune.base.stopping import Stopped
from tests.asking.standin import StandIn


def test_ctrl_c_waits_until_the_server_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python would be taken apart beneath it: what is C++ or Rust there ends the process by abort()."""
    pytest.importorskip("uvicorn", reason="it comes with Gradio")
    ended: list[str] = []

    async def app(_: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await asyncio.sleep(0.3)
        ended.append("the application")
        await send({"type": "lifespan.shutdown.complete"})

    def press(*_: object) -> None:  # while the main thread waits
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()

    monkeypatch.setattr(page_server, "_tell", press)
    monkeypatch.setattr(page_server, "_LONGEST", 60)
    with listening("127.0.0.1", 0) as listener, pytest.raises(KeyboardInterrupt):
        page_server.serve(app, listener, "127.0.0.1")
    assert ended == ["the application"]


def test_an_answer_that_is_stopped_ends_and_raises_nothing(tmp_path: Path) -> None:
    """It would end the server's loop in its middle, with a traceback."""
    pytest.importorskip("gradio", reason="no Gradio here")
    reader: Any = StandIn(error=Stopped())
    page = Page(reader, tmp_path / "f.jsonl")
    *_, last = page.ask("How much?", "", False)
    assert "How much?" in last[0]
    assert reader.asked == []
