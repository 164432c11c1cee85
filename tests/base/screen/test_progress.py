"""Signs of life: a line every half minute where no bar can move, none of what takes less, none too many."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from rich.progress import Task, TaskID
from rich.table import Column

from ragtune import cli
from ragtune.base.files import sha256
from ragtune.base.screen import activity, progress
from ragtune.base.screen.activity import BYTES, Activity
from ragtune.base.screen.console import Door, console, note, to_stderr
from ragtune.base.screen.output import interject
from ragtune.base.screen.progress import busy, in_parts
from ragtune.base.text import duration


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def after(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets so many seconds pass, and the thread look once; by itself it doesn't wake."""
    clock, pulse = Clock(), progress._Pulse()
    monkeypatch.setattr(activity, "clock", clock)
    monkeypatch.setattr(progress, "_pulse", pulse)
    monkeypatch.setattr(progress, "_LOOKS", 1e-4)

    def pass_by(seconds: float) -> None:
        clock.now += seconds
        pulse.beat()

    return pass_by


def test_nothing_of_what_takes_less(
    after: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with busy("loading a model"):
        after(29)
    with progress.progress("answering", 10) as update:
        after(29)
        update(10)
    assert capsys.readouterr() == ("", "")


def test_a_line_every_half_minute(
    after: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.progress("answering (before)", 637, unit="questions") as update:
        after(29)
        update(60)
        after(1)
        after(29)
        update(120)
        after(1)
        update(637)
    assert capsys.readouterr().out.splitlines() == [
        "answering (before): 60 of 637 (9 %), 2.1 questions/s, 30 s so far, about 5 min to go",
        "answering (before): 120 of 637 (18 %), 2.0 questions/s, 60 s so far, about 4 min to go",
        "answering (before): 637 of 637 (100 %), 10.6 questions/s, 60 s in all",
    ]


def test_within_a_large_part_the_time_to_go_moves_and_then_nothing_is_promised(
    after: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    one = Activity("answering", 100, 0, "questions", None)
    task = Task(TaskID(0), "answering", 100, 0, _get_time=activity.clock)
    column, shown = progress._ToGo(one, Column()), list[str]()
    with progress.progress("answering", 100, unit="questions") as update:
        for seconds, done in ((50, 0), (0, 50), (40, 50), (40, 50)):
            after(seconds)
            update(done)
            one.move(done)
            shown.append(column.render(task).plain)
    assert shown == ["-:--:--", "0:00:50", "0:00:10", "-:--:--"]
    assert capsys.readouterr().out.splitlines() == [
        "answering: 0 of 100 (0 %), 50 s so far",
        "answering: 50 of 100 (50 %), 1.0 questions/s, 90 s so far, about 10 s to go",
        "answering: 50 of 100 (50 %), 1.0 questions/s, 2 min so far",
        "answering: 50 of 100 (50 %), 2.6 s each, 2 min in all",
    ]


def test_what_is_said_beside_it_changes_nothing(
    after: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with busy("training", 100, unit="steps") as update:
        after(20)
        note("  step 2   loss 1.0")
        update(4, "loss 0.9000  700 tokens/s")
        after(10)
    assert capsys.readouterr().out.splitlines()[1] == (
        "training: 4 of 100 (4 %), 5.0 s each, loss 0.9000  700 tokens/s, 30 s so far, about 8 min to go"
    )


def test_what_was_done_before_makes_nothing_faster(
    after: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with busy("answering", 200, done=100, unit="questions") as update:
        after(30)
        update(130)
        after(30)
    with busy("downloading", unit=BYTES) as update:
        update(2**30, "", 2**32)
        after(29)
        activity.clock.now += 3  # type: ignore[attr-defined]
        update(2**31, "", 2**32)
        after(0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "answering: 100 of 200 (50 %), 30 s so far"
    assert lines[1].startswith(
        "answering: 130 of 200 (65 %), 1.0 questions/s, 60 s so far, about 40 s"
    )
    assert lines[3] == (
        "downloading: 2.0 GiB of 4.0 GiB (50 %), 32 MiB/s, 32 s so far, about 64 s to go"
    )


def test_nothing_to_count(
    after: Callable[[float], None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with busy("loading a model"):
        after(90)
    (tmp_path / "before").write_bytes(bytes(9000))
    with busy("writing", 4096, growing=tmp_path):
        (tmp_path / "a").write_bytes(bytes(2048))
        after(30)
    with busy("reading", unit="records") as update:
        after(29)
        activity.clock.now += 1  # type: ignore[attr-defined]
        update(50, "12 records", 200, 120)
        after(0)
    assert capsys.readouterr().out.splitlines() == [
        "loading a model: 90 s so far",
        "writing: 2 KiB of 4 KiB (50 %), 1 KiB/s, 30 s so far, about 30 s to go",
        "writing: 2 KiB of 4 KiB (50 %), 1 KiB/s, 30 s in all",
        "reading: 25 %, 4.0 records/s, 12 records, 30 s so far, about 90 s to go",
        "reading: 25 %, 4.0 records/s, 12 records, 30 s in all",
    ]


def test_many_short_ones_in_a_long_one(
    after: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with busy("data"):
        for _ in range(8):
            with busy("checksum"):
                after(4)
        with busy("reading"):
            after(10)
            after(20)
    assert capsys.readouterr().out.splitlines() == [
        "data: 32 s so far",
        "reading: 30 s so far",
    ]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_none_outlives_an_error(
    after: Callable[[float], None],
    capsys: pytest.CaptureFixture[str],
    error: type[BaseException],
) -> None:
    left = busy("inner")

    def broken() -> None:
        with busy("outer", 5) as update:
            left.__enter__()  # as if an interrupt had come in its own last lines
            update(1)
            after(40)
            assert not progress._pulse.over.is_set()
            raise error

    with pytest.raises(error):
        broken()
    assert capsys.readouterr().out == "inner: 40 s so far\n"
    pulse = progress._pulse
    assert pulse.over.is_set()
    after(60)
    assert (pulse.activities, capsys.readouterr().out) == ([], "")


def test_none_outlives_an_interrupt_as_it_begins(
    after: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def cut_off(thread: threading.Thread) -> None:
        start(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", cut_off)
    with pytest.raises(KeyboardInterrupt), busy("loading"):
        pytest.fail("it did not begin")
    assert progress._pulse.over.is_set()
    assert progress._pulse.activities == []


def test_an_end_that_nobody_reads(after: Callable[[float], None], monkeypatch: Any) -> None:
    """The thread ends, and whoever works will notice."""
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr("ragtune.base.screen.console.console", Console(file=closed))
    monkeypatch.setattr(progress, "_LOOKS", 1e9)
    with busy("loading"):
        activity.clock.now = 30.0  # type: ignore[attr-defined]
        progress._pulse._run(threading.Event())


def test_what_machines_read_stays_clean(
    after: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with to_stderr(wanted=True), busy("answering"):
        after(30)
    assert capsys.readouterr() == ("", "answering: 30 s so far\n")


def test_what_runs_beside_tells_nothing(
    after: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """A thread that hashes may end after what it was begun for."""

    def beside() -> None:
        with busy("checksum") as update:
            update(1)
            after(40)

    thread = threading.Thread(target=beside, daemon=True)
    thread.start()
    thread.join()
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows")
def test_a_forked_child_waits_for_nobody(after: Callable[[float], None]) -> None:
    """Even if the thread was telling something when it was forked."""
    with busy("rendering"), progress._pulse.lock:
        child = os.fork()
        if not child:
            signal.alarm(20)
            with busy("in the child"):
                pass
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    file = Terminal()
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(console, "_file", file)
    monkeypatch.setattr(console, "_force_terminal", True)
    return file


def test_on_a_terminal_a_bar_moves_and_no_line_is_added(
    after: Callable[[float], None], screen: Terminal
) -> None:
    with progress.progress("training", 4, done=1) as update:
        update(3, "loss 0.5")
        after(100)
    said = screen.getvalue()
    assert "━" in said
    assert "3/4" in said
    assert "so far" not in said
    with busy("loading a model"):
        after(30)
    assert screen.getvalue().endswith("loading a model: 30 s so far\n")


@pytest.mark.usefixtures("after")
def test_what_interrupts_stands_above_the_bars(
    screen: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    """Written beside rich's back, it would be taken for a bar's own line, and wiped away."""
    with progress.progress("training", 4), progress.progress("asking", 10) as update:
        interject("Ctrl-C was heard.")
        update(10)
    assert capsys.readouterr().err == ""
    lines = screen.getvalue().splitlines()
    (line,) = (n for n, text in enumerate(lines) if "was heard" in text)
    assert lines[line].endswith("Ctrl-C was heard.")
    assert any("training" in text for text in lines[line + 1 :])
    interject("Stopped.")
    assert capsys.readouterr().err == "\nStopped.\n"


def left_on(written: str) -> list[str]:
    """The lines that stand on a terminal: line ends, erased lines and steps upwards are followed."""
    lines, row = [""], 0
    for part in re.split(r"(\r?\n|\r|\x1b\[[0-9;?]*[A-Za-z])", written):
        if part in ("\n", "\r\n"):
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part.startswith("\x1b[") and part.endswith("A"):
            row -= int(part[2:-1] or 1)
        elif part == "\x1b[2K":
            lines[row] = ""
        elif not part.startswith(("\x1b[", "\r")):
            lines[row] += part
    return [line.strip() for line in lines if line.strip()]


def test_a_bar_within_a_bar_leaves_nothing_behind(
    screen: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "is_interactive", True)
    with progress.progress("training", 4) as update:
        update(2)
        with progress.progress("asking", 9) as ask:
            ask(9)
            time.sleep(0.3)  # a bar is drawn ten times a second
        console.print("a line of the table")
        update(4)
    assert "asking" in screen.getvalue()
    said = left_on(screen.getvalue())
    assert said[0] == "a line of the table"
    assert [line.split()[0] for line in said[1:]] == ["training"]


def test_a_colour_that_is_forced_makes_no_terminal(
    monkeypatch: pytest.MonkeyPatch, after: Callable[[float], None], capsys: Any
) -> None:
    monkeypatch.setattr(console, "_force_terminal", True)
    with progress.progress("training", 4) as update:
        update(3)
    assert capsys.readouterr().out == ""


def test_what_a_notebook_runs_with_a_bang_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, after: Callable[[float], None], screen: Terminal
) -> None:
    monkeypatch.setenv("JPY_PARENT_PID", "1")
    with progress.progress("training", 4) as update:
        update(3)
    assert screen.getvalue() == ""


def test_in_parts(after: Callable[[float], None], capsys: pytest.CaptureFixture[str]) -> None:
    sizes = []

    def act(part: Any) -> list[int]:
        sizes.append(len(part))
        after(20)
        return [2 * one for one in part]

    assert in_parts("tokenising", act, range(600), "prompts") == [2 * i for i in range(600)]
    assert sizes == [256, 256, 88]
    assert capsys.readouterr().out.splitlines()[0] == (
        "tokenising: 256 of 600 (42 %), 12.8 prompts/s, 40 s so far, about 7 s to go"
    )


def test_a_large_file_has_the_checksum_that_it_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 9000)
    small = sha256(path)
    monkeypatch.setattr("ragtune.base.files._LARGE", 1000)
    assert sha256(path) == small


def test_durations() -> None:
    seconds = (0, 119.4, 121, 7100, 7800, 90000)
    assert [*map(duration, seconds)] == [
        "0 s",
        "119 s",
        "2 min",
        "118 min",
        "2 h 10 min",
        "25 h 0 min",
    ]


def test_a_run_in_a_pipe(
    tiny_recipe: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The real command line, with lines that are due soon; what is looked for lasts until it was told."""
    end = progress._Pulse.end

    def end_when_told(pulse: progress._Pulse, activity: Any) -> None:
        until = time.monotonic() + 60
        while activity.what in ("training", "checking model") and not activity.told:
            assert time.monotonic() < until
            time.sleep(0.001)
        end(pulse, activity)

    monkeypatch.setattr(progress._Pulse, "end", end_when_told)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tiny_recipe), "utf-8")
    arguments = [str(path), "--run-dir", str(tmp_path / "run")]
    monkeypatch.setattr(progress, "EVERY", 0.02)
    with pytest.raises(SystemExit, match="0"):
        cli.main(["run", *arguments])
    lines = capfd.readouterr().out.splitlines()
    told = [line for line in lines if line.endswith(("so far", "to go"))]
    assert any(line.startswith("training: ") and " of 8 (" in line for line in told)
    assert any(line.startswith("checking ") for line in told)
    assert not any("━━" in line for line in lines if "8/8" in line)
    assert not any("it/s" in line for line in lines)
    monkeypatch.setattr(progress, "EVERY", 0.001)
    with pytest.raises(SystemExit, match="0"):
        cli.main(["check", *arguments, "--json"])
    out, errors = capfd.readouterr()
    assert json.loads(out)[0]["level"] == "ok"
    assert " so far" in errors
    assert progress._pulse.activities == []


@pytest.mark.parametrize(("width", "shown"), [(50, False), (80, True), (120, True)])
def test_no_width_cuts_a_time_or_a_figure(
    monkeypatch: pytest.MonkeyPatch, width: int, shown: bool
) -> None:
    door, out = Door(), io.StringIO()
    door.file, door.width, door._force_terminal = out, width, True
    monkeypatch.setattr(progress, "console", door)
    monkeypatch.setattr(activity, "clock", Clock())
    with progress._bar(one := Activity("training", 100, 0, "", None)):
        one.move(50, "loss 6.6900  1,234 tokens/s")
    lines = [
        line.strip()
        for line in re.split(r"[\r\n]|\x1b\[[0-9;?]*[a-zA-Z]", out.getvalue())
        if line.strip()
    ]
    assert lines[-1].startswith("training")
    assert " 50/100 " in lines[-1]
    assert " -:--:-- loss 6.6900  1,2" in lines[-1]
    assert lines[-1].endswith("tokens/s") == shown
    assert ("━━━━" in lines[-1]) == shown
