"""Two minutes of the soak; `make soak` takes an hour."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.timeout(900)
def test_nothing_that_happens_to_a_run_is_lost_or_gets_through() -> None:
    """A process of its own, because a fork of one that has computed may hang."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", "--minutes", "2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
