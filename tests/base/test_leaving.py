"""The exit code of a program in which a thread is still at work as it ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

_AT_WORK = """
import atexit, sys, threading, time, types

from pydantic import BaseModel, field_validator

class Model(BaseModel):
    x: int

    @field_validator("x")
    @classmethod
    def count(cls, x):  # called by Rust
        at_work.set()
        return sum(range(10_000))

def work():
    while True:
        Model(x=1)

class Large:
    def __del__(self, sleep=time.sleep):  # as libraries take their time to be taken apart
        sleep(1)

sys.modules["large"] = Large()

def command():
    threading.Thread(target=work, daemon=True).start()
    at_work.wait()
    atexit.register(print, "in order")
    threading.Timer(0.1, print, ["waited for"]).start()
    sys.exit({code!r})

at_work = threading.Event()
sys.modules["ragtune.cli"] = types.SimpleNamespace(main=command)

from ragtune.__main__ import main

main()
"""


@pytest.mark.parametrize(("code", "found"), [(130, 130), ("What is wrong.", 1)])
def test_a_thread_at_work_does_not_change_the_exit_code(code: int | str, found: int) -> None:
    """Cut off below Rust, or C++, it would end the process by SIGABRT or SIGSEGV."""
    done = subprocess.run(
        [sys.executable, "-c", _AT_WORK.format(code=code)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (found, "waited for\nin order\n"), done.stderr
    assert done.stderr == ("" if code == found else f"{code}\n")
