"""Output never raises: other encodings, readers that went away, full disks, closed descriptors."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ragtune.base.screen import output
from ragtune.base.screen.console import heading, note, warn
from ragtune.base.screen.progress import progress
from tests.base.screen.payloads import PAYLOADS, WRITING
from tests.ready import Ready
from tests.stages.test_run import command

ENCODINGS = ("ascii", "idna", "cp1252", "cp932", "latin-1", "utf-8")
TEXT = "富士山 é … – ⏎ “x” ✓ 👩‍🔬 ━ \ud800"


def stream(encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")


def written(out: io.TextIOWrapper) -> str:
    out.flush()
    return out.buffer.getvalue().decode(out.encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_character_that_an_encoding_lacks_is_written_otherwise(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = stream(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    output.say(TEXT)
    heading(TEXT)
    note(TEXT)
    warn(TEXT)
    with progress(TEXT, 2) as update:
        update(1, TEXT)
    found = written(out)
    if encoding == "utf-8":
        assert f"{TEXT[:-1]}\\ud800\n" in found
    if encoding == "ascii":
        plain = r"\u5bcc\u58eb\u5c71 \xe9 ... - \n " + '"x" + ' + r"\U0001f469"
        assert found.startswith(plain)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_is_json_in_any_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value = {"text": [*PAYLOADS.values(), *WRITING, TEXT]}
    out = stream(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    output.say_json(value, indent=1)
    found = written(out)
    assert json.loads(found) == value
    assert all(c == "\n" or ord(c) >= 32 for c in found)
    assert "\u202e" not in found


def test_libraries_are_escaped_and_their_bars_move() -> None:
    out = stream("utf-8")
    shown = output.Escaping(output.Enduring(out, pytest.fail))
    shown.write("\x1b[2Jwarning\r!\n")
    for text in ("\r50%\x1b[2J", "\n", "\x1b[A", "\r      \r"):
        shown.write(text)
    shown.flush()
    assert written(out) == "\\x1b[2Jwarning\\r!\n\r50%\\x1b[2J\n\x1b[A\r      \r"
    with pytest.raises(TypeError):
        shown.write(b"")  # type: ignore[arg-type]
    assert not hasattr(shown, "buffer")


def test_an_output_that_is_lost_is_told_once_and_then_silent() -> None:
    told: list[OSError] = []
    full = Path("/dev/full").open("w", encoding="utf-8")  # noqa: SIM115 - nothing can be closed there
    out = output.Enduring(full, told.append)
    out.write("x" * 100_000)
    out.flush()
    assert {error.errno for error in told} == {28}
    out.end()


GONE = "mkfifo pipe; true < pipe & exec 3> pipe; wait;"
"""Of a pipe whose reader has gone for certain: that of `… | true` may come late, and find all written."""


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (f"{GONE} $RAGTUNE schema >&3", 141, ""),
        (
            "$RAGTUNE schema > /dev/full",
            1,
            "Stopped: standard output can't be written (No space left",
        ),
        ("$RAGTUNE schema >&-", 0, ""),
        ("$RAGTUNE --version 2>&- >&- <&-", 0, ""),
        ("$RAGTUNE run 2>&-", 2, ""),
        ("$RAGTUNE run 2>/dev/full", 2, ""),
        (f"{GONE} $RAGTUNE --help >&3", 141, ""),
        ("PYTHONIOENCODING=ascii $RAGTUNE 富士山", 2, r"\u5bcc"),
        ("PYTHONIOENCODING=cp1252 $RAGTUNE --help", 0, ""),
    ],
)
def test_a_command_ends_with_a_code_and_no_traceback(
    tmp_path: Path, command: str, code: int, said: str
) -> None:
    done = subprocess.run(
        ["/bin/bash", "-c", f"set -o pipefail; {command}"],
        cwd=tmp_path,
        env={**os.environ, "RAGTUNE": f"{sys.executable} -m ragtune"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert "Exception ignored" not in done.stderr
    assert said in done.stderr
    assert said or not done.stderr


def test_a_run_whose_reader_went_away_stops_where_nothing_is_lost(
    tiny_recipe: dict[str, Any], tmp_path: Path, ready: Ready
) -> None:
    tiny_recipe["train"] |= {"steps": 40, "save_every": 30}
    pipe, errors, run = tmp_path / "pipe", tmp_path / "errors", tmp_path / "run"
    os.mkfifo(pipe)
    started = ready.start(
        command(tiny_recipe, run, "train"),
        outputs=(pipe, errors),
        faults={0: ("wait_at_step", 6, str(tmp_path / "closed"))},
    )
    with pipe.open("rb") as reader:
        found = b""
        while not re.search(rb"^ +2  +\d", found, re.MULTILINE):  # the loss's line of step 2
            more = reader.read(64)
            assert more, found
            found += more
    (tmp_path / "closed").touch()
    assert started.wait() == 141, errors.read_text("utf-8")
    assert errors.read_text("utf-8") == ""
    (checkpoint,) = run.glob("work/adapter-*/checkpoint-*")
    assert checkpoint.name != "checkpoint-30"  # it stopped at once, and kept what there was
    again = ready.run(command(tiny_recipe, run, "train"))
    assert again.returncode == 0, again.stderr
    assert "Going on from step" in again.stdout


def test_a_full_disk_behind_the_output_is_told(
    tiny_recipe: dict[str, Any], tmp_path: Path, ready: Ready
) -> None:
    errors, run = tmp_path / "errors", tmp_path / "run"
    started = ready.start(command(tiny_recipe, run), outputs=(Path("/dev/full"), errors))
    assert started.wait() == 1, errors.read_text("utf-8")
    found = errors.read_text("utf-8")
    assert "Stopped: standard output can't be written (No space left on device)." in found
    assert "The same command goes on: ragtune run" in found
    assert "Traceback" not in found
