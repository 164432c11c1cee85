"""A run that is stopped by a signal or killed goes on by the same command, to the same result."""

from __future__ import annotations

import _thread
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import ragtune
from ragtune.base import stopping
from ragtune.model.load import _loading
from ragtune.model.source import ModelSource
from ragtune.stages.check import checks
from tests.conftest import tiny_recipe
from tests.faults import digests
from tests.ready import Ready
from tests.stages.test_run import command

Made = tuple[dict[str, Any], Path]
"""A recipe, and what it makes where nobody disturbs it."""


def made(ready: Ready, folder: Path, model: Path, name: str, **train: int) -> Made:
    recipe: dict[str, Any] = tiny_recipe.__wrapped__(folder, model)  # type: ignore[attr-defined]
    recipe["train"] |= train
    run = folder / "run"
    done = ready.run(command(recipe, run, name), RAGTUNE_CACHE=str(folder / "cache"))
    assert done.returncode == 0, done.stderr
    return recipe, run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path, ready: Ready) -> Made:
    few = {"steps": 16, "save_every": 2, "keep_checkpoints": 1}
    return made(ready, tmp_path_factory.mktemp("whole"), tiny_folder, "run", **few)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path, ready: Ready) -> Made:
    many = {"steps": 60, "save_every": 10}
    return made(ready, tmp_path_factory.mktemp("trained"), tiny_folder, "train", **many)


@pytest.mark.parametrize("step", [6, 12])
def test_killed_in_the_middle_of_training_the_same_command_gives_the_same_adapter(
    whole: Made, tmp_path: Path, ready: Ready, step: int
) -> None:
    recipe, undisturbed = whole
    cut = tmp_path / "run"
    killed = ready.run(command(recipe, cut), faults={0: ("signal_at_step", step, signal.SIGKILL)})
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (cut / "adapter").exists()
    again = ready.run(command(recipe, cut))
    assert again.returncode == 0, again.stderr
    assert "Going on from step" in again.stdout
    assert digests(cut) == digests(undisturbed)


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_training_saves_a_checkpoint_and_the_same_command_gives_the_same(
    trained: Made, tmp_path: Path, ready: Ready, how: int, code: int
) -> None:
    recipe, undisturbed = trained
    cut = tmp_path / "run"
    arguments = command(recipe, cut, "train")
    cut_off = ready.run(arguments, faults={0: ("signal_at_step", 13, how)})
    assert cut_off.returncode == code, cut_off.stderr
    name = {130: "Ctrl-C", 143: "SIGTERM"}[code]
    heard = (
        f"\n{name} was heard: this step is finished first, and a checkpoint written. A second one "
    )
    assert cut_off.stderr.count(heard) == cut_off.stderr.count("was heard") == 1
    last = cut_off.stderr.strip().splitlines()[-1]
    assert "Training stopped after step 13 of 60: its checkpoint is kept. " in last
    (checkpoint,) = cut.glob("work/adapter-*/checkpoint-13")
    assert (checkpoint / "manifest.json").exists()
    assert last.endswith(f"The same command goes on: ragtune {' '.join(arguments)}")
    again = ready.run(arguments)
    assert again.returncode == 0, again.stderr
    assert "Going on from step 13" in again.stdout
    assert digests(cut) == digests(undisturbed)


def test_a_second_ctrl_c_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stopping.install()
    try:
        with stopping.finishing():
            os.kill(os.getpid(), signal.SIGINT)
            assert stopping.asked()
            with pytest.raises(stopping.Stopped):
                os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    finally:
        stopping.uninstall()
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_what_else_there_is_to_stop_for_is_looked_for_behind_a_signal() -> None:
    def look() -> None:
        raise RuntimeError("another reason")

    with stopping.stopping_for(look):
        with stopping.stopping_for(lambda: None), pytest.raises(RuntimeError, match="another"):
            stopping.stop_if_asked()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(stopping.stop_if_asked).result()  # another thread's work goes on
        stopping.ask()
        try:
            with pytest.raises(stopping.Stopped):
                stopping.stop_if_asked()
        finally:
            stopping.uninstall()
    stopping.stop_if_asked()


@pytest.fixture
def heard() -> Iterator[None]:
    """The command line's handlers."""
    stopping.install()
    yield
    stopping.uninstall()


@pytest.mark.usefixtures("heard")
def test_what_is_done_first_is_said_at_once_and_by_the_innermost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with stopping.finishing("this step is finished first"), stopping.finishing("this batch, too"):
        os.kill(os.getpid(), signal.SIGTERM)
        stopping._wait_until_said()
        words = "\nSIGTERM was heard: this batch, too. A second one stops at once.\n"
        assert capsys.readouterr() == ("", words)
        with pytest.raises(stopping.Stopped):
            os.kill(os.getpid(), signal.SIGTERM)
    assert stopping.farewell(["ask"]) == 143
    assert capsys.readouterr().err == "\nStopped by SIGTERM.\n"


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("first", ["", "this step is finished first"])
def test_nothing_is_said_of_what_takes_no_time_or_where_no_thread_can_say_it(
    first: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    with stopping.finishing(first):
        os.kill(os.getpid(), signal.SIGINT)
    assert stopping.asked()
    stopping._wait_until_said()
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("heard")
def test_a_signal_that_was_told_to_another_rank_first_is_no_second_one() -> None:
    """Slurm and torchrun tell every process: who hears it later would else give up its checkpoint."""
    with stopping.finishing():
        stopping.ask()
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except stopping.Stopped:
            pytest.fail("it was taken for the second one")
        with pytest.raises(stopping.Stopped):
            os.kill(os.getpid(), signal.SIGTERM)


BROKEN = """
import os, signal, typer
from ragtune import cli
from ragtune.base.errors import UsageError
from ragtune.stages import terminal

def broken(*_, **__):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt as error:
        raise {error} from error

terminal.unread = broken
cli.main(["check", "my recipe.yaml"])
"""


@pytest.mark.parametrize(
    "error", ["ImportError('more than once')", "UsageError('no such model')", "typer.Exit(1)"]
)
def test_what_an_interrupt_is_turned_into_is_still_an_interrupt(error: str, ready: Ready) -> None:
    done = ready.run(["-c", BROKEN.format(error=error)], program="python")
    assert done.returncode == 130, done.stderr
    words = "Stopped by Ctrl-C. What is finished is kept. The same command goes on: "
    assert done.stderr == f"\n{words}ragtune check 'my recipe.yaml'\n"


@pytest.mark.parametrize("command", ["ask", "demo", "serve"])
def test_what_keeps_nothing_is_not_said_to_go_on(command: str) -> None:
    code = (
        "import sys; from ragtune.base import stopping; "
        f"sys.exit(stopping.farewell(['--offline', '{command}', 'runs/x']))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "\nStopped by Ctrl-C.\n")


def test_neither_a_check_nor_a_model_takes_it_for_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Any = None) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt as error:
            raise ImportError("cannot load module more than once per process") from error

    def load() -> None:
        with _loading("model", ModelSource("owner/name", None)):
            broken()

    monkeypatch.setattr(checks, "CHECKS", (("model", (), broken),))
    one: Any = None
    for work in (load, lambda: checks.look(one)):
        stopping.install()
        try:
            with pytest.raises(stopping.Stopped):
                work()
        finally:
            stopping.uninstall()


@pytest.mark.usefixtures("heard")
def test_one_more_signal_while_a_line_is_written_cuts_no_last_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow:
        def wait(self, _: float) -> None:
            stopping._state.said = None
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(stopping._state, "said", Slow())
    try:
        assert stopping.farewell(["ask"]) == 130
    except stopping.Stopped:
        pytest.fail("it was heard")
    assert capsys.readouterr().err == "\nStopped by Ctrl-C.\n"


UNCUT = (
    "Ctrl-C was heard: what can't be cut in two, as a library that is being loaded, is finished first. "
    "A second one stops at once."
)


def _hears(process: subprocess.Popen[str]) -> bool:
    """Whether the handlers are there: Python itself has none for SIGTERM."""
    status = Path(f"/proc/{process.pid}/status").read_text("utf-8")
    caught = int(re.findall(r"SigCgt:\s+(\w+)", status)[0], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


_WAITS = """
import sys, time
def waits(event, arguments):
    if event == "os.mkdir" and str(arguments[0]) == {run!r}:
        time.sleep(600)
sys.addaudithook(waits)
"""
"""Python imports this first: a run doesn't begin before the signal comes, however late that is sent."""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="what Linux tells of a process")
@pytest.mark.parametrize("after", [0.0, 0.03, 0.3, 0.6, 1.0])
def test_ctrl_c_while_libraries_are_loaded(
    tiny_recipe: dict[str, Any], tmp_path: Path, after: float
) -> None:
    run = tmp_path / "run"
    (tmp_path / "sitecustomize.py").write_text(_WAITS.format(run=str(run)), "utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "ragtune", *command(tiny_recipe, run)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
    )  # fmt: skip
    while not _hears(process):
        time.sleep(0.001)
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate()
    assert process.returncode == 130, errors
    # Where a library was being loaded, that is said first.
    assert errors.removeprefix(f"\n{UNCUT}\n").startswith("\nStopped by Ctrl-C. "), errors
    assert "Traceback" not in said + errors
    assert not run.exists()


_SLOW = """
import os, signal, time
os.kill(os.getpid(), signal.{first})
for turn in range(3):
    try:
        time.sleep(0.1)
    except KeyboardInterrupt:
        print("cut", flush=True)
        {caught}
print("whole", flush=True)
"""
_MAIN = """
import time
from ragtune.base import stopping
stopping.install()
try:
    import slow
    time.sleep(30)
except KeyboardInterrupt:
    print("stopped", flush=True)
stopping.uninstall()
"""


def _said(tmp_path: Path, slow: str) -> list[str]:
    (tmp_path / "slow.py").write_text(slow, "utf-8")
    done = subprocess.run(
        [sys.executable, "-c", _MAIN], cwd=tmp_path, capture_output=True, text=True, timeout=25,
        check=False,
    )  # fmt: skip
    assert done.stderr.replace("SIGTERM", "Ctrl-C") == f"\n{UNCUT}\n"
    return done.stdout.split()


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="a clock that Windows lacks")
@pytest.mark.parametrize("first", ["SIGINT", "SIGTERM"])
def test_a_module_that_is_being_imported_is_not_cut_in_two(tmp_path: Path, first: str) -> None:
    """Some would swallow the stop, and some end the process with abort()."""
    slow = _SLOW.format(first=first, caught="pass")
    assert _said(tmp_path, slow) == ["whole", "stopped"]


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="a clock that Windows lacks")
def test_a_look_that_python_does_not_hear_comes_again(tmp_path: Path) -> None:
    """As one that comes between Python's own look and the beginning of a wait."""
    unheard = """
from ragtune.base import stopping
look = stopping._look_again
def once(number, frame):
    if not stopping._in_the_middle(frame) and not heard:
        heard.append(number)
    else:
        look(number, frame)
heard, stopping._look_again = [], once
"""
    slow = unheard + _SLOW.format(first="SIGINT", caught="pass")
    assert _said(tmp_path, slow) == ["whole", "stopped"]


_LAST = """
import os, signal, time
from ragtune.base import stopping
stopping.install()

class Held:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        print("whole", flush=True)

try:
    held = Held()
    del held
    time.sleep(30)
except KeyboardInterrupt:
    print("stopped", flush=True)
stopping.uninstall()
"""


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="a clock that Windows lacks")
def test_a_stop_waits_for_an_object_s_end() -> None:
    """Python ignores what is raised there, but for some lines about it: the stop would be lost."""
    done = subprocess.run(
        [sys.executable, "-c", _LAST], capture_output=True, text=True, timeout=25, check=False
    )
    assert (done.stdout.split(), done.stderr) == (["whole", "stopped"], f"\n{UNCUT}\n")


_IGNORING = """
import contextlib, os, signal, sys, time, weakref
from ragtune.base import stopping
stopping.install()
second = "second" in sys.argv

class Held:
    pass

try:
    with stopping.finishing() if second else contextlib.nullcontext():
        if second:
            os.kill(os.getpid(), signal.SIGINT)
        held = Held()
        called = weakref.ref(held, lambda _: os.kill(os.getpid(), signal.SIGINT))
        del held
        time.sleep(30)
except KeyboardInterrupt:
    print("stopped", flush=True)
stopping.uninstall()
held = Held()
called = weakref.ref(held, lambda _: 1 / 0)
del held
"""


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="a clock that Windows lacks")
@pytest.mark.parametrize("which", ["first", "second"])
def test_a_stop_that_c_code_ignores_comes_again(which: str) -> None:
    """Python would tell of it with a traceback, and the run would go on; a second one stops at once."""
    words = [sys.executable, "-c", _IGNORING, which]
    done = subprocess.run(words, capture_output=True, text=True, timeout=25, check=False)
    assert done.stdout == "stopped\n"
    assert "Stopped" not in done.stderr
    assert "ZeroDivisionError" in done.stderr  # of anything else is told as ever


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="a clock that Windows lacks")
def test_a_second_ctrl_c_cuts_an_import(tmp_path: Path) -> None:
    slow = _SLOW.format(first="SIGINT", caught="raise").replace(
        "time.sleep(0.1)", "os.kill(os.getpid(), signal.SIGINT)"
    )
    assert _said(tmp_path, slow) == ["cut", "stopped"]


def test_answers_that_were_begun_are_kept_and_counted(
    tiny_recipe: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "run"
    changes = ("evaluate.batch_size=2",)

    from ragtune.answering import prediction

    plain = prediction.partial_line

    def stop(prediction: Any) -> str:
        if not stopping.asked():
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(prediction)

    monkeypatch.setattr(prediction, "partial_line", stop)
    stopping.install()
    try:
        with pytest.raises(stopping.Stopped):
            ragtune.evaluate(tiny_recipe, *changes, run_dir=run)
        assert stopping.last_words() == (143, "SIGTERM", "2 of 10 answers are kept.")
    finally:
        stopping.uninstall()
    monkeypatch.undo()
    capsys.readouterr()
    ragtune.evaluate(tiny_recipe, *changes, run_dir=run)
    assert "Going on: 2 of 10 answers are kept." in capsys.readouterr().out
