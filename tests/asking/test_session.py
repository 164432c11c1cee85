"""`ragtune ask`: one question, several, lines of standard input, and a conversation in a terminal."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ragtune.asking import session as sessions
from ragtune.asking.answer import Answer
from ragtune.asking.given import Given
from ragtune.asking.history import history
from ragtune.asking.reader import Reader
from ragtune.asking.session import Session
from ragtune.base import stopping
from ragtune.base.errors import UsageError
from ragtune.cli import main
from ragtune.data.example import Passage
from tests.asking.conftest import predictions
from tests.conftest import make_records

PASSAGES = "".join(json.dumps(p) + "\n" for p in make_records(3)[2]["passages"])


@pytest.fixture
def passages(tmp_path: Path) -> str:
    path = tmp_path / "passages.jsonl"
    path.write_text(PASSAGES, "utf-8")
    return str(path)


def ask(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["ask", *arguments])
    return int(stop.value.code or 0)


def test_one_question(tuned: Path, passages: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert ask(str(tuned), "What colour is house 2?", "--passages", passages) == 0
    out, errors = capfd.readouterr()
    said = out.splitlines()[0]
    assert said
    assert "Loading " in errors  # and not where the answer is
    assert "\n1  House 2  6\n" in out
    assert (
        ask(str(tuned), "What colour is house 2?", "--passages", passages, "--json", "--compare")
        == 0
    )
    out, _ = capfd.readouterr()
    found = json.loads(out)  # one object, and nothing else
    assert found["answer"].strip() == said
    assert found["passages"][0]["text"] == "House 2 is blue."
    assert found["base"]["answer"] is not None


def test_the_questions_of_the_evaluation_by_lines(
    tuned: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All passages are of one house, so only its own question is answered from them as it was then."""
    record = make_records(10, "e")[4]
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps(p) + "\n" for p in record["passages"][:2]), "utf-8")
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"\ufeff\n\ufeff{record['question']}\n\nWho?\n"))
    assert ask(str(tuned), "--passages", str(path), "--json") == 0
    first, second = map(json.loads, capfd.readouterr().out.splitlines())
    assert first["answer"] == predictions(tuned, "after")["e4"]["prediction"]
    assert second["question"] == "Who?"
    for given, said in (
        (b"\n \n", "There is no question."),
        (b"Who?\ncaf\xe9?\n", "A question is not in UTF-8: caf\\udce9?"),
        ("Who?\n".encode("utf-16"), "A question is not in UTF-8: \\udcff\\udcfeW\\x00"),
        (b"w" * 2_000_000, "A line of standard input has more than 1,048,576 characters."),
    ):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given), "cp1252"))
        assert ask(str(tuned), "--passages", str(path)) == 2
        assert said in capfd.readouterr().err
    given = io.BytesIO("\ufeff富士山 é?\n".encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(given, "cp1252"))  # as Windows takes a pipe
    assert ask(str(tuned), "--passages", str(path), "--json") == 0
    assert json.loads(capfd.readouterr().out)["question"] == "富士山 é?"


@pytest.mark.parametrize(("lines", "shares", "parts"), [(3, 0, [3]), (4, 1, [4]), (9, 1, [6, 3])])
def test_lines_are_shared_where_there_are_more_than_one_gpu_is_asked(
    monkeypatch: pytest.MonkeyPatch, lines: int, shares: int, parts: list[int]
) -> None:
    """Of fewer, one has answered most before another has the model in memory."""
    monkeypatch.setattr(sessions, "_AT_ONCE", 3)
    done: list[object] = []

    class Two:
        sharers = 2

        @contextlib.contextmanager
        def sharing(self) -> Generator[None]:
            done.append("shared")
            yield

        def start(self) -> None:
            done.append("loaded")

    monkeypatch.setattr(Session, "ask", lambda _, questions: done.append(len(questions)))
    Session(Two()).ask_lines(["Who?\n"] * lines)  # type: ignore[arg-type]
    assert done == [*["shared"] * shares, "loaded", *parts]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["RUN", " "], "The question is empty."),
        (["RUN", "caf\udce9?"], "A question is not in UTF-8: caf\\udce9?\nWrite it, or save it, in UTF-8."),
        (["RUN", "Who?", "--passages", "a.md", "--corpus", "b"], "--corpus and --passages don't go together."),
        (["RUN", "Who?"], "There are no passages to answer from: the data of houses were not made by `ragtune build`"),
        (["RUN"], "There are no passages to answer from: the data of houses were not made by `ragtune build`"),
        (["RUN", "Who?", "--corpus", "nowhere"], "nowhere does not exist."),
        (["RUN", "Who?", "--passages", "gone.md"], "gone.md does not exist."),
        (["RUN", "Who?", "prompt.preset=aio"], "was tuned with another recipe:\n  prompt.preset: 'english' there, 'aio' now"),
        (["RUN", "Who?", "model.dtpye=float32"], "model.dtype"),
        (["nothing/here/at-all", "Who?"], "nothing/here/at-all does not exist."),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(
    tuned: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert ask(*(str(tuned) if one == "RUN" else one for one in arguments)) == 2
    out, errors = capfd.readouterr()
    assert out == ""
    assert said in errors
    assert "Loading tiny" not in errors
    assert " as float32 (" not in errors  # the model is not loaded for it


def test_a_run_that_was_copied_without_its_model(
    tuned: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = shutil.copytree(tuned, tmp_path / "run")
    for file in (run / "recipe.yaml", run / "adapter" / "stage.json"):
        file.write_text(file.read_text("utf-8").replace(str(tiny_folder), "models/base"), "utf-8")
    monkeypatch.chdir(tmp_path)
    assert ask("run", "Who?") == 2
    assert (
        f"run was tuned from the model in models/base, and {tmp_path / 'models' / 'base'} does not exist.\n"
        "Put the model there, or ask from the folder in which the run was made."
    ) in capfd.readouterr().err.replace("✗ ", "")


@pytest.mark.parametrize("as_json", [True, False])
def test_both_models_have_the_passages_of_one_search(
    reader: Reader,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    *,
    as_json: bool,
) -> None:
    given, searched = Given([Passage("House 1 is red.")]), []
    monkeypatch.setattr(reader, "_documents", given)
    search = given.search
    monkeypatch.setattr(given, "search", lambda *how: searched.append(how) or search(*how))
    Session(reader, compare=True, json=as_json).ask(["What colour is house 1?"])
    assert len(searched) == 1
    assert "House 1 is " in capfd.readouterr().out


def test_runs_that_can_t_be_asked(
    tuned: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    assert ask(str(tmp_path / "run"), "Who?") == 2
    assert "is no run: it holds no recipe.yaml." in capfd.readouterr().err
    for name in ("recipe.yaml", "run.json"):
        (tmp_path / "run" / name).write_bytes((tuned / name).read_bytes())
    assert ask(str(tmp_path / "run"), "Who?") == 2
    errors = capfd.readouterr().err
    assert "is not tuned yet." in errors
    assert f"ragtune run {tmp_path / 'run'}" in errors
    assert ask(str(tuned / "adapter"), "Who?") == 2
    assert f"Name the directory of the run, {tuned}." in capfd.readouterr().err
    assert ask(str(tmp_path / "rum"), "Who?") == 2
    assert f"Did you mean {tmp_path / 'run'}?" in capfd.readouterr().err


# A conversation.


class StandIn:
    """Answers a letter at a time; what is asked for slowly has no end but Ctrl-C."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def stream(self, question: str) -> Generator[str, None, Answer]:
        self.asked.append(question)
        if question == "bad":
            raise UsageError("This question is too long.", "Ask it in fewer words.")
        letters = "slowly" if question == "slow" else "Paris"
        yield from letters
        if question == "slow":
            time.sleep(600)
        return Answer(question, letters, (), (), finished=True, seconds=0.1)


INTERRUPTED = 130
"""The code of a conversation that Ctrl-C ended from outside."""


def in_terminal(act: Callable[[], None], keys: Sequence[tuple[str, str]]) -> str:
    """What is on a terminal in which keys are typed, each as soon as something stands there."""
    pid, terminal = pty.fork()
    if not pid:
        code = 1
        try:
            os.environ["TERM"] = "xterm-256color"
            sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - as Python does
            sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - as Python does
            sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - as Python does
            act()
            code = 0
        except KeyboardInterrupt:
            code = INTERRUPTED
        finally:
            sys.stdout.flush()
            os._exit(code)
    shown, seen = "", 0
    waiting, again = [*keys], False
    end = time.monotonic() + 60
    try:
        while time.monotonic() < end:
            if select.select([terminal], [], [], 1)[0]:
                try:
                    part = os.read(terminal, 4096)
                except OSError:  # it was closed
                    break
                if not part:
                    break
                shown += part.decode("utf-8", "replace")
            elif not waiting:
                # Python can lose a Ctrl-C that comes between the prompt and its waiting for a key: as
                # anybody would, press it again.
                os.write(terminal, keys[-1][1].encode())
                again = True
            if waiting and waiting[0][0] in shown[seen:]:
                seen = len(shown)
                os.write(terminal, waiting.pop(0)[1].encode())
        assert not waiting, shown
        assert time.monotonic() < end, f"it has not ended: {shown}"
    except (
        BaseException
    ):  # pytest's time-out and Ctrl-C, too: nothing of a test may go on behind it
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.close(terminal)
    # If it wasn't lost, but only slow to end, the second one cuts its end short.
    assert code == 0 or (again and code == INTERRUPTED), shown
    return re.sub("\x1b\\[[0-9;?]*[A-Za-z]", "", shown).replace("\r", "")


def test_a_conversation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    reader: Any = StandIn()
    shown = in_terminal(
        Session(reader).converse,
        [
            ("> ", "Which city?\n"),
            ("> ", "bad\n"),
            ("> ", "slow\n"),
            ("slowly", "\x03"),  # Ctrl-C stops the answer,
            ("> ", "\x1b[A\x1b[A\x1b[A\n"),  # the history has what was asked,
            ("> ", "\x04"),  # and Ctrl-D ends.
        ],
    )
    assert "> Which city?\nParis\n! Answered without any passage.\n" in shown
    assert "Error: This question is too long.\nAsk it in fewer words.\n" in shown
    assert "slowly" in shown
    assert "Stopped." in shown
    assert shown.count("Paris\n") == 2
    kept = tmp_path / "ragtune" / "ask-history"
    assert kept.read_text("utf-8").split("\n")[-4:] == ["bad", "slow", "Which city?", ""]
    assert kept.stat().st_mode & 0o077 == 0
    assert "Paris" in in_terminal(Session(reader).converse, [("> ", "\x1b[A\n"), ("> ", "\x03")])


@pytest.mark.parametrize("typed", ["", "Which city?"])
def test_a_signal_to_end_ends_the_conversation(
    typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the prompt, and within an answer, which Ctrl-C alone would stop."""

    def terminated(*_: object, **__: object) -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        return ""

    reader: Any = StandIn()
    lines = iter([typed])
    if typed:
        reader.examples = terminated  # where there is no terminal
    monkeypatch.setattr("builtins.input", lambda *_: next(lines, "") or terminated())
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    stopping.install()
    try:
        with pytest.raises(stopping.Stopped):
            Session(reader).converse()
        assert stopping.last_words()[0] == 128 + signal.SIGTERM
    finally:
        stopping.uninstall()


def test_an_interrupt_is_what_it_was_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("builtins.input", lambda *_: (_ for _ in ()).throw(EOFError))
    reader: Any = StandIn()
    with monkeypatch.context() as patch:
        patch.setattr(sessions, "history", history)
        patch.setenv("XDG_STATE_HOME", "/dev/null")  # nothing can be kept there
        Session(reader).converse()
    assert signal.getsignal(signal.SIGINT) == before
