"""A process that writes questions and is killed, or stopped, loses at most what is in flight."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ragtune.building.synthesis.generate import ANSWERS, generate
from ragtune.recipe.corpus import Generate
from tests.answering.chat import Chat
from tests.building.synthesis.passages import good, passages

PROGRAM = """
import sys
from pathlib import Path
from ragtune.base import stopping
from ragtune.building.synthesis.generate import generate
from ragtune.recipe.corpus import Generate
from tests.building.synthesis.passages import passages
stopping.install()
generate(passages(), Generate(model="writer", endpoint=sys.argv[1], concurrency=2), "en", 7, Path(sys.argv[2]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals there")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_it_goes_on(
    tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    path = tmp_path / ANSWERS
    with Chat("writer") as chat:
        answered, rest = itertools.count(), threading.Event()
        chat.says = lambda said: (next(answered) < 12 or rest.wait(60), good(said))[1]
        command = [sys.executable, "-c", PROGRAM, chat.endpoint, str(tmp_path)]
        root = Path(__file__).parents[3]
        environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}
        process = subprocess.Popen(command, env=environment, cwd=root)
        deadline = time.monotonic() + 60
        # Until the next two are asked, too: the server would else count them when the process is gone.
        while len(chat.asked) < 14 or path.read_bytes().count(b"\n") < 12:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        assert process.wait(60) != 0
        rest.set()
        kept = path.read_bytes().count(b"\n")
        asked = len(chat.asked)
        assert 12 <= kept < 24
        assert asked <= kept + 2
        chat.asked.clear()
        settings = Generate(model="writer", endpoint=chat.endpoint)
        found = generate(passages(), settings, "en", 7, tmp_path)
        assert len(chat.asked) == found.counts.asked == 24 - kept
        assert found.counts.kept == 8
        whole = generate(passages(), settings, "en", 7, tmp_path / "whole")
    assert found.questions == whole.questions
